"""`perank bench rerank`: in, a collection and checkpoints; out, ratios, JSON and plots.

Queries are taken in blocks. In each block the contenders take turns (ABC, ABC, …), so that
a machine that is busy for a while slows all alike; a contender's figure is the median over its
blocks. After the first block come two sweeps, over depth and over batch, then further blocks
while there is time. Texts are embedded before anything is measured, but for the plain way,
which embeds them in every window as the reference does.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from perank_tasks.bench import plots
from perank_tasks.bench.contenders import (
    Arena,
    Contender,
    Measurement,
    contenders,
    load_arena,
)
from perank_tasks.bench.hardware import describe, matrix_rate
from perank_tasks.bench.prefill import PrefillRates, measure_prefill
from perank_tasks.bench.workload import BenchQuery, load_queries
from perank_tasks.errors import ConfigError, StorageError
from perank_tasks.settings import Settings
from perank_tasks.support.progress import progress

SWEEP_DEPTHS = (20, 40, 60, 80, 100)


@dataclass(frozen=True)
class BenchOptions:
    """What to measure; `perank bench rerank --help` says what each is."""

    collection: str
    queries: int = 12
    batch: int = 6
    depth: int = 100
    window: int = 20
    step: int = 10
    top_k: int = 10
    minutes: float = 4.0
    sweeps: bool = True
    checkpoint: str | None = None
    compact_checkpoint: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("queries", "batch", "top_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be 1 or more")
        if not self.minutes >= 0:
            raise ConfigError(f"--minutes is {self.minutes}, expected 0 or more")
        if self.depth < self.window:
            raise ConfigError(
                f"--depth is {self.depth} and --window {self.window}: expected a depth of a window "
                f"or more, since latency is measured from one window on"
            )


@dataclass
class Report:
    """All that was measured."""

    options: BenchOptions
    machine: dict[str, Any]
    matrix_rates: list[float] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    prefill: list[PrefillRates] = field(default_factory=list)
    latency: plots.Series = field(default_factory=dict)
    throughput: plots.Series = field(default_factory=dict)
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
        found = [m.seconds_a_query for m in self.of(name)]
        return statistics.median(found) if found else None

    def ratio(self, slow: str, fast: str) -> float | None:
        """How many times as long `slow` takes as `fast`."""
        numerator, denominator = self.seconds(slow), self.seconds(fast)
        if numerator is None or denominator is None:
            return None
        return numerator / denominator

    def ratio_alike(self, slow: str, fast: str) -> float | None:
        """The same, with as many queries at once as `slow` was given; needs `fast` in the sweep."""
        found = self.of(slow)
        rates = dict(self.throughput.get(fast, []))
        rate = rates.get(len(found[0].queries)) if found else None
        seconds = self.seconds(slow)
        return seconds * rate if seconds and rate else None

    def prefill_share(self, name: str) -> float | None:
        """Of the matrix rate, what reading prompts reached: the median over blocks."""
        shares = [
            m.prefill_flops / m.prefill_seconds / self.matrix_rate
            for m in self.of(name)
            if m.prefill_flops and m.prefill_seconds
        ]
        return statistics.median(shares) if shares else None

    def agreement(self, contender: Contender) -> tuple[int, int] | None:
        """Queries ranked as by the plain way, and queries that both ranked.

        The whole order counts, or the top k where only that is exact. None where the prompt is
        another.
        """
        if contender.prompt != "released" or contender.reads_texts or contender.options is None:
            return None
        top = contender.options.get("top_k")
        plain = self._rankings("plain")
        both = {q: order for q, order in self._rankings(contender.name).items() if q in plain}
        return sum(order[:top] == plain[q][:top] for q, order in both.items()), len(both)

    def _rankings(self, name: str) -> dict[str, list[str]]:
        return {
            query: [self.texts[query][position] for position in order]
            for m in self.of(name)
            for query, order in zip(m.queries, m.orders, strict=True)
        }


def run_benchmark(
    options: BenchOptions, keep: Callable[["Report"], object] | None = None
) -> Report:
    """Measure every contender.

    Args:
        keep: called after each block with what there is by then, so that a long benchmark that
            is stopped has not been for nothing.

    Raises:
        ConfigError, CollectionError, CheckpointError: something named is not there or unfit.
        QualityError: a contender could not rank a query.
    """
    settings = Settings.from_environment()
    torch.set_num_threads(settings.threads)
    queries = load_queries(options.collection, queries=options.queries, depth=options.depth)
    arena = load_arena(
        options.checkpoint,
        options.compact_checkpoint,
        with_compact=options.checkpoint is None or options.compact_checkpoint is not None,
        window=options.window,
        step=options.step,
        device=options.device,
        cache=settings.cache,
    )
    arena.embed(queries)
    report = Report(
        options,
        describe(arena.device, arena.plain.model.dtype),
        texts={query.query_id: query.passages for query in queries},
    )
    for _ in _measure(arena, queries, report):
        if keep is not None:
            keep(report)
    return report


def _measure(arena: Arena, queries: Sequence[BenchQuery], report: Report) -> Iterator[None]:
    """Add to the report; yields where what it holds is worth keeping."""
    options = report.options
    taking_part = [c for c in contenders(options.top_k) if c.prompt in arena.engines]
    every_block = [c for c in taking_part if not c.first_block_only]
    blocks = [queries[i : i + options.batch] for i in range(0, len(queries), options.batch)]
    for contender in every_block:
        arena.measure(contender, [queries[0].cut(options.window)])  # warms up
    deadline = time.monotonic() + 60 * options.minutes
    total = len(taking_part) + len(every_block) * (len(blocks) - 1)
    with progress("measuring", total, "turns") as advance:
        _block(arena, taking_part, blocks[0], report, deadline, advance)
        yield
        if options.sweeps:
            in_sweeps = [c for c in every_block if c.in_sweeps]
            _sweep_batch(arena, in_sweeps, blocks[0], report)
            _sweep_depth(arena, in_sweeps, queries[0], report)
            yield
        for block in blocks[1:]:
            expected = sum(report.of(c.name)[-1].seconds for c in every_block)
            if time.monotonic() + expected > deadline:
                break
            _block(arena, every_block, block, report, deadline, advance)
            yield


def _block(
    arena: Arena,
    taking_part: Iterable[Contender],
    block: Sequence[BenchQuery],
    report: Report,
    deadline: float,
    advance: Callable[[int], None],
) -> None:
    """Each contender in turn over one block of queries."""
    llm = arena.plain.model.config
    report.matrix_rates.append(matrix_rate(llm, arena.device, arena.plain.model.dtype))
    report.prefill.append(measure_prefill(arena, block, repeats=2))
    for contender in taking_part:
        if contender.first_block_only and time.monotonic() > deadline:
            report.skipped.append(contender.name)
            continue
        report.measurements.append(arena.measure(contender, block[: contender.queries]))
        advance(1)


def _sweep_batch(
    arena: Arena, taking_part: Iterable[Contender], block: Sequence[BenchQuery], report: Report
) -> None:
    """Queries a second by queries ranked together: 1, 2, 4, … up to the block."""
    for contender in taking_part:
        if contender.options is None:
            continue
        whole = report.of(contender.name)[0]
        sizes = [2**i for i in range(len(block).bit_length()) if 2**i < len(block)]
        points = [(size, arena.measure(contender, block[:size])) for size in sizes]
        report.throughput[contender.name] = [
            (size, 1 / m.seconds_a_query) for size, m in [*points, (len(block), whole)]
        ]


def _sweep_depth(
    arena: Arena, taking_part: Iterable[Contender], query: BenchQuery, report: Report
) -> None:
    """Seconds of one query by itself, by the number of its candidates; all of them are known."""
    most = len(query.passages)
    for contender in taking_part:
        if contender.options is None:
            whole = report.of(contender.name)[0].seconds_a_query
        else:
            _, queries_a_second = report.throughput[contender.name][0]
            whole = 1 / queries_a_second
        points = [
            (depth, arena.measure(contender, [query.cut(depth)]).seconds)
            for depth in SWEEP_DEPTHS
            if depth < most
        ]
        report.latency[contender.name] = [*points, (most, whole)]


def print_report(out: Console, report: Report) -> None:
    """The table, then what it comes to in a few lines."""
    machine, options = report.machine, report.options
    out.print(
        f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, "
        f"{report.matrix_rate / 1e9:,.0f} GFLOP/s in matrix products; {options.collection}, "
        f"up to {options.depth} candidates a query, window {options.window}, step {options.step}",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("contender", no_wrap=True)
    for heading in ("s/query", "× plain", "tokens", "steps", "prefill", "as plain", "at once"):
        table.add_column(heading, justify="right")
    for contender in contenders(options.top_k):
        found = report.of(contender.name)
        if not found:
            continue
        ranked = sum(len(m.queries) for m in found)
        share, same = report.prefill_share(contender.name), report.agreement(contender)
        table.add_row(
            contender.name,
            f"{report.seconds(contender.name):.3f}",
            _times(report.ratio("plain", contender.name)),
            f"{sum(m.tokens_in for m in found) / ranked:,.0f}",
            f"{sum(m.decode_steps for m in found) / ranked:,.0f}",
            f"{share:.0%}" if share is not None else "–",
            f"{same[0]} of {same[1]}" if same else "–",
            "1" if contender.options is None else str(len(found[0].queries)),
        )
    out.print(table)
    out.print(
        f"[dim]Medians; blocks of queries measured: {len(report.matrix_rates)}. prefill: "
        "of the matrix rate while prompts are read. as plain: queries ranked as the plain way "
        "does. at once: queries ranked together.[/]"
    )
    for line, value in ratios(report).items():
        out.print(f"{line}: {_times(value)}", highlight=False)
    if report.skipped:
        out.print(f"not measured, for want of time (--minutes): {', '.join(report.skipped)}")


def ratios(report: Report) -> dict[str, float | None]:
    """What the benchmark is for, by what it says; None where a part was not measured."""
    top = f", top {report.options.top_k}"
    return {
        "plain / released, same rankings": report.ratio("plain", "released"),
        f"plain / compact{top}": report.ratio("plain", f"compact{top}"),
        "full text / released, all steps": report.ratio("full text", "released"),
        "full text / compact, all steps": report.ratio("full text", "compact"),
        "full text / released, as many queries at once": report.ratio_alike(
            "full text", "released"
        ),
        f"full text{top} / compact{top}": report.ratio(f"full text{top}", f"compact{top}"),
        f"full text{top} / compact{top}, as many queries at once": report.ratio_alike(
            f"full text{top}", f"compact{top}"
        ),
        "prefill / stock forward pass": statistics.median(r.ratio for r in report.prefill),
    }


def write_report(folder: Path, report: Report) -> list[Path]:
    """Write results.json, latency.png and throughput.png; returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    results = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": dataclasses.asdict(report.options),
        "machine": report.machine,
        "matrix_flops_a_second": report.matrix_rates,
        "median_seconds_a_query": {
            m.contender: report.seconds(m.contender) for m in report.measurements
        },
        "ratios": ratios(report),
        "prefill": [dataclasses.asdict(rates) for rates in report.prefill],
        "measurements": [dataclasses.asdict(m) for m in report.measurements],
        "latency_seconds_by_depth": report.latency,
        "queries_a_second_by_batch": report.throughput,
        "skipped": report.skipped,
    }
    paths = [folder / "results.json"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(json.dumps(results, indent=1) + "\n")
        if report.latency:
            paths += [folder / "latency.png", folder / "throughput.png"]
            plots.plot_latency(paths[1], report.latency)
            plots.plot_throughput(paths[2], report.throughput)
    except OSError as error:
        raise StorageError(f"cannot write the benchmark's results to {folder}: {error}") from error
    return paths


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"
