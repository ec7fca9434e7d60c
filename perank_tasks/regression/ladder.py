"""The ladder of verdicts, for every measure of one arm and night.

In: per-query values of the night and of its baseline, and the nights between. Out: one
`Finding` each. From best to worst:

    first         nothing earlier to compare with
    identical     every query ranks as in the baseline, no measure's value differs
    drift         rankings or values changed; the mean is within the noise band
    unusual       above the noise band, and not shown to be more than chance
    acknowledged  it changed, and this very night has been accepted
    improvement   as regression, upwards
    suspect       below the noise band, and not (yet) shown to be more than chance; or a symptom
                  that its ranker did nothing (`symptoms.py`)
    incomplete    too many queries unranked or not measured: nothing can be said
    regression    suspect, the paired test against the baseline is significant after Holm's
                  correction over the arm's measures, and the change is relevant

The family of tests is one arm's measures, so that the word of an arm does not depend on which
others run beside it. What that costs in false alarms, `simulation.py` measures.

A regression stands until it is repaired or accepted: a later night that is still outside the
band, or still worse by what is relevant, is called without a new test, since it is no new
claim. Small drops that never leave the band are let through to the test by a significant
trend since the baseline; a trend alone is no suspicion, for a collection that changes a
little every night has one.

Where the judgements are not the baseline's, like is compared with like: its values are what its
rankings get by the night's own judgements. What these alone change in its mean is no claim on any
ranking: beyond the band's least width it is suspect, or unusual upwards, until it is accepted.

The band is made by usual nights alone: one that was called does not widen the band by which
its like is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from perank_tasks.regression.paired import Comparison, Pair, compare_family
from perank_tasks.regression.statistics import Band, noise_band, trend_p
from perank_tasks.regression.thresholds import DEFAULT, Thresholds


class Verdict(StrEnum):
    """The words, from best to worst; the type `verdict` of the tables has the same order."""

    FIRST = "first"
    IDENTICAL = "identical"
    DRIFT = "drift"
    UNUSUAL = "unusual"
    ACKNOWLEDGED = "acknowledged"
    IMPROVEMENT = "improvement"
    SUSPECT = "suspect"
    INCOMPLETE = "incomplete"
    REGRESSION = "regression"


MEANINGS = {
    Verdict.FIRST: "nothing earlier to compare with",
    Verdict.IDENTICAL: "every query ranks as in the baseline, no measure's value differs",
    Verdict.DRIFT: "rankings or values changed, the mean is within the noise band",
    Verdict.UNUSUAL: "above the noise band of the arm's own history, but it may be chance",
    Verdict.ACKNOWLEDGED: "it changed, and this very night was accepted",
    Verdict.IMPROVEMENT: "as regression, upwards",
    Verdict.SUSPECT: "below the noise band of the arm's own history, but it may be chance; or a "
    "symptom that its ranker did nothing",
    Verdict.INCOMPLETE: "too many queries unranked, or not measured: nothing can be said",
    Verdict.REGRESSION: "suspect, significant against the baseline after Holm's correction over "
    f"the arm's measures (p < {DEFAULT.alpha}), and {DEFAULT.relevance} or more",
}
"""What each word means, for pages and help."""


def worst(verdicts: Sequence[str]) -> Verdict:
    """One word for several; `incomplete` for none at all."""
    ladder = list(Verdict)
    return max(map(Verdict, verdicts), key=ladder.index, default=Verdict.INCOMPLETE)


CALLED = (
    Verdict.UNUSUAL,
    Verdict.IMPROVEMENT,
    Verdict.SUSPECT,
    Verdict.INCOMPLETE,
    Verdict.REGRESSION,
)
"""Words of nights that do not make the band."""


@dataclass(frozen=True)
class EarlierNight:
    """A night between the baseline and the one that is judged."""

    change: float
    """Of the mean, against the same baseline."""
    verdict: str = ""
    """Against the same baseline; empty: it was judged by another one."""
    is_alike: bool = True
    """Whether it ran with the baseline's settings and judgements, on passages that were not
    themselves called."""

    @property
    def is_usual(self) -> bool:
        """Whether it may widen the band."""
        return self.is_alike and self.verdict not in CALLED


@dataclass(frozen=True)
class Evidence:
    """What there is to judge one arm and measure of a night by."""

    now: np.ndarray
    """(queries,) values of the night; NaN where a query has none."""
    baseline: np.ndarray | None
    """(queries,) values of the baseline by the night's judgements, the same queries in the same
    order."""
    same_rankings: bool = False
    """Whether every query ranks exactly as in the baseline."""
    missing: str | None = None
    """What the arm lacks of this night, so that nothing can be said: `unranked` (too many
    queries) or `unmeasured` (not one judged query)."""
    judgements_delta: float | None = None
    """What the night's judgements alone change in the baseline's mean; None: they are its own."""
    accepted: bool = False
    """Whether this very night has been accepted."""
    earlier: Sequence[EarlierNight] = ()
    """The nights since the baseline, oldest first, the baseline itself left out."""
    is_quality: bool = True
    """Whether the measure says how good a ranking is. Others, such as the share of judged
    passages, are compared and shown; nothing is claimed of them."""


@dataclass(frozen=True)
class Finding:
    """The verdict on one arm and measure, and the numbers that led to it."""

    verdict: Verdict
    reason: str | None = None
    """What made it suspect or more: band, trend, standing, symptom or judgements; incomplete:
    unranked, unmeasured or coverage."""
    comparison: Comparison | None = None
    """With the baseline; None: there is none, or no query in common."""
    band: Band | None = None
    """Of the comparison's delta."""
    nights: int = 0
    """Nights whose values made the band, the baseline's own included."""
    trend_p: float | None = None
    judgements_delta: float | None = None
    """As of the evidence."""

    @property
    def row(self) -> dict[str, Any]:
        """What it is but for the comparison, as columns of the table `verdicts`."""
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "band_low": self.band and self.band.low,
            "band_high": self.band and self.band.high,
            "nights": self.nights,
            "trend_p": self.trend_p,
            "judgements_delta": self.judgements_delta,
        }


