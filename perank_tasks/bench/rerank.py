"""`perank bench rerank`: in, a collection and checkpoints; out, ratios, JSON and plots.

Queries are taken in blocks. In each block the contenders take turns (ABC, ABC, …), so that
a machine that is busy for a while slows all alike; a contender's figure is the median over its
blocks. After the first block come two sweeps, over depth and over batch, then further blocks
while there is time. Texts are embedded before anything is measured, but for the plain way,
which embeds them in every window as the reference does.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from perank_tasks.bench.contenders import Arena, Contender, Measurement, contenders, load_arena
from perank_tasks.bench.hardware import describe, matrix_rate
from perank_tasks.bench.options import BenchOptions
from perank_tasks.bench.output import Series
from perank_tasks.bench.workload import cut, load_queries, with_embeddings
from perank_tasks.perank.engine import device_named
from perank_tasks.settings import Settings
from perank_tasks.support.lists import CandidateList
from perank_tasks.support.progress import progress

SWEEP_DEPTHS = (20, 40, 60, 80, 100)


@dataclass
class Report:
    """All that was measured."""

    options: BenchOptions
    machine: dict[str, Any]
    matrix_rates: list[float] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    latency: Series = field(default_factory=dict)
    throughput: Series = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """Contenders that there was no time for."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Each query's passages, in candidates' order: equal texts may swap places."""

    @property
    def matrix_rate(self) -> float:
        """FLOP/s, the median over blocks."""
        return statistics.median(self.matrix_rates)

    def of(self, name: str) -> list[Measurement]:
        """One measurement of the contender a block."""
        return [m for m in self.measurements if m.contender == name]

    def seconds(self, name: str) -> float | None:
        """Median seconds a query, None where the contender was not measured."""
        return _median([m.seconds_a_query for m in self.of(name)])

    def ratio(self, slow: str, fast: str) -> float | None:
        """How many times as long `slow` takes as `fast`."""
        seconds, others = self.seconds(slow), self.seconds(fast)
        return seconds / others if seconds and others else None

    def ratio_alike(self, slow: str, fast: str) -> float | None:
        """The same, with as many queries at once as `slow` was given; needs `fast` in the sweep."""
        seconds = self.seconds(slow)
        at_once = [len(m.queries) for m in self.of(slow)][:1]
        rate = dict(self.throughput.get(fast, [])).get(*at_once) if at_once else None
        return seconds * rate if seconds and rate else None

    def prefill_share(self, name: str) -> float | None:
        """Of the matrix rate, what reading prompts reached: the median over blocks."""
        return _median(
            [
                m.prefill_flops / m.prefill_seconds / self.matrix_rate
                for m in self.of(name)
                if m.prefill_flops and m.prefill_seconds
            ]
        )

    def agreement(self, contender: Contender) -> tuple[int, int] | None:
        """Queries ranked as by the plain way, and queries that both ranked.

        The whole order counts, or the top k where only that is exact. None where the prompt is
        another.
        """
        options = contender.options
        if contender.prompt != "released" or options is None or "passages" in options:
            return None
        top = options.get("top_k")
        plain = self._rankings("plain")
        both = {q: order for q, order in self._rankings(contender.name).items() if q in plain}
        return sum(order[:top] == plain[q][:top] for q, order in both.items()), len(both)

    def _rankings(self, name: str) -> dict[str, list[str]]:
        return {
            query: [self.texts[query][position] for position in order]
            for m in self.of(name)
            for query, order in zip(m.queries, m.orders, strict=True)
        }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def run_benchmark(
    options: BenchOptions, after_block: Callable[[Report], object] = lambda _: None
) -> Report:
    """Measure every contender.

    Args:
        after_block: called after each block with what there is by then, so that a long benchmark
            that is stopped has not been for nothing.

    Raises:
        ConfigError, CollectionError, CheckpointError: something named is not there or unfit.
        QualityError: a contender could not rank a query.
    """
    device_named(options.device)  # before models are made, which takes a minute
    settings = Settings.from_environment()
    torch.set_num_threads(settings.threads)
    collection = options.collection or settings.collection
    options = options.model_copy(update={"collection": collection})
    queries = load_queries(collection, queries=options.queries, depth=options.depth)
    arena = load_arena(options, settings.cache)
    lists = with_embeddings(queries, arena.engines["released"])
    report = Report(
        options,
        describe(arena.plain.model),
        texts={each.query_id: list(each.texts or ()) for each in lists},
    )
    everyone = [c for c in contenders(options.top_k) if c.prompt in arena.engines]
    every_block = [c for c in everyone if not c.first_block_only]
    first, *others = [lists[i : i + options.batch] for i in range(0, len(lists), options.batch)]
    for contender in every_block:
        arena.measure(contender, [cut(lists[0], options.window)])  # warms up
    deadline = time.monotonic() + 60 * options.minutes
    with progress("measuring", len(everyone) + len(every_block) * len(others), "turns") as advance:
        _measure_block(arena, everyone, first, report, deadline, advance)
        after_block(report)
        if options.sweeps:
            in_sweeps = [c for c in every_block if c.in_sweeps]
            _sweep_batch(arena, in_sweeps, first, report)
            _sweep_depth(arena, in_sweeps, lists[0], report)
            after_block(report)
        for block in others:
            expected = sum(report.of(c.name)[-1].seconds for c in every_block)
            if time.monotonic() + expected > deadline:
                break
            _measure_block(arena, every_block, block, report, deadline, advance)
            after_block(report)
    return report


def _measure_block(
    arena: Arena,
    taking_part: Iterable[Contender],
    block: Sequence[CandidateList],
    report: Report,
    deadline: float,
    advance: Callable[[int], None],
) -> None:
    """Each contender in turn over one block of queries."""
    report.matrix_rates.append(matrix_rate(arena.plain.model))
    for contender in taking_part:
        if contender.first_block_only and time.monotonic() > deadline:
            report.skipped.append(contender.name)
            continue
        report.measurements.append(arena.measure(contender, block[: contender.queries]))
        advance(1)


def _sweep_batch(
    arena: Arena, taking_part: Iterable[Contender], block: Sequence[CandidateList], report: Report
) -> None:
    """Queries a second by queries ranked together: 1, 2, 4, … up to the block."""
    sizes = [2**i for i in range(len(block).bit_length()) if 2**i < len(block)]
    for contender in taking_part:
        if contender.options is not None:
            report.throughput[contender.name] = [
                (size, 1 / arena.measure(contender, block[:size]).seconds_a_query)
                for size in (*sizes, len(block))
            ]


def _sweep_depth(
    arena: Arena, taking_part: Iterable[Contender], candidates: CandidateList, report: Report
) -> None:
    """Seconds of one query by itself, by the number of its candidates."""
    depths = [depth for depth in SWEEP_DEPTHS if depth < len(candidates)]
    for contender in taking_part:
        report.latency[contender.name] = [
            (depth, arena.measure(contender, [cut(candidates, depth)]).seconds)
            for depth in (*depths, len(candidates))
        ]
