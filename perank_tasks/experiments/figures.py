"""Figures: in, a collection's variants; out, plots as SVG for the page or PNG for the docs.

The same drawing serves both: in SVG its colours are the page's own, in PNG those of its light
version.
"""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, Locator, LogLocator, MaxNLocator, NullLocator

from perank_tasks.experiments.contents import COSTS, Contents, OnCollection, Variant, amount
from perank_tasks.report import plots
from perank_tasks.report.plots import COLOURS

Palette = dict[str, str]
Style = dict[str, Any]
"""Of a text, as matplotlib's keywords."""
Point = tuple[int, float, Variant]
"""(number, cost, variant)"""

LIGHT: Palette = {
    "ink": "#1b1f24",
    "soft": "#57606a",
    "rule": "#d8dee4",
    "band": "#dbe7f5",
    "bad": "#b3261e",
    "good": "#0a6b4b",
    "warn": "#8a5a00",
    "accent": "#1f5fa8",
    "paper": "#ffffff",
}
MARKERS = "osD^vPX*"

NUMBER_SIZE = 6.5
"""Points: of the numbers beside points, and of legends."""

FIGURE_SPACE = "\u2007"
"""As wide as a digit."""

LONGEST_LINE = 36
"""Characters of a name beside its row; a longer one takes several lines."""

MOST_INTERVALS = 12
"""Points that all show their intervals; those of more would hide one another and the points."""

Draw = Callable[[Figure, Contents, OnCollection, Palette], None]


def draw_means(figure: Figure, contents: Contents, on: OnCollection, palette: Palette) -> None:
    """Every variant's mean with its interval; the baseline's as a line; cells as small points."""
    axes = figure.subplots()
    main = contents.main
    y = np.arange(len(on.variants))[::-1]
    if on.baseline:
        axes.axvline(on.baseline.means[main], color=palette["accent"], linewidth=0.8, linestyle=":")
    for at, variant in zip(y, on.variants, strict=True):
        interval = variant.intervals[main]
        axes.plot([interval.low, interval.high], [at, at], "-", color=palette["ink"], linewidth=1.2)
        if len(variant.cells) > 1:
            cells = [cell["means"][main] for cell in variant.cells]
            axes.plot(cells, [at] * len(cells), ".", color=palette["soft"], markersize=4)
        is_base = variant is on.baseline
        colour = palette["accent" if is_base else "ink"]
        axes.plot(variant.means[main], at, "s" if is_base else "o", color=colour, markersize=5)
    _names(figure, axes, y, on, palette)
    axes.set_xlabel(main)


def draw_changes(figure: Figure, contents: Contents, on: OnCollection, palette: Palette) -> None:
    """What each variant gains or loses against the baseline; filled where that is no chance."""
    axes = figure.subplots()
    main = contents.main
    y = np.arange(len(on.variants))[::-1]
    axes.axvline(0, color=palette["ink"], linewidth=0.8)
    for at, variant in zip(y, on.variants, strict=True):
        test = variant.tests.get(main)
        if test is None:
            continue
        colour = palette["good" if test["delta"] > 0 else "bad"]
        axes.plot([test["ci_low"], test["ci_high"]], [at, at], "|-", color=colour, linewidth=1.2)
        filled = colour if test["p_holm"] < 0.05 else palette["paper"]
        axes.plot(test["delta"], at, "o", color=colour, markerfacecolor=filled, markersize=5)
    _names(figure, axes, y, on, palette)
    axes.set_xlabel(f"change of {main}", loc="right")


def draw_front(
    cost: str, figure: Figure, contents: Contents, on: OnCollection, palette: Palette
) -> None:
    """Quality against cost, and the front of those that none beats in both.

    Points have numbers, those of the table's lines, and the legend says whose they are.
    """
    axes = figure.subplots()
    main = contents.main
    priced = [(n, variant.cost(cost), variant) for n, variant in enumerate(on.variants, 1)]
    points: list[Point] = [(n, price, variant) for n, price, variant in priced if price is not None]
    front = on.front(cost, main)
    _scale(axes, cost, sorted(price for _, price, _ in points))
    steps = [(variant.cost(cost), variant.means[main]) for variant in front]
    axes.step(*zip(*steps, strict=True), where="post", color=palette["accent"], linewidth=1)
    for _, price, variant in points:
        colour = palette["accent" if variant in front else "soft"]
        if len(points) <= MOST_INTERVALS:
            interval = variant.intervals[main]
            axes.plot([price] * 2, [interval.low, interval.high], "-", color=palette["rule"])
        marker = "s" if variant is on.baseline else "o"
        axes.plot(
            price,
            variant.means[main],
            marker,
            color=colour,
            markersize=5,
            markeredgecolor=palette["paper"],
            markeredgewidth=0.5,
        )
    axes.set_ylabel(main)
    width = len(str(len(on.variants)))
    names = [f"{str(n).rjust(width, FIGURE_SPACE)}  {_wrapped(v)}" for n, _, v in points]
    handles = [Line2D([], [], linestyle="", label=name) for name in names]
    styles = [_style(variant in front, palette) for _, _, variant in points]
    _legend(figure, handles, styles, handlelength=0, handletextpad=0)
    for (number, price, variant), style in zip(points, styles, strict=True):
        axes.annotate(
            str(number),
            (price, variant.means[main]),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=NUMBER_SIZE,
            ha="center",
            **style,
        )


