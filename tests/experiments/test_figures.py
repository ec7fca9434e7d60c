"""Figures and sentences of made-up variants: what lies where, what is bold, what is claimed."""

import dataclasses
from datetime import date
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from perank_tasks.experiments.contents import Contents, OnCollection, Variant, findings
from perank_tasks.experiments.figures import LIGHT, Draw, figures_of
from perank_tasks.experiments.options import Experiment
from perank_tasks.regression.statistics import mean_interval
from perank_tasks.report import plots

MAIN = "nDCG@10"
WIDTHS = (3.6, 6.4)
"""Inches: in the page, and in the docs."""


def contents_of(costs: list[float], means: list[float]) -> Contents:
    """A collection whose variants cost so many bits a passage and rank so well."""
    experiment = Experiment.read("precision")
    baseline = "a baseline of a long name, PE-Rank"
    longest = "of a name that goes on and on, with 64 dimensions, one window of 100"
    names = [baseline, longest, *(f"variant {n:02}, mean of 12 layers" for n in range(2, 99))]
    variants = []
    for name, bits, mean in zip(names, costs, means, strict=False):
        test = {"delta": mean - means[0], "ci_low": -0.1, "ci_high": 0.0234, "p_holm": 0.5}
        test |= {"better": 1, "worse": 2}
        variants.append(
            Variant(
                name=name,
                cells=[{"bits_a_passage": bits}],
                intervals={MAIN: mean_interval(np.array([mean - 0.1, mean, mean + 0.1]))},
                means={MAIN: mean, "judged@10": 1.0},
                tests={} if name == baseline else {MAIN: test},
                lowest=mean,
                highest=mean,
            )
        )
    on = OnCollection("topics", 100, 40, variants, variants[0], len(variants) - 1)
    return Contents(
        name="precision",
        run_date=date(2026, 1, 31),
        about={},
        experiment=experiment.model_copy(update={"baseline": baseline}),
        collections=[on],
        missing=[],
        facts={},
    )


def crowded(count: int) -> Contents:
    """Most of them in three crowds, two of them alike in both."""
    generator = np.random.default_rng(count)
    costs = generator.choice([1024.0, 12288.0, 12300.0, 20000.0], count)
    means = 0.65 + 0.01 * generator.random(count)
    costs[2], means[2] = costs[1], means[1]
    return contents_of(list(costs), list(means))


def drawn(draw: Draw, contents: Contents, width: float) -> Figure:
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        draw(figure, contents, contents.collections[0], LIGHT)
        figure.draw_without_rendering()
    return figure


def figure_of(name: str, contents: Contents, width: float) -> Figure:
    _, draw = figures_of(contents, contents.collections[0])[name]
    return drawn(draw, contents, width)


def numbers(figure: Figure) -> dict[int, Annotation]:
    found = figure.axes[0].findobj(Annotation)
    return {int(number.get_text()): number for number in found if isinstance(number, Annotation)}


def extent(text: Text) -> Any:
    """Of the text alone: an annotation's own takes in its line."""
    return Text.get_window_extent(text)


def test_every_point_has_its_number() -> None:
    contents = crowded(26)
    (on,) = contents.collections
    written = numbers(figure_of("front-bits", contents, WIDTHS[0]))
    places = {n: (v.cost("bits"), v.means[MAIN]) for n, v in enumerate(on.variants, 1)}
    assert {number: text.xy for number, text in written.items()} == places


@pytest.mark.parametrize("width", WIDTHS)
def test_the_front_alone_is_bold_and_the_legend_names_every_point(width: float) -> None:
    contents = crowded(26)
    (on,) = contents.collections
    figure = figure_of("front-bits", contents, width)
    front = {on.variants.index(variant) + 1 for variant in on.front("bits", MAIN)}
    assert 0 < len(front) < 26
    written = numbers(figure)
    assert {n for n, text in written.items() if text.get_fontweight() == "bold"} == front
    assert {n for n, text in written.items() if text.get_color() == LIGHT["accent"]} == front
    names = figure.legends[0].get_texts()
    said = [" ".join(text.get_text().split()).split(maxsplit=1) for text in names]
    assert said == [[str(n), variant.name] for n, variant in enumerate(on.variants, 1)]
    assert {n for n, text in enumerate(names, 1) if text.get_fontweight() == "bold"} == front


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["means", "changes", "front-bits"])
def test_no_text_is_cropped_and_no_tick_lies_on_the_next(name: str, width: float) -> None:
    figure = figure_of(name, crowded(26), width)
    whole = figure.bbox.padded(1)
    texts = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_text().strip()]
    for text in texts:
        if text.get_visible() and _is_shown(text, figure):
            box = extent(text)
            assert whole.contains(*box.min), text.get_text()
            assert whole.contains(*box.max), text.get_text()
    ticks = [t for t in figure.axes[0].get_xticklabels() if _is_shown(t, figure)]
    assert ticks
    for first, second in combinations(ticks, 2):
        assert not extent(first).overlaps(extent(second)), (first, second)


def _is_shown(text: Text, figure: Figure) -> bool:
    """Whether it is no tick beyond the end of the axis."""
    (axes,) = figure.axes
    if text in axes.get_xticklabels():
        low, high = sorted(axes.get_xlim())
        return low <= text.get_position()[0] <= high
    if text in axes.get_yticklabels():
        low, high = sorted(axes.get_ylim())
        return low <= text.get_position()[1] <= high
    return True


def test_what_costs_nothing_has_a_place_and_is_on_the_front() -> None:
    contents = contents_of([384.0, 0.0, 12288.0], [0.6, 0.5, 0.4])
    figure = figure_of("front-bits", contents, 3.6)
    (axes,) = figure.axes
    assert [n for n, t in numbers(figure).items() if t.get_fontweight() == "bold"] == [1, 2]
    low, high = axes.get_xlim()
    shown = [t.get_text() for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert shown[0] == "0 bits"
    assert len(shown) > 1


@pytest.mark.parametrize(
    ("means", "sentence"),
    [
        ([0.6, 0.5], "The only one not beaten in both nDCG@10 and bits a passage: a baseline"),
        ([0.5, 0.6], "Not beaten in both nDCG@10 and bits a passage: a baseline"),
    ],
)
def test_one_that_alone_is_not_beaten_is_said_to_be_so(means: list[float], sentence: str) -> None:
    contents = contents_of([384.0, 12288.0], means)
    (said,) = [s for s in findings(contents, contents.collections[0]) if "beaten" in s]
    assert said.startswith(sentence)
    assert ("one window" in said) == (means[1] > means[0])


def test_of_two_that_are_alike_neither_is_beaten() -> None:
    contents = contents_of([384.0, 384.0, 384.0], [0.6, 0.6, 0.5])
    (on,) = contents.collections
    assert on.front("bits", MAIN) == on.variants[:2]
    (said,) = [s for s in findings(contents, on) if "beaten" in s]
    assert said.startswith("Not beaten in both")


def test_where_one_alone_has_a_cost_nothing_is_claimed() -> None:
    contents = contents_of([384.0, 384.0], [0.6, 0.5])
    (on,) = contents.collections
    without = dataclasses.replace(on.variants[1], cells=[{"bits_a_passage": None}])
    alone = dataclasses.replace(on, variants=[on.variants[0], without])
    assert not any("beaten" in sentence for sentence in findings(contents, alone))
