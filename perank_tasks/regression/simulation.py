"""Simulation: how often the ladder cries wolf, and how small a drop it sees.

In: a seed and how much to simulate. Out: rates, measured by the same `judge_night` that judges
real nights. A simulated world is a collection with a number of queries, ranked by four arms
and measured four ways: 16 tests a night, all of which can differ, are under Holm's correction.

Where noise comes from, each a named source:

    queries     which queries were drawn: values as PE-Rank's nDCG@10 on pydocs, drawn anew
    ties        near ties flipped by arithmetic, a night at a time: of one query in 50, and arm
    passages    added and removed; they stay: one query in 100 a night, all arms much alike
    judgements  added; they stay: one query in 200 a night, all arms alike

Every change is as likely up as down and no larger than the value has room for on either
side, so that an unchanged night has the mean it had: what is called then is a false alarm.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from perank_tasks.regression.ladder import Evidence, Verdict, judge_night, worst
from perank_tasks.regression.thresholds import DEFAULT, Thresholds

ARMS = 4
MEASURES = 4
TESTS = ARMS * MEASURES

# 21 quantiles, from 0 to 1 by .05, of PE-Rank's nDCG@10 over the 109 queries of pydocs.
VALUE_QUANTILES = (
    *(0.0, 0.149, 0.304, 0.387, 0.467, 0.601, 0.625, 0.671, 0.715, 0.754, 0.805),
    *(0.825, 0.845, 0.868, 0.883, 0.906, 0.923, 0.959, 1.0, 1.0, 1.0),
)

DROP_SPREAD = 0.10
"""Standard deviation over queries of a true drop. With it a paired test of 43 queries sees a
drop of .043 four times in five, as on real collections."""

NIGHTS_A_WORLD = 50
NIGHTS_BEFORE = 10
"""Unchanged nights between the acceptance and a drop."""


@dataclass(frozen=True)
class Noise:
    """Chance that a query is touched in a night, and the size of the change, by source."""

    ties: float = 0.02
    ties_size: float = 0.03
    passages: float = 0.01
    passages_size: float = 0.08
    judgements: float = 0.005
    judgements_size: float = 0.08
    shared: float = 0.8
    """Correlation of a change between the arms and measures that it reaches."""


@dataclass
class World:
    """One collection over its nights: values of shape (arms, measures, queries)."""

    random: np.random.Generator
    queries: int
    noise: Noise = field(default_factory=Noise)
    thresholds: Thresholds = DEFAULT

    def __post_init__(self) -> None:
        shape = (ARMS, MEASURES, self.queries)
        self.baseline = _draw_values(self.random, shape, self.noise.shared)
        self.lasting = self.baseline.copy()
        self.earlier: list[list[tuple[float, str]]] = [[] for _ in range(TESTS)]

    def night(self, drop: np.ndarray | None = None) -> list[Verdict]:
        """One more night and its 16 verdicts, those of the last arm last.

        Args:
            drop: (measures, queries), what is added to the last arm's values tonight.
        """
        now = self._pass()
        if drop is not None:
            now[-1] = np.clip(now[-1] + drop, 0, 1)
        before, after = (v.reshape(TESTS, self.queries) for v in (self.baseline, now))
        limit = self.thresholds.band_nights - 1
        judgements = judge_night(
            [Evidence(after[i], before[i], earlier=self.earlier[i][-limit:]) for i in range(TESTS)],
            self.thresholds,
        )
        for words, judgement in zip(self.earlier, judgements, strict=True):
            assert judgement.comparison
            words.append((judgement.comparison.delta, judgement.verdict))
        return [judgement.verdict for judgement in judgements]

    def settle(self, nights: int) -> None:
        """Let nights pass that nobody judges: they only make the bands."""
        for _ in range(nights):
            deltas = (self._pass() - self.baseline).mean(axis=2).ravel()
            for words, delta in zip(self.earlier, deltas.tolist(), strict=True):
                words.append((delta, Verdict.DRIFT))

    def _pass(self) -> np.ndarray:
        """The values of one more night: what stays changes for good, ties for this night."""
        noise = self.noise
        for chance, size in (
            (noise.passages, noise.passages_size),
            (noise.judgements, noise.judgements_size),
        ):
            self.lasting = self._touched(self.lasting, chance, size, (1, 1, self.queries))
        return self._touched(self.lasting, noise.ties, noise.ties_size, (ARMS, 1, self.queries))

    def _touched(
        self, values: np.ndarray, chance: float, size: float, where: tuple[int, ...]
    ) -> np.ndarray:
        """Values of which some queries changed, up or down within the room they have."""
        hit = self.random.random(where) < chance
        common = self.random.normal(0, 1, where)
        own = self.random.normal(0, 1, values.shape)
        shared = self.noise.shared
        change = size * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
        room = np.minimum(values, 1 - values)
        return values + np.clip(change, -room, room) * hit


@dataclass(frozen=True)
class Report:
    """What a simulation found."""

    seed: int
    tests: int
    unchanged_nights: int
    false_regressions: int
    """Unchanged nights with a regression in any arm and measure."""
    words: dict[str, int]
    """Unchanged nights by their word."""
    first_night_power: float
    """Share of drops of .05 over 80 queries called on their first night."""
    five_drops_called: float
    """Share of five drops of .01 in a row, over 80 queries, called by the fifth night."""
    trials: int
    curve: list[dict[str, float]]
    """Power on the first night by drop and number of queries."""
    false_regression_rate: float


def simulate(
    seed: int,
    unchanged_nights: int = 2000,
    trials: int = 400,
    curve_trials: int = 100,
    drops: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10),
    sizes: tuple[int, ...] = (20, 43, 80, 109, 200, 400),
) -> Iterator[tuple[str, Report | None]]:
    """Run everything; yields (what is being done, None), and last the report.

    Args:
        unchanged_nights: in worlds of 50 nights and 80 queries.
        trials: of a drop of .05 and of five drops of .01.
        curve_trials: of each point of the power curve; its tests flip 2,000 times.
    """
    random = np.random.default_rng(seed)

    def rate(times: int, queries: int, drop: float, **how: Any) -> float:
        return float(np.mean([is_called(random, queries, drop, **how) for _ in range(times)]))

    yield f"{unchanged_nights:,} unchanged nights", None
    words = _unchanged(random, unchanged_nights)
    yield f"{trials} drops of .05 over 80 queries", None
    power = rate(trials, 80, 0.05)
    yield f"{trials} times five drops of .01 in a row", None
    five = rate(trials, 80, 0.05, nights=5)
    yield f"the power curve, {len(drops) * len(sizes)} points", None
    curve = [
        {
            "queries": n,
            "drop": drop,
            "power": rate(curve_trials, n, drop, thresholds=replace(DEFAULT, flips=2000)),
        }
        for n in sizes
        for drop in drops
    ]
    report = Report(
        seed=seed,
        tests=TESTS,
        unchanged_nights=unchanged_nights,
        false_regressions=words[Verdict.REGRESSION],
        words={str(word): count for word, count in words.items()},
        first_night_power=power,
        five_drops_called=five,
        trials=trials,
        curve=curve,
        false_regression_rate=words[Verdict.REGRESSION] / unchanged_nights,
    )
    yield "done", report


def is_called(
    random: np.random.Generator,
    queries: int,
    drop: float,
    nights: int = 1,
    thresholds: Thresholds = DEFAULT,
) -> bool:
    """Whether a true drop of one arm, reached in so many equal steps, is called by the last.

    It comes some unchanged nights after the acceptance.
    """
    world = World(random, queries, thresholds=thresholds)
    world.settle(NIGHTS_BEFORE)
    whole = _true_drop(world, drop)
    for night in range(1, nights + 1):
        verdicts = world.night(whole * night / nights)[-MEASURES:]
    return Verdict.REGRESSION in verdicts


def plot_curve(report: Report, path: Any) -> None:
    """Draw power against the drop, a line for each number of queries, as an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for n in sorted({point["queries"] for point in report.curve}):
        points = [point for point in report.curve if point["queries"] == n]
        axes.plot(
            [point["drop"] for point in points],
            [point["power"] for point in points],
            marker="o",
            markersize=4,
            label=f"{n:.0f} queries",
        )
    axes.axhline(0.8, color="#888888", linewidth=0.8, linestyle="--")
    axes.set_xlabel("true drop of the mean")
    axes.set_ylabel("called a regression on its first night")
    axes.set_title(f"Power of one night, {report.tests} tests under Holm's correction")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _unchanged(random: np.random.Generator, nights: int) -> Counter[Verdict]:
    words: Counter[Verdict] = Counter()
    for start in range(0, nights, NIGHTS_A_WORLD):
        world = World(random, 80)
        words.update(worst(world.night()) for _ in range(min(NIGHTS_A_WORLD, nights - start)))
    return words


