"""Figures: in, a collection's variants; out, plots as SVG, for the page and for the docs."""

import re
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from perank_tasks.experiments.answer import COSTS, Answer, OnCollection, amount
from perank_tasks.report import plots
from perank_tasks.report.page import TEMPLATES
from perank_tasks.report.plots import COLOURS, Interval, plot_intervals


def plot_front(answer: Answer, on: OnCollection, cost: str) -> Markup:
    """Quality against cost, and the front of those that none beats in both.

    Points have numbers, those of the table's lines; those of the front are bold.
    """
    main, front = answer.main, on.front(cost, answer.main)
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(3.6, 2.7), layout="constrained")
        axes = figure.subplots()
        steps = [(variant.costs[cost], variant.mean(main)) for variant in front]
        axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["accent"], linewidth=1)
        prices = {v.number: price for v in on.variants if (price := v.costs[cost]) is not None}
        for variant in (v for v in on.variants if v.number in prices):
            colour = COLOURS["accent" if variant in front else "soft"]
            point = (prices[variant.number], variant.mean(main))
            axes.plot(*point, "s" if variant is on.baseline else "o", color=colour, markersize=4)
            weight = "bold" if variant in front else "normal"
            axes.annotate(
                str(variant.number),
                point,
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=6.5,
                color=colour,
                fontweight=weight,
            )
        # A cost of nothing at all has a place, too.
        least = min((price for price in prices.values() if price), default=1.0)
        axes.set_xscale("symlog", linthresh=least / 2, linscale=0.5)
        axes.set_xlim(left=0 if min(prices.values()) == 0 else least / 1.5)
        axes.xaxis.set_major_formatter(lambda value, _: amount(cost, value))
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(f"{COSTS[cost]}, logarithmic")
        axes.set_ylabel(main)
        return plots.svg(figure, f"front {cost}")


def fronts_of(answer: Answer, on: OnCollection) -> dict[str, tuple[str, Markup]]:
    """Quality against each of the experiment's costs: {name: (caption, figure)}."""
    caption = "{} against {}; numbers: lines of the table, bold: not beaten in both"
    return {
        f"front-{cost}": (caption.format(answer.main, COSTS[cost]), plot_front(answer, on, cost))
        for cost in answer.priced(on)
    }


def figures_of(answer: Answer, on: OnCollection) -> dict[str, tuple[str, Markup]]:
    """The same, and means and changes, which a page of results has in any case."""
    main = answer.main
    means = [Interval(v.name, v.mean(main), **asdict(v.interval(main))) for v in on.variants]
    tests = {v.name: v.tests[main] for v in on.variants if main in v.tests}
    changes = [Interval(n, t["delta"], t["ci_low"], t["ci_high"]) for n, t in tests.items()]
    figures = {"means": (f"{main}, with 95% intervals", plot_intervals(means, main, "means"))}
    if changes:
        plot = plot_intervals(changes, f"change of {main}", "changes")
        figures["changes"] = (f"{main} against {answer.experiment.baseline}", plot)
    return figures | fronts_of(answer, on)


def write_svg(figure: Markup, path: Path) -> None:
    """A figure of a page as a file of its own, in the colours that the page has by day."""
    style = (TEMPLATES / "style.css").read_text()
    text = str(figure)
    for name in COLOURS:
        colour = re.search(rf"--{name}:\s*([^;]+);", style)
        text = text.replace(f"var(--{name})", colour[1] if colour else "black")
    root = (
        '<svg xmlns="http://www.w3.org/2000/svg" style="background: white; font: 8.5px sans-serif"'
    )
    path.write_text(text.replace("<svg", root, 1), encoding="utf-8")
