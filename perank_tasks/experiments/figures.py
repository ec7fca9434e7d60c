"""Figures: in, a collection's variants; out, plots as SVG for the page or PNG for the docs.

The same drawing serves both: in SVG its colours are the page's own, in PNG those of its light
version.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perank_tasks.experiments.contents import COSTS, Contents, OnCollection, Variant, amount
from perank_tasks.report import plots
from perank_tasks.report.plots import COLOURS

Palette = dict[str, str]
Point = tuple[float, Variant]

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
MOST_NAMES = 12
"""Points that all have room for their names; of more, those on the front and the baseline do."""

NAME_ROOM = 0.03
"""Of the width between the cheapest and the dearest, what one name's line takes."""

MARKERS = "osD^vPX*"

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
    _names(axes, y, on, palette)
    axes.set_xlabel(f"{main}, 95% interval over {on.queries} queries")


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
    _names(axes, y, on, palette)
    axes.set_xlabel(f"{main} against {contents.experiment.baseline}; filled: p < .05 after Holm")


def draw_front(
    cost: str, figure: Figure, contents: Contents, on: OnCollection, palette: Palette
) -> None:
    """Quality against cost, and the front of those that none beats in both."""
    axes = figure.subplots()
    main = contents.main
    priced = [(variant.cost(cost), variant) for variant in on.variants]
    points = [(price, variant) for price, variant in priced if price]
    front = [variant for variant in on.front(cost, main) if variant.cost(cost)]
    if len(front) > 1:
        x = np.array([variant.cost(cost) for variant in front], float)
        values = [variant.means[main] for variant in front]
        axes.step(x, values, where="post", color=palette["accent"], linewidth=1)
    for number, (price, variant) in enumerate(points):
        colour = palette["accent" if variant in front else "soft"]
        interval = variant.intervals[main]
        axes.plot([price] * 2, [interval.low, interval.high], "-", color=palette["rule"])
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(price, variant.means[main], marker, color=colour, markersize=5)
    shown = [
        (price, variant)
        for price, variant in sorted(points, key=lambda point: (point[0], -point[1].means[main]))
        if len(points) <= MOST_NAMES or variant in front or variant is on.baseline
    ]
    prices = [price for price, _ in points]
    for beside in _close(shown, max(prices, default=1) / min(prices, default=1)):
        # Slanted and above the intervals: beside a point, a name lies on the next point.
        axes.annotate(
            "\n".join(variant.name for _, variant in beside),
            (beside[0][0], max(variant.intervals[main].high for _, variant in beside)),
            xytext=(-1, 2),
            textcoords="offset points",
            fontsize=6,
            linespacing=1,
            color=palette["accent" if any(v in front for _, v in beside) else "soft"],
            rotation=35,
            rotation_mode="anchor",
        )
    axes.set_xscale("log")
    if prices:
        axes.set_xlim(min(prices) / 1.5, max(prices) * 2.5)
    axes.xaxis.set_major_formatter(lambda value, _: amount(cost, value))
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(f"{COSTS[cost]}, logarithmic")
    axes.set_ylabel(main)


def _close(points: list[Point], ratio: float) -> list[list[Point]]:
    """Points in the order of their costs, those that share a name's room together."""
    room = ratio**NAME_ROOM
    groups: list[list[Point]] = []
    for price, variant in points:
        if groups and price <= groups[-1][-1][0] * room:
            groups[-1].append((price, variant))
        else:
            groups.append([(price, variant)])
    return groups


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
    axes.set_xlabel("passages by length in words: shortest to longest part")
    axes.set_ylabel("nDCG@10 among themselves")
    figure.legend(loc="outside lower center", ncols=2, fontsize=6.5, handletextpad=0.4)


def figures_of(contents: Contents, on: OnCollection) -> dict[str, tuple[str, Draw]]:
    """The figures of a collection that have something to show: {name: (caption, drawing)}."""
    found: dict[str, tuple[str, Draw]] = {"means": ("Means and their intervals", draw_means)}
    if any(contents.main in variant.tests for variant in on.variants):
        found["changes"] = ("Against the baseline, paired by query", draw_changes)
    for cost in contents.experiment.cost:
        if len({price for variant in on.variants if (price := variant.cost(cost))}) > 1:
            caption = f"{contents.main} against {COSTS[cost]}; the line: not beaten in both"
            found[f"front-{cost}"] = (caption, partial(draw_front, cost))
    if any(name in variant.means for variant in on.variants for name in contents.lengths):
        found["lengths"] = ("By length of the passages", draw_lengths)
    return found


def to_svg(draw: Draw, contents: Contents, on: OnCollection, salt: str) -> Markup:
    """A figure to stand inside the page."""
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(3.6, _height(draw, on)), layout="constrained")
        draw(figure, contents, on, COLOURS)
        return plots.svg(figure, salt)


def to_png(draw: Draw, contents: Contents, on: OnCollection, path: Path) -> None:
    """A figure as a file of its own."""
    swapped = {stand_in: LIGHT[name] for name, stand_in in COLOURS.items()}
    style = {k: swapped.get(v, v) if isinstance(v, str) else v for k, v in plots.STYLE.items()}
    with mpl.rc_context(style):
        figure = Figure(figsize=(6.4, 1.1 * _height(draw, on)), layout="constrained")
        draw(figure, contents, on, LIGHT)
        figure.suptitle(f"{contents.name}, {on.name}", fontsize=9)
        # No date in it: the same numbers give the same bytes.
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _height(draw: Draw, on: OnCollection) -> float:
    return 0.8 + 0.24 * len(on.variants) if draw in (draw_means, draw_changes) else 3.2


def _names(axes: Axes, y: np.ndarray, on: OnCollection, palette: Palette) -> None:
    axes.set_yticks(y, [variant.name for variant in on.variants])
    axes.tick_params(axis="y", length=0, labelcolor=palette["ink"])
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-0.6, len(on.variants) - 0.4)
    axes.locator_params(axis="x", nbins=5)
