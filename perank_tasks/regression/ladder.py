"""The ladder of verdicts, for every arm and measure of one night.

In: per-query values of the night and of its baseline, and the nights between. Out: one
`Judgement` each. From best to worst:

    first         nothing earlier to compare with
    identical     every query ranks and scores as in the baseline
    drift         rankings or values changed; the mean is within the noise band
    acknowledged  it changed, and this very night has been accepted
    improvement   as regression, upwards
    suspect       outside the noise band, and not (yet) shown to be more than chance
    incomplete    too many queries unranked or without judgements: nothing can be said
    regression    suspect, the paired test against the baseline is significant after Holm's
                  correction over everything tested in the night, and the change is relevant

A regression stands until it is repaired or accepted: a later night that is still worse by
what is relevant needs no new alarm from the band, and p < alpha without correction, since
it is no new claim. Small drops that never leave the band are let through to the test by a
significant trend since the baseline; a trend alone is no suspicion, for a collection that
changes a little every night has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from perank_tasks.regression.statistics import (
    Band,
    holm,
    mean_interval,
    noise_band,
    randomisation_test,
    trend_p,
)
from perank_tasks.regression.thresholds import DEFAULT, Thresholds


class Verdict(StrEnum):
    """The words, from best to worst; the type `verdict` of the tables has the same order."""

    FIRST = "first"
    IDENTICAL = "identical"
    DRIFT = "drift"
    ACKNOWLEDGED = "acknowledged"
    IMPROVEMENT = "improvement"
    SUSPECT = "suspect"
    INCOMPLETE = "incomplete"
    REGRESSION = "regression"


def worst(verdicts: Sequence[str]) -> Verdict:
    """One word for several; `incomplete` for none at all."""
    ladder = list(Verdict)
    return max(map(Verdict, verdicts), key=ladder.index, default=Verdict.INCOMPLETE)


@dataclass(frozen=True)
class Evidence:
    """What there is to judge one arm and measure of a night by."""

    now: np.ndarray
    """(queries,) values of the night; NaN where a query has none."""
    baseline: np.ndarray | None
    """(queries,) values of the baseline, the same queries in the same order."""
    same_rankings: bool = False
    """Whether every query ranks exactly as in the baseline."""
    complete: bool = True
    """Whether the night ranked what it was to rank."""
    accepted: bool = False
    """Whether this very night has been accepted."""
    earlier: Sequence[tuple[float, str]] = ()
    """(change against this baseline, verdict) of the nights since, oldest first, the
    baseline itself left out."""
    is_quality: bool = True
    """Whether the measure says how good a ranking is. Of others, such as the share of judged
    passages, no improvement and no regression is claimed, and they are not tested."""
    has_band: bool = True
    """Whether leaving the noise band is suspect."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one arm and measure, and the numbers that led to it."""

    verdict: Verdict
    reason: str | None = None
    """What made it suspect or more: band, trend or standing; what made it incomplete:
    unranked or coverage."""
    value: float | None = None
    baseline_value: float | None = None
    delta: float | None = None
    """Mean difference over the queries that both have, as is the interval."""
    interval: Band | None = None
    band: Band | None = None
    """Of delta."""
    nights: int = 0
    """Nights whose values made the band, the baseline's own included."""
    trend_p: float | None = None
    p: float | None = None
    p_holm: float | None = None
    tests: int = 0
    """How many tests Holm's correction was over."""
    queries: int = 0
    better: int = 0
    worse: int = 0


@dataclass
class _Case:
    evidence: Evidence
    differences: np.ndarray = field(default_factory=lambda: np.empty(0))
    p: float = 1.0
    p_holm: float = 1.0


