"""What benchmarks put out: results.json, tables for a terminal, and PNG plots.

A plot's series is a name and its points (x, y). Drawn without pyplot, so no display is needed.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from perank_tasks.support.files import replacing

Series = dict[str, list[tuple[int, float]]]


def write_json(folder: Path, results: dict[str, Any]) -> Path:
    """Write results.json, with the time; returns its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder / "results.json"
    values = {"written_at": datetime.now(UTC).isoformat(timespec="seconds"), **results}
    with replacing(path, "Free space, or give another --out.") as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path


def new_table(name: str, *numbers: str) -> Table:
    """A table of these headings: what each line is about, and columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(name, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def plot_latency(path: Path, series: Series) -> None:
    """Seconds a query by number of candidates, one query at a time; a logarithmic scale."""
    figure, axes = _figure(series, "Latency, one query at a time")
    axes.set(xlabel="candidates a query", ylabel="seconds a query", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    figure.savefig(path, dpi=150)


def plot_throughput(path: Path, series: Series) -> None:
    """Queries a second by the number of queries ranked together."""
    figure, axes = _figure(series, "Throughput")
    axes.set(xlabel="queries ranked together", ylabel="queries a second", ylim=(0, None))
    figure.savefig(path, dpi=150)


def plot_scale(path: Path, series: Series, extrapolated: dict[int, float]) -> None:
    """Seconds of each stage by passages, both logarithmic; of `embed` dashed where not measured."""
    figure, axes = _figure(series, "Seconds of each stage by the size of the corpus")
    if extrapolated:
        points = [series["embed"][-1], *extrapolated.items()]
        color = axes.lines[list(series).index("embed")].get_color()
        axes.plot(*zip(*points, strict=True), "--", color=color, label="embed, extrapolated")
    axes.set(xscale="log", yscale="log", xlabel="passages", ylabel="seconds")
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def _figure(series: Series, title: str) -> tuple[Figure, Axes]:
    """All series as lines, with ticks where something was measured."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xticks(sorted({x for points in series.values() for x, _ in points}))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure, axes
