"""Figures: in, a collection's variants; out, plots as SVG."""

from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from perank_tasks.experiments.answer import COSTS, Answer, amount
from perank_tasks.report import plots
from perank_tasks.report.plots import COLOURS


def plot_front(answer: Answer, cost: str) -> Markup:
    """Quality against cost, and the front of those that none beats in both.

    Points have the variants' numbers; those of the front are bold.
    """
    main, front = answer.main, answer.front(cost)
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(3.6, 2.7), layout="constrained")
        axes = figure.subplots()
        steps = [(variant.costs[cost], variant.mean(main)) for variant in front]
        axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["accent"], linewidth=1)
        prices = {v.number: price for v in answer.variants if (price := v.costs[cost]) is not None}
        for variant in (v for v in answer.variants if v.number in prices):
            point = (prices[variant.number], variant.mean(main))
            marker = "s" if variant is answer.baseline else "o"
            colour, weight = ("accent", "bold") if variant in front else ("soft", "normal")
            axes.plot(*point, marker, color=COLOURS[colour], markersize=4)
            look: dict[str, Any] = {"color": COLOURS[colour], "fontweight": weight, "fontsize": 6.5}
            axes.annotate(
                str(variant.number), point, xytext=(3, 3), textcoords="offset points", **look
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


def fronts_of(answer: Answer) -> list[tuple[str, Markup]]:
    """Quality against each of the experiment's costs: captions and figures."""
    names = ", ".join(f"{variant.number} {variant.name}" for variant in answer.variants)
    caption = "{} against {}; bold: not beaten in both. {}"
    return [
        (caption.format(answer.main, COSTS[cost], names), plot_front(answer, cost))
        for cost in answer.costs
    ]
