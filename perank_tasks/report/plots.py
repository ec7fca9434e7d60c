"""Plots: in, a night's numbers; out, SVG to stand inside an HTML page.

Colours are the page's own CSS variables, so that a figure is light, dark or printed as the page
is. What a colour says is said by shape or position, too. The same numbers give the same bytes.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from perank_tasks.report import looks
from perank_tasks.report.looks import Look
from perank_tasks.warehouse.sql_files import TableRow

_NAMES = ("soft", "rule", "band", "bad", "good", "warn", "accent", "paper", "ink", *looks.COLOURS)
COLOURS = {name: f"#{i:06x}" for i, name in enumerate(_NAMES, 1)}
"""{CSS variable: the colour that stands for it while matplotlib draws}. Not black, which
matplotlib leaves out where it is what SVG takes by itself."""

WORDS: dict[str, tuple[str, str, str]] = {
    "first": ("▷", ">", "soft"),
    "identical": ("•", ".", "soft"),
    "drift": ("○", "o", "soft"),
    "unusual": ("△", "^", "soft"),
    "acknowledged": ("■", "s", "accent"),
    "improvement": ("▲", "^", "good"),
    "suspect": ("◆", "D", "warn"),
    "incomplete": ("✕", "X", "warn"),
    "regression": ("▼", "v", "bad"),
}
"""{verdict: (its sign in text, its marker in plots, its colour)}"""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["soft"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "text.color": COLOURS["ink"],
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
}
_WIDTH = 3.6
"""Inches. Every figure is as wide as a phone shows, and a desk's page has several in a row."""

_LEAST_SPAN = 0.03
"""Of the axis of a trend: a change that no threshold would notice should not fill it."""


@dataclass(frozen=True)
class Interval:
    """An arm's number with its confidence interval, and the band in which it is usual."""

    name: str
    look: Look
    value: float
    low: float
    high: float
    band: tuple[float, float] | None = None


@mpl.rc_context(STYLE)
def plot_trend(points: Sequence[TableRow], look: Look, salt: str) -> Markup:
    """An arm's mean over the nights: band, baseline, a mark for each verdict and acceptance.

    Args:
        points: rows of `sql/report/trend.sql`.
    """
    # Ticks are as wide everywhere; to measure them in every figure takes as long as to draw.
    figure, axes = _figure(2.1, layout=None)
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.12, top=0.98)
    x = date2num([point["day"] for point in points])
    values, low, high, baseline = (
        np.array([point[column] for point in points], dtype=np.float64)
        for column in ("value", "band_low", "band_high", "baseline")
    )
    edges = _edges(x)
    lows, highs, baselines = (np.repeat(bound, 2) for bound in (low, high, baseline))
    axes.fill_between(edges, lows, highs, color=COLOURS["band"], linewidth=0, zorder=1)
    axes.plot(edges, baselines, ":", color=COLOURS["soft"], linewidth=1, zorder=2)
    axes.plot(x, values, "-", color=COLOURS[look.colour], linewidth=1, zorder=3)
    for word, (_, marker, colour) in WORDS.items():
        if its := [i for i, point in enumerate(points) if point["verdict"] == word]:
            hollow = word == "drift"
            axes.plot(
                x[its],
                values[its],
                marker,
                color=COLOURS[colour],
                markerfacecolor=COLOURS["paper" if hollow else colour],
                markersize=4 if marker in "o." else 6,
                zorder=4,
            )
    for day, point in zip(x, points, strict=True):
        if point["accepted"]:
            axes.axvline(day, color=COLOURS["accent"], linestyle="--", linewidth=1, zorder=2)
    shown = np.array([*values, *low, *high, *baseline])
    _limit(axes, float(np.nanmin(shown)), float(np.nanmax(shown)))
    _date_ticks(axes, [point["day"] for point in points])
    return svg(figure, salt)


@mpl.rc_context(STYLE)
def plot_intervals(intervals: Sequence[Interval], label: str, salt: str) -> Markup:
    """Numbers one below the other, each with its interval and, behind it, its band."""
    figure, axes = _figure(0.75 + 0.3 * len(intervals))
    y = np.arange(len(intervals))[::-1]
    for at, interval in zip(y, intervals, strict=True):
        if interval.band:
            low, high = interval.band
            axes.barh(at, high - low, left=low, height=0.6, color=COLOURS["band"])
        axes.plot(
            [interval.low, interval.high], [at, at], "|-", color=COLOURS["ink"], linewidth=1.2
        )
        axes.plot(interval.value, at, **_mark(interval.look), markersize=6)
    if any(interval.band for interval in intervals):
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
    axes.set_yticks(y, [interval.name for interval in intervals])
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-0.6, len(intervals) - 0.4)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(label)
    return svg(figure, salt)