def judge_arm(measures: Sequence[Evidence], thresholds: Thresholds = DEFAULT) -> list[Finding]:
    """Judge all measures of one arm and night together, in the order given: they are one family
    of tests, of which those that lack data are left out."""
    pairs = [
        Pair(e.now, e.baseline, is_tested=e.is_quality and not e.missing)
        for e in measures
        if e.baseline is not None
    ]
    comparisons = iter(compare_family(pairs, thresholds))
    return [
        _judge(e, None if e.baseline is None else next(comparisons), thresholds) for e in measures
    ]


def _judge(e: Evidence, comparison: Comparison | None, thresholds: Thresholds) -> Finding:
    if e.missing:
        return Finding(Verdict.INCOMPLETE, e.missing, comparison)
    if e.baseline is None:
        return Finding(Verdict.FIRST)
    baseline_queries = np.sum(~np.isnan(e.baseline))
    if comparison is None or comparison.queries < thresholds.coverage * baseline_queries:
        return Finding(Verdict.INCOMPLETE, "coverage", comparison)
    usual = [night.change for night in e.earlier if night.is_usual]
    band = noise_band(np.array([0.0, *usual]), thresholds.band_floor, thresholds)
    trend = 1.0
    if abs(comparison.delta) >= thresholds.relevance:
        changes = [night.change for night in e.earlier]
        trend = trend_p(np.array([0.0, *changes, comparison.delta]))
    verdict, reason = _climb(e, comparison, band, trend, thresholds)
    if e.judgements_delta:
        by_them = _word_of_judgements(e, thresholds)
        if worst([verdict, by_them]) != verdict:
            verdict, reason = by_them, "judgements"
    return Finding(
        Verdict.ACKNOWLEDGED if e.accepted and verdict != Verdict.IDENTICAL else verdict,
        reason,
        comparison,
        band=band if e.is_quality else None,
        nights=1 + len(usual),
        trend_p=trend if e.is_quality else None,
        judgements_delta=e.judgements_delta,
    )


def _word_of_judgements(e: Evidence, thresholds: Thresholds) -> Verdict:
    shift = e.judgements_delta or 0.0
    if not e.is_quality or abs(shift) <= thresholds.band_floor:
        return Verdict.DRIFT
    return Verdict.SUSPECT if shift < 0 else Verdict.UNUSUAL


def _climb(
    e: Evidence, comparison: Comparison, band: Band, trend: float, thresholds: Thresholds
) -> tuple[Verdict, str | None]:
    """The rung and what led to it, for a complete night with a baseline."""
    if e.same_rankings and not comparison.better and not comparison.worse:
        return Verdict.IDENTICAL, None
    if not e.is_quality:
        return Verdict.DRIFT, None
    delta = comparison.delta
    p_holm = 1.0 if comparison.p_holm is None else comparison.p_holm
    claim, doubt = Verdict.REGRESSION, Verdict.SUSPECT
    if delta > 0:
        claim, doubt = Verdict.IMPROVEMENT, Verdict.UNUSUAL
    is_outside = not band.holds(delta)
    is_relevant = abs(delta) >= thresholds.relevance - 1e-12
    if (is_outside or is_relevant) and e.earlier and e.earlier[-1].verdict == claim:
        return claim, "standing"
    if is_outside:
        return (claim if is_relevant and p_holm < thresholds.alpha else doubt), "band"
    if is_relevant and max(trend, p_holm) < thresholds.trend_alpha:
        return claim, "trend"
    return Verdict.DRIFT, None
