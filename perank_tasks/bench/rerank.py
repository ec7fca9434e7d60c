"""`perank bench rerank`: in, a collection and checkpoints; out, a table, ratios and JSON.

Queries are taken in blocks. In each block the contenders take turns (ABC, ABC, …), so that
a machine that is busy for a while slows all alike; a contender's figure is the median over its
blocks. Texts are embedded before anything is measured, but for the plain way, which embeds them
in every window as the reference does.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from perank_tasks.bench.contenders import Contender, Measurement, contenders, load_arena
from perank_tasks.bench.hardware import describe, product_rate
from perank_tasks.bench.options import BenchOptions
from perank_tasks.bench.output import write_json
from perank_tasks.bench.workload import cut, load_queries, with_embeddings
from perank_tasks.perank.engine import device_named
from perank_tasks.settings import Settings
from perank_tasks.support.printer import Printer
from perank_tasks.support.progress import progress

BASELINE = "plain"
"""The contender that all are a ratio to."""


@dataclass
class Report:
    """All that was measured."""

    options: BenchOptions
    machine: dict[str, Any]
    matrix_flops_a_second: float
    measurements: list[Measurement] = field(default_factory=list)

    def of(self, name: str) -> list[Measurement]:
        """One measurement of the contender a block."""
        return [m for m in self.measurements if m.contender == name]

    def seconds(self) -> dict[str, float]:
        """Median seconds a query, by the names of the contenders that were measured."""
        return {
            m.contender: statistics.median(each.seconds_a_query for each in self.of(m.contender))
            for m in self.measurements
        }

    def ratios(self) -> dict[str, float]:
        """How many times as long `BASELINE` takes as each contender."""
        seconds = self.seconds()
        return {name: seconds[BASELINE] / its for name, its in seconds.items()}

    def agreement(self, contender: Contender) -> tuple[int, int] | None:
        """Queries ranked as by the plain way, and queries that both ranked.

        The whole order counts, or the top k where only that is exact. None where the prompt is
        another.
        """
        options = contender.options
        if contender.prompt != "released" or options is None or "passages" in options:
            return None
        top = options.get("top_k")
        plain, its = (
            {query: order[:top] for m in self.of(name) for query, order in m.orders.items()}
            for name in (BASELINE, contender.name)
        )
        both = plain.keys() & its.keys()
        return sum(its[query] == plain[query] for query in both), len(both)


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
    place = arena.plain.model.device, arena.plain.model.dtype
    report = Report(options, describe(*place), product_rate(*place))
    everyone = [c for c in contenders(options.top_k) if c.prompt in arena.engines]
    every_block = [c for c in everyone if not c.first_block_only]
    blocks = [lists[i : i + options.batch] for i in range(0, len(lists), options.batch)]
    for contender in every_block:
        arena.measure(contender, [cut(lists[0], options.window)])  # warms up
    turns = len(everyone) + len(every_block) * (len(blocks) - 1)
    with progress("measuring", turns, "turns") as advance:
        for number, block in enumerate(blocks):
            for contender in every_block if number else everyone:
                report.measurements.append(arena.measure(contender, block[: contender.queries]))
                advance(1)
            after_block(report)
    return report


def print_report(printer: Printer, report: Report) -> None:
    """The machine, and a table with a line for each contender."""
    machine, options = report.machine, report.options
    printer.line(
        f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, "
        f"{report.matrix_flops_a_second / 1e9:,.0f} GFLOP/s in matrix products; "
        f"{options.collection}, up to {options.depth} candidates a query, window "
        f"{options.window}, step {options.step}"
    )
    seconds, ratios = report.seconds(), report.ratios()
    rows = []
    for contender in contenders(options.top_k):
        if not (measurements := report.of(contender.name)):
            continue
        ranked = sum(len(m.orders) for m in measurements)
        same = report.agreement(contender)
        rows.append(
            [
                contender.name,
                f"{seconds[contender.name]:.3f}",
                f"{ratios[contender.name]:.2f}×",
                f"{sum(m.tokens_in for m in measurements) / ranked:,.0f}",
                f"{sum(m.decode_steps for m in measurements) / ranked:,.0f}",
                f"{same[0]} of {same[1]}" if same else "–",
                str(contender.at_once(len(measurements[0].orders))),
            ]
        )
    headings = ("contender", "s/query", f"× {BASELINE}", "tokens", "steps", "as plain", "at once")
    printer.table(headings, rows)
    printer.line(
        "Medians over blocks of queries. as plain: queries ranked as the plain way does. at once: "
        "queries ranked together.",
        "dim",
    )


def write_report(folder: Path, report: Report) -> Path:
    """Write results.json; returns its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    results = {
        "options": report.options.model_dump(),
        "machine": report.machine,
        "matrix_flops_a_second": report.matrix_flops_a_second,
        "median_seconds_a_query": report.seconds(),
        f"{BASELINE}_seconds_over_its": report.ratios(),
        "measurements": [asdict(m) for m in report.measurements],
    }
    return write_json(folder, results)
