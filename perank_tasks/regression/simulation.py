"""Simulation: how often the ladder cries wolf, and how small a drop it sees.

In: a seed and how much to simulate. Out: rates, measured by the same `judge_arm` that judges
real nights. A simulated world is a collection with a number of queries, ranked by some arms
and measured four ways; an arm's four tests, all of which can differ, are under Holm's correction.

Where noise comes from, each a named source:

    queries     which queries were drawn: values as PE-Rank's nDCG@10 on pydocs, drawn anew
    ties        near ties flipped by arithmetic, a night at a time: of one query in 50, and arm
    passages    added and removed; they stay: one query in 100 a night, all arms much alike
    judgements  added; they stay: one query in 200 a night, all arms alike

Every change is as likely up as down and no larger than the value has room for on either
side, so that an unchanged night has the mean it had: what is called then is a false alarm.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import bisect
from scipy.stats import norm

from perank_tasks.regression.ladder import EarlierNight, Evidence, Verdict, judge_arm, worst
from perank_tasks.regression.measures import MEASURES, NO_QUALITY
from perank_tasks.regression.thresholds import DEFAULT, Thresholds

TESTS = len(MEASURES) - len(NO_QUALITY)
"""Of an arm: a measure of quality each."""
ARMS = (1, 5, 12)
"""How many arms a night has, in the simulations of unchanged nights."""

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
LASTING_NIGHTS = 60
FORTNIGHT = 14


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
    arms: int = 1
    noise: Noise = field(default_factory=Noise)
    thresholds: Thresholds = DEFAULT

    def __post_init__(self) -> None:
        shape = (self.arms, TESTS, self.queries)
        self.lasting = _draw_values(self.random, shape, self.noise.shared)
        self.accept()

    def night(self, drop: np.ndarray | None = None) -> list[Verdict]:
        """One more night and its verdicts by arm and measure, those of the last arm last.

        Args:
            drop: (measures, queries), what is added to the last arm's values tonight.
        """
        now = self._pass()
        if drop is not None:
            now[-1] = np.clip(now[-1] + drop, 0, 1)
        limit = self.thresholds.band_nights - 1
        verdicts = []
        for after, before, earlier in zip(now, self.baseline, self.earlier, strict=True):
            evidence = [
                Evidence(after[m], before[m], earlier=earlier[m][-limit:]) for m in range(TESTS)
            ]
            for nights, finding in zip(earlier, judge_arm(evidence, self.thresholds), strict=True):
                assert finding.comparison
                nights.append(EarlierNight(finding.comparison.delta, finding.verdict))
                verdicts.append(finding.verdict)
        return verdicts

    def accept(self, drop: np.ndarray | float = 0.0) -> None:
        """Make tonight's level, with the last arm's drop, the baseline."""
        self.baseline = self.lasting.copy()
        self.baseline[-1] = np.clip(self.baseline[-1] + drop, 0, 1)
        self.earlier: list[list[list[EarlierNight]]] = [
            [[] for _ in range(TESTS)] for _ in range(self.arms)
        ]

    def settle(self, nights: int) -> None:
        """Let nights pass that nobody judges: they only make the bands."""
        for _ in range(nights):
            deltas = (self._pass() - self.baseline).mean(axis=2)
            for earlier, of_measures in zip(self.earlier, deltas.tolist(), strict=True):
                for words, delta in zip(earlier, of_measures, strict=True):
                    words.append(EarlierNight(delta, Verdict.DRIFT))

    def _pass(self) -> np.ndarray:
        """The values of one more night: what stays changes for good, ties for this night."""
        noise = self.noise
        for chance, size in (
            (noise.passages, noise.passages_size),
            (noise.judgements, noise.judgements_size),
        ):
            self.lasting = self._touched(self.lasting, chance, size, (1, 1, self.queries))
        return self._touched(
            self.lasting, noise.ties, noise.ties_size, (self.arms, 1, self.queries)
        )

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
    """What a simulation measured. Shares are of nights or trials, from 0 to 1."""

    seed: int
    unchanged_nights: int
    words: dict[int, dict[str, int]]
    """{arms: {word: unchanged nights whose worst word it is}}"""
    trials: int
    """Of each kind of drop; all are of one arm and over 80 queries."""
    first_night: float
    """Drops of .05 called a regression on their first night."""
    five_drops: float
    """Five drops of .01 in a row called a regression by the fifth night."""
    lasting: float
    """Nights of a drop of .05 that lasts 60 nights, called a regression or suspect."""
    lasting_without_gap: float
    """Such drops that, once called, were called on every later night."""
    after_an_outlier: float
    """Drops of .05 called a regression within the fortnight after a first one of one night."""
    after_acceptance: float
    """Nights called in the fortnight after a lasting drop of .05 was accepted."""
    curve: list[dict[str, float]]
    """Drops called a regression on their first night, by drop and number of queries."""

    def alarms(self, arms: int) -> float:
        """Share of unchanged nights with that many arms that are called."""
        words = self.words[arms]
        alarms = sum(words.get(word, 0) for word in (Verdict.SUSPECT, Verdict.REGRESSION))
        return alarms / self.unchanged_nights


def simulate(
    seed: int,
    unchanged_nights: int = 2000,
    trials: int = 400,
    curve_trials: int = 100,
    drops: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10),
    sizes: tuple[int, ...] = (20, 43, 80, 109, 200, 400),
    *,
    say: Callable[[str], object] = lambda doing: None,
) -> Report:
    """Run everything.

    Args:
        unchanged_nights: in worlds of 50 nights and 80 queries, for each number of arms.
        trials: of a drop of .05 and of five drops of .01; a tenth as many last for 60 nights.
        curve_trials: of each point of the power curve; its tests flip 2,000 times.
        say: is told what is being done.
    """
    random = np.random.default_rng(seed)
    words = {}
    for arms in ARMS:
        say(f"{unchanged_nights:,} unchanged nights of {arms} arm{'s' if arms > 1 else ''}")
        words[arms] = _unchanged(random, unchanged_nights, arms)
    few = max(1, trials // 10)
    say(f"{trials} drops of .05 over 80 queries, and {trials} times five of .01 in a row")
    power = [first_night(random, 80, 0.05) for _ in range(trials)]
    five = [drops_in_a_row(random, 80, 0.01, 5) for _ in range(trials)]
    say(f"{few} drops of .05 that last for {LASTING_NIGHTS} nights")
    lasting = [lasting_drop(random, 80, 0.05) for _ in range(few)]
    say(f"{few} fortnights after an outlier, and after an acceptance")
    repeated = [repeated_drop(random, 80, 0.05) for _ in range(few)]
    accepted = [accepted_drop(random, 80, 0.05) for _ in range(few)]
    say(f"the power curve, {len(drops) * len(sizes)} points")
    fewer = replace(DEFAULT, flips=2000)
    curve = []
    for n, drop in product(sizes, drops):
        called = [first_night(random, n, drop, fewer) for _ in range(curve_trials)]
        curve.append({"queries": n, "drop": drop, "power": float(np.mean(called))})
    return Report(
        seed=seed,
        unchanged_nights=unchanged_nights,
        words=words,
        trials=trials,
        first_night=float(np.mean(power)),
        five_drops=float(np.mean(five)),
        lasting=float(np.mean(lasting)),
        lasting_without_gap=float(np.mean([n[np.argmax(n) :].all() for n in lasting])),
        after_an_outlier=float(np.mean(repeated)),
        after_acceptance=float(np.mean(accepted)),
        curve=curve,
    )


def first_night(
    random: np.random.Generator, queries: int, drop: float, thresholds: Thresholds = DEFAULT
) -> bool:
    """Whether a true drop of one arm is called a regression on its first night."""
    world, whole = _settled(random, queries, drop, thresholds)
    return Verdict.REGRESSION in world.night(whole)


def drops_in_a_row(random: np.random.Generator, queries: int, step: float, times: int) -> bool:
    """Whether drops that add up are called a regression by the last of them."""
    world, whole = _settled(random, queries, step * times)
    nights = [world.night(whole * night / times) for night in range(1, times + 1)]
    return Verdict.REGRESSION in nights[-1]


def lasting_drop(random: np.random.Generator, queries: int, drop: float) -> np.ndarray:
    """(nights,) whether each night of a drop that nobody accepts is called."""
    world, whole = _settled(random, queries, drop)
    return np.array([_is_called(world.night(whole)) for _ in range(LASTING_NIGHTS)])


def repeated_drop(random: np.random.Generator, queries: int, drop: float) -> bool:
    """Whether a drop is called a regression that comes within a fortnight after its like."""
    world, whole = _settled(random, queries, drop)
    world.night(whole)
    for _ in range(int(random.integers(1, FORTNIGHT))):
        world.night()
    return Verdict.REGRESSION in world.night(whole)


def accepted_drop(random: np.random.Generator, queries: int, drop: float) -> float:
    """Share of the fortnight after a drop was accepted that is still called."""
    world, whole = _settled(random, queries, drop)
    world.night(whole)
    world.accept(whole)
    return float(np.mean([_is_called(world.night(whole)) for _ in range(FORTNIGHT)]))


def _settled(
    random: np.random.Generator, queries: int, drop: float, thresholds: Thresholds = DEFAULT
) -> tuple[World, np.ndarray]:
    """A world some unchanged nights after the acceptance, and a true drop for it."""
    world = World(random, queries, thresholds=thresholds)
    world.settle(NIGHTS_BEFORE)
    return world, _true_drop(world, drop)


def _is_called(words: list[Verdict]) -> bool:
    return Verdict.SUSPECT in words or Verdict.REGRESSION in words


def plot_curve(report: Report, path: Any) -> None:
    """Draw power against the drop, a line for each number of queries, as an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for n in sorted({point["queries"] for point in report.curve}):
        points = [(p["drop"], p["power"]) for p in report.curve if p["queries"] == n]
        drops, powers = zip(*points, strict=True)
        axes.plot(drops, powers, marker="o", markersize=4, label=f"{n:.0f} queries")
    axes.axhline(0.8, color="#888888", linewidth=0.8, linestyle="--")
    axes.set_xlabel("true drop of the mean")
    axes.set_ylabel("called a regression on its first night")
    axes.set_title(f"Power of one night, {TESTS} tests an arm under Holm's correction")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _unchanged(random: np.random.Generator, nights: int, arms: int) -> dict[str, int]:
    words: Counter[str] = Counter()
    for start in range(0, nights, NIGHTS_A_WORLD):
        world = World(random, 80, arms)
        nights_here = range(min(NIGHTS_A_WORLD, nights - start))
        words.update(str(worst(world.night())) for _ in nights_here)
    return dict(words)


def _true_drop(world: World, drop: float) -> np.ndarray:
    """(measures, queries) of differences whose mean over all queries there could be is `drop`.

    The queries drawn may have more or less: that is a source of noise. Values end at 0 and 1,
    so the shift that has this mean is found on a large draw.
    """
    many = _draw_values(world.random, (1, 1, 4000), 1.0)[0, 0]
    noise = world.random.normal(0, DROP_SPREAD, many.shape)
    shift = bisect(lambda by: np.mean(np.clip(many + noise + by, 0, 1) - many) + drop, -1, 1)
    shared = world.noise.shared
    common = world.random.normal(0, 1, (1, world.queries))
    own = world.random.normal(0, 1, (TESTS, world.queries))
    spread = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return shift + DROP_SPREAD * spread


def _draw_values(
    random: np.random.Generator, shape: tuple[int, int, int], shared: float
) -> np.ndarray:
    """Values distributed as on pydocs; a query that is hard for one arm is hard for all."""
    common = random.normal(0, 1, (1, 1, shape[2]))
    own = random.normal(0, 1, shape)
    ranks = norm.cdf(np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    return np.interp(ranks, np.linspace(0, 1, len(VALUE_QUANTILES)), VALUE_QUANTILES)