def _true_drop(world: World, drop: float) -> np.ndarray:
    """(measures, queries) of differences whose mean over all queries there could be is `drop`.

    The queries drawn may have more or less: that is a source of noise. Values end at 0 and 1,
    so the shift that has this mean is found on a large draw.
    """
    many = _draw_values(world.random, (1, 1, 4000), 1.0)[0, 0]
    noise = world.random.normal(0, DROP_SPREAD, many.shape)
    low, high = -1.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        found = np.mean(np.clip(many + noise + middle, 0, 1) - many)
        low, high = (middle, high) if found < -drop else (low, middle)
    shared = world.noise.shared
    common = world.random.normal(0, 1, (1, world.queries))
    own = world.random.normal(0, 1, (MEASURES, world.queries))
    spread = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return low + DROP_SPREAD * spread


def _draw_values(
    random: np.random.Generator, shape: tuple[int, int, int], shared: float
) -> np.ndarray:
    """Values distributed as on pydocs; a query that is hard for one arm is hard for all."""
    from scipy.stats import norm

    common = random.normal(0, 1, (1, 1, shape[2]))
    own = random.normal(0, 1, shape)
    ranks = norm.cdf(np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    return np.interp(ranks, np.linspace(0, 1, len(VALUE_QUANTILES)), VALUE_QUANTILES)