def _style(on_front: bool, palette: Palette) -> Style:
    if on_front:
        return {"color": palette["accent"], "fontweight": "bold"}
    return {"color": palette["soft"], "fontweight": "normal"}


def _scale(axes: Axes, cost: str, prices: list[float]) -> None:
    """A logarithmic axis of costs, with room for numbers, that has a place for none at all."""
    low, high = next(price for price in prices if price), prices[-1]
    room = max((high / low) ** 0.08, 1.1)
    label = f"{COSTS[cost]}, logarithmic"
    ticks: Locator = MaxNLocator(3) if high < 3 * low else LogLocator(subs=(1, 2, 5))
    if high > 12 * low:
        ticks = LogLocator()
    if prices[0]:
        axes.set_xscale("log")
        axes.set_xlim(low / room, high * room)
    else:
        label += " but for the left"
        axes.set_xscale("symlog", linthresh=low / 2, linscale=0.5)
        axes.set_xlim(-low / 8, high * room**2)
        ticks = FixedLocator([0, *(at for at in ticks.tick_values(low, high) if at > low / 2)])
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: amount(cost, value))
    axes.set_xlabel(label)


def draw_lengths(figure: Figure, contents: Contents, on: OnCollection, palette: Palette) -> None:
    """Quality among passages of a length, the shortest on the left."""
    axes = figure.subplots()
    names = contents.lengths
    colours = [palette[name] for name in ("accent", "bad", "good", "warn", "ink", "soft")]
    for number, variant in enumerate(on.variants):
        values = [variant.means.get(name, np.nan) for name in names]
        axes.plot(
            range(1, len(names) + 1),
            values,
            marker=MARKERS[number % len(MARKERS)],
            color=colours[number % len(colours)],
            markersize=4,
            linewidth=1,
            label=variant.name,
        )
    axes.set_xticks(range(1, len(names) + 1))
    axes.set_xlabel("part, the shortest passages first")
    axes.set_ylabel("nDCG@10 among themselves")
    lines = axes.get_lines()
    _legend(figure, lines, [{"color": palette["ink"]}] * len(lines))


def _legend(figure: Figure, handles: Sequence[Line2D], styles: list[Style], **form: float) -> None:
    """A legend below, in as many columns as fit; the figure grows by its height."""
    for columns in (4, 3, 2, 1):
        legend = figure.legend(
            handles=handles, loc="outside lower left", ncols=columns, fontsize=NUMBER_SIZE, **form
        )
        for text, how in zip(legend.get_texts(), styles, strict=True):
            text.set(**how)
        extent = legend.get_window_extent()
        if extent.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)


def figures_of(contents: Contents, on: OnCollection) -> dict[str, tuple[str, Draw]]:
    """The figures of a collection that have something to show: {name: (caption, drawing)}."""
    main = contents.main
    caption = f"{main}: means and their 95% intervals over {on.queries} queries"
    found: dict[str, tuple[str, Draw]] = {"means": (caption, draw_means)}
    if any(main in variant.tests for variant in on.variants):
        caption = f"{main} against {contents.experiment.baseline}; filled: p < .05 after Holm"
        found["changes"] = (caption, draw_changes)
    for cost in contents.experiment.cost:
        prices = {variant.cost(cost) for variant in on.variants} - {None}
        if len(prices) > 1:
            caption = f"{main} against {COSTS[cost]}; the line and bold names: not beaten in both"
            found[f"front-{cost}"] = (caption, partial(draw_front, cost))
    if any(name in variant.means for variant in on.variants for name in contents.lengths):
        found["lengths"] = ("By length of the passages in words", draw_lengths)
    return found


def to_svg(draw: Draw, contents: Contents, on: OnCollection, salt: str) -> Markup:
    """A figure to stand inside the page."""
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(3.6, _height(draw, on)), layout="constrained")
        draw(figure, contents, on, COLOURS)
        return plots.svg(figure, salt)


def to_png(draw: Draw, contents: Contents, on: OnCollection, caption: str, path: Path) -> None:
    """A figure as a file of its own."""
    swapped = {stand_in: LIGHT[name] for name, stand_in in COLOURS.items()}
    style = {k: swapped.get(v, v) if isinstance(v, str) else v for k, v in plots.STYLE.items()}
    with mpl.rc_context(style):
        figure = Figure(figsize=(6.4, 1.1 * _height(draw, on)), layout="constrained")
        figure.suptitle(f"{contents.name}, {on.name}\n{textwrap.fill(caption, 90)}", fontsize=9)
        draw(figure, contents, on, LIGHT)
        # No date in it: the same numbers give the same bytes.
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _height(draw: Draw, on: OnCollection) -> float:
    if draw not in (draw_means, draw_changes):
        return 2.8
    lines = max(_wrapped(variant).count("\n") + 1 for variant in on.variants)
    return 0.8 + (0.1 + 0.14 * lines) * len(on.variants)


def _wrapped(variant: Variant) -> str:
    return textwrap.fill(variant.name, LONGEST_LINE)


def _names(figure: Figure, axes: Axes, y: np.ndarray, on: OnCollection, palette: Palette) -> None:
    axes.set_yticks(y, [_wrapped(variant) for variant in on.variants])
    axes.tick_params(axis="y", length=0, labelcolor=palette["ink"])
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-0.6, len(on.variants) - 0.4)
    axes.locator_params(axis="x", nbins=int(figure.get_figwidth()))  # names take half of it
