"""An arm's colour and marker: the same everywhere, and told apart by everybody."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from perank_tasks.report import page
from perank_tasks.report.looks import BUILT_IN, COLOURS, looks_of

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHTS = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2279], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
OKLAB = (
    [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]],
    [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]],
)
LEAST_DISTANCE = 0.08
"""In OKLab, where black and white are 1 apart and just noticeable differences about .02."""


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def palettes() -> list[tuple[str, list[str]]]:
    """The paper's colour and the arms' colours of the light, the dark and the printed page."""
    css = (Path(page.__file__).parent / "templates" / "style.css").read_text()
    papers = re.findall(r"--paper: (#\w+)", css)
    colours = [re.findall(rf"--{name}: (#\w+)", css) for name in COLOURS]
    return [(paper, list(of)) for paper, of in zip(papers, zip(*colours, strict=True), strict=True)]


@pytest.mark.parametrize(("paper", "colours"), palettes())
def test_arms_colours_are_told_apart_by_every_sight(paper: str, colours: list[str]) -> None:
    inner, outer = (np.array(matrix) for matrix in OKLAB)
    for sight, matrix in SIGHTS.items():
        seen = [outer @ np.cbrt(inner @ (np.array(matrix) @ linear(c)).clip(0, 1)) for c in colours]
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert nearest >= LEAST_DISTANCE, sight
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for colour in colours:
        dark, light = sorted(luminance @ linear(c) for c in (paper, colour))
        assert (light + 0.05) / (dark + 0.05) >= 3, colour  # as WCAG asks of graphics


def test_an_arm_looks_the_same_whatever_stands_beside_it() -> None:
    all_of_them = looks_of([*BUILT_IN, "service", "cross-encoder"])
    assert len({(look.colour, look.marker) for look in all_of_them.values()}) == 7
    for name in all_of_them:
        assert looks_of([name])[name] == all_of_them[name]
        assert looks_of(["zz", name, "bm25"])[name] == all_of_them[name]


def test_arms_of_one_page_never_look_alike_while_there_are_looks() -> None:
    names = [f"window {i}" for i in range(30)]
    looks = looks_of(names)
    assert len({(look.colour, look.marker) for look in looks.values()}) == 30
    assert looks == looks_of(reversed(names))
    assert set(looks_of(f"{i}" for i in range(60))) == {f"{i}" for i in range(60)}