@mpl.rc_context(STYLE)
def plot_gains(deltas: Sequence[float], label: str, salt: str) -> Markup:
    """What each query gained or lost, the largest loss on the left: losses below the line."""
    figure, axes = _figure(2.1)
    sorted_deltas = np.sort(np.asarray(deltas, dtype=np.float64))
    edges = np.arange(len(sorted_deltas) + 1)
    for part, colour in ((sorted_deltas.clip(max=0), "bad"), (sorted_deltas.clip(0), "good")):
        axes.stairs(part, edges, fill=True, color=COLOURS[colour], linewidth=0)
    axes.axhline(0, color=COLOURS["ink"], linewidth=0.8)
    axes.axhline(sorted_deltas.mean(), color=COLOURS["ink"], linestyle="--", linewidth=0.8)
    axes.set_xlim(0, len(sorted_deltas))
    axes.locator_params(nbins=5)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("queries, the largest loss first")
    axes.set_ylabel(label)
    return svg(figure, salt)


@mpl.rc_context(STYLE)
def plot_costs(costs: Sequence[tuple[float, Interval]], label: str, salt: str) -> Markup:
    """Quality, with its interval, against seconds a query on a logarithmic scale."""
    figure, axes = _figure(2.7)
    for seconds, quality in costs:
        mark, ends = _mark(quality.look), [quality.low, quality.high]
        axes.plot([seconds] * 2, ends, "-", color=mark["color"], linewidth=1)
        axes.plot(seconds, quality.value, linestyle="", label=quality.name, **mark)
    axes.set_xscale("log")
    all_seconds = [seconds for seconds, _ in costs]
    axes.set_xlim(min(all_seconds) / 3, max(all_seconds) * 3)
    axes.xaxis.set_major_formatter(EngFormatter("s"))
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("a query takes")
    axes.set_ylabel(label)
    _legend(figure, len(costs))
    return svg(figure, salt)


@mpl.rc_context(STYLE)
def plot_arms(arms: Sequence[TableRow], salt: str) -> Markup:
    """Every arm's mean over the nights in one figure.

    Args:
        arms: rows of `sql/report/arms_by_date.sql`.
    """
    figure, axes = _figure(2.7)
    its_look = looks.looks_of(arm["arm"] for arm in arms)
    for arm in arms:
        look = its_look[arm["arm"]]
        style = {"linestyle": look.line, "markersize": 5, "linewidth": 1, **_mark(look)}
        axes.plot(date2num(arm["days"]), arm["means"], label=arm["arm"], **style)
    values = [value for arm in arms for value in arm["means"]]
    _limit(axes, min(values), max(values))
    _date_ticks(axes, sorted({day for arm in arms for day in arm["days"]}))
    _legend(figure, len(arms))
    return svg(figure, salt)


def _mark(look: Look) -> dict[str, Any]:
    return {"marker": look.marker, "color": COLOURS[look.colour]}


def _figure(
    height: float, layout: Literal["constrained"] | None = "constrained"
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout=layout)
    return figure, figure.subplots()


def _legend(figure: Figure, entries: int) -> None:
    figure.legend(loc="outside lower center", ncols=min(entries, 4), handletextpad=0.4)


def _limit(axes: Axes, low: float, high: float) -> None:
    """Show what lies between, with a margin, and never less than `_LEAST_SPAN`."""
    spare = max(0.08 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    axes.set_ylim(low - spare, high + spare)
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter("{x:.3f}")


def _date_ticks(axes: Axes, days: Sequence[date]) -> None:
    """At most four days, the first and the last among them; the year where it is needed."""
    chosen = sorted({round(i) for i in np.linspace(0, len(days) - 1, min(4, len(days)))})
    long = (days[-1] - days[0]).days > 300
    ticks = [days[i] for i in chosen]
    labels = [f"{day:%Y-%m}" if long else f"{day:%m-%d}" for day in ticks]
    axes.set_xticks(date2num(ticks), labels)
    spare = max((days[-1] - days[0]).days * 0.05, 0.5)
    axes.set_xlim(date2num(days[0]) - spare, date2num(days[-1]) + spare)


def _edges(x: np.ndarray) -> np.ndarray:
    """(2n,) where each night's share of the axis begins and ends, half-way to its neighbours."""
    middles = (x[1:] + x[:-1]) / 2
    starts = np.concatenate([x[:1] - 0.5, middles])
    return np.stack([starts, np.concatenate([middles, x[-1:] + 0.5])], axis=1).ravel()


def svg(figure: Figure, salt: str) -> Markup:
    """The figure as an `<svg>` without a size, colours or names of its own.

    Args:
        salt: goes into the ids inside; two figures of a page must not share it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", text, count=1, flags=re.DOTALL)
    (box,) = re.findall(r'viewBox="[^"]*"', text)[:1]
    text = re.sub(r"<svg[^>]*>", f'<svg {box} aria-hidden="true">', text, count=1)
    text = re.sub(r' id="[^"]*_\d+"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(re.sub(r"\s*\n\s*", "\n", text).strip())
