"""Thresholds: every number that decides a verdict, each with its reason.

`perank simulate` shows what they amount to: how often an unchanged night is called a
regression, and how large a drop has to be to be called one.
"""

from dataclasses import dataclass
from typing import Literal

FailOn = Literal["suspect", "regression", "drift"]
"""How bad a verdict has to be for a gate to close."""


@dataclass(frozen=True)
class Thresholds:
    """The settings of the ladder of verdicts."""

    alpha: float = 0.05
    """Chance of calling any regression or improvement of an arm where nothing changed, after
    Holm's correction over the arm's measures. The convention of the field; the band
    and the relevance below make the true rate far smaller."""

    relevance: float = 0.02
    """Least change of a mean that is called a regression or an improvement, however
    significant. Smaller ones do not carry over: a setting that gained .005 nDCG@10 on one
    collection lost .014 on another. It also keeps a collection that changes every night from
    being called one for it: with .01, 1% to 2% of simulated unchanged nights were."""

    band_iqrs: float = 3.0
    """The noise band is an arm's own history, from Q1 - 3 IQR to Q3 + 3 IQR: Tukey's far
    outliers, and what nightly benchmarks of compilers and search engines use. Of normal noise
    one night in 400,000 is outside."""

    band_floor: float = 0.01
    """Least half-width of the band. Nights of one machine repeat to the bit and have no
    spread; without a floor any flipped tie would be suspect. Half of what is relevant, so that
    a drop is suspect before it is a regression."""

    band_min_nights: int = 5
    """Nights before quartiles are believed; with fewer the floor alone makes the band."""

    band_nights: int = 60
    """How many of the newest nights make the band: two months follow a slow change of the
    hardware or the collection and bound what has to be read."""

    trend_alpha: float = 0.01
    """What both p of Mann-Kendall's test, one-sided, over the nights since the acceptance and p
    of the paired test, corrected, must be below where a change inside the band is called for
    its trend. Strict, because it is asked again every night; five falling nights in a row
    reach .0014."""

    flips: int = 10_000
    """Sign flips of the randomisation test. The standard error of a p of .0125, the first step of
    Holm's correction over an arm's four tests, is .0011."""

    exact_up_to: int = 13
    """Differing queries up to which all 2^n sign flips are enumerated: 2^13 are fewer than
    `flips`."""

    coverage: float = 0.95
    """Least share of the baseline's judged queries that a night must have, too; with fewer it
    lacks data. A mean over other queries is another measure."""

    confidence: float = 0.95
    """Of the confidence intervals, the convention."""

    speed_floor: float = 0.5
    """Least half-width of the band of queries/s, as a share. Repeated nights on a shared
    machine differ by a third without a cause; half as fast again is worth a look."""

    tokens_floor: float = 0.25
    """The same for tokens a query, which hardly vary by themselves."""

    memory_floor: float = 1.0
    """The same for peak memory: the kernel only knows a process's peak since its start, so that
    it depends on what the process did before."""

    min_seconds: float = 5.0
    """A stage shorter than this is not judged by its speed: it measures start-up."""

    fall: float = 0.5
    """Least nDCG@10 of its query that a relevant passage has to take along when it leaves the first
    ten, for the query to be named whatever the mean does: half of what a perfect ranking has."""


DEFAULT = Thresholds()