def judge_night(night: Sequence[Evidence], thresholds: Thresholds = DEFAULT) -> list[Judgement]:
    """Judge every arm and measure of one night together, in the order given.

    A pair without any difference cannot be rejected by any flip of signs and so does not
    count among the tests (Tarone 1990): a night in which one arm changed is not held to the
    standard of a night in which all did.
    """
    cases = [_Case(evidence) for evidence in night]
    tested = []
    for case in cases:
        e = case.evidence
        if e.baseline is not None:
            case.differences = e.now - e.baseline
            if e.is_quality and e.complete and np.nan_to_num(case.differences).any():
                tested.append(case)
    for case, p, p_holm in zip(tested, *_tests(tested, thresholds), strict=True):
        case.p, case.p_holm = float(p), float(p_holm)
    return [_judge(case, len(tested), thresholds) for case in cases]


def _tests(cases: list[_Case], thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    if not cases:
        return np.empty(0), np.empty(0)
    p = randomisation_test(np.stack([c.differences for c in cases], axis=1), thresholds)
    return p, holm(p)


def _judge(case: _Case, tests: int, thresholds: Thresholds) -> Judgement:
    e, d = case.evidence, case.differences
    value = _mean(e.now)
    if not e.complete:
        return Judgement(Verdict.INCOMPLETE, "unranked", value=value)
    if e.baseline is None:
        return Judgement(Verdict.FIRST, value=value, queries=int(np.sum(~np.isnan(e.now))))
    baseline_value = _mean(e.baseline)
    common = int(np.sum(~np.isnan(d)))
    if common < thresholds.coverage * np.sum(~np.isnan(e.baseline)) or not common:
        return Judgement(
            Verdict.INCOMPLETE, "coverage", value, baseline_value=baseline_value, queries=common
        )

    delta = float(np.nanmean(d))
    usual = [change for change, word in e.earlier if word not in _CALLED]
    band = noise_band(np.array([0.0, *usual]), thresholds.band_floor, thresholds)
    trend = 1.0
    if abs(delta) >= thresholds.relevance and e.has_band:
        trend = trend_p(np.array([0.0, *(change for change, _ in e.earlier), delta]))
    verdict, reason = _climb(case, delta, band, trend, thresholds)
    is_tested = e.is_quality and bool(np.nan_to_num(d).any())
    return Judgement(
        verdict,
        reason,
        value=value,
        baseline_value=baseline_value,
        delta=delta,
        interval=mean_interval(d, thresholds.confidence),
        band=band if e.has_band else None,
        nights=1 + len(usual),
        trend_p=trend if e.has_band else None,
        p=case.p if e.is_quality else None,
        p_holm=case.p_holm if e.is_quality else None,
        tests=tests if is_tested else 0,
        queries=common,
        better=int(np.sum(d > 0)),
        worse=int(np.sum(d < 0)),
    )


_CALLED = (Verdict.REGRESSION, Verdict.IMPROVEMENT)


def _climb(
    case: _Case, delta: float, band: Band, trend: float, thresholds: Thresholds
) -> tuple[Verdict, str | None]:
    """The rung and what led to it, for a complete night with a baseline."""
    e = case.evidence
    if e.same_rankings and not np.nan_to_num(case.differences).any():
        return Verdict.IDENTICAL, None
    verdict, reason = Verdict.DRIFT, None
    if e.has_band:
        claim = Verdict.REGRESSION if delta < 0 else Verdict.IMPROVEMENT
        relevant = e.is_quality and abs(delta) >= thresholds.relevance - 1e-12
        if relevant and e.earlier and e.earlier[-1][1] == claim and case.p < thresholds.alpha:
            verdict, reason = claim, "standing"
        elif not band.holds(delta):
            shown = relevant and case.p_holm < thresholds.alpha
            verdict, reason = claim if shown else Verdict.SUSPECT, "band"
        elif relevant and max(trend, case.p_holm) < thresholds.trend_alpha:
            verdict, reason = claim, "trend"
    return (Verdict.ACKNOWLEDGED if e.accepted else verdict), reason


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.any(~np.isnan(values)) else None
