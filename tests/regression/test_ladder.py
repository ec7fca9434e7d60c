"""Every rung of the ladder, and what leads from one to another."""

from dataclasses import replace

import numpy as np
import pytest

from perank_tasks.regression.cost import MEMORY, SPEED, TOKENS, judge_cost
from perank_tasks.regression.ladder import Evidence, Judgement, Verdict, judge_night, worst
from perank_tasks.regression.statistics import Band

RANDOM = np.random.default_rng(11)
BASE = RANDOM.uniform(0.3, 0.9, 80)
NOISE = RANDOM.normal(0, 0.1, 80)
NOISE -= NOISE.mean()


def shifted(delta: float) -> Evidence:
    """80 queries whose mean differs by `delta`, each by .1 more or less."""
    return Evidence(now=BASE + NOISE + delta, baseline=BASE)


def judge(evidence: Evidence) -> Judgement:
    (judgement,) = judge_night([evidence])
    return judgement


def test_nothing_earlier_is_first_and_the_same_is_identical() -> None:
    assert judge(Evidence(BASE, None)).verdict == "first"
    same = judge(Evidence(BASE, BASE, same_rankings=True))
    assert same.verdict == "identical"
    assert (same.comparison.delta, same.comparison.tests) == (0, 0)


def test_other_rankings_with_the_same_values_have_drifted() -> None:
    assert judge(Evidence(BASE, BASE)).verdict == "drift"


def test_same_rankings_with_other_values_are_not_identical() -> None:
    """As where a judgement changed."""
    now = BASE.copy()
    now[0] += 0.05
    assert judge(Evidence(now, BASE, same_rankings=True)).verdict == "drift"


def test_a_large_drop_is_a_regression_on_its_first_night() -> None:
    found = judge(shifted(-0.05))
    assert (found.verdict, found.reason) == ("regression", "band")
    assert found.comparison.delta == pytest.approx(-0.05)
    assert found.comparison.ci_low < -0.05 < found.comparison.ci_high
    assert found.comparison.p_holm == found.comparison.p < 0.001
    assert judge(shifted(0.05)).verdict == "improvement"


def test_a_drop_that_chance_explains_is_suspect() -> None:
    found = judge(shifted(-0.015))
    assert (found.verdict, found.reason) == ("suspect", "band")
    assert found.comparison.p > 0.05


def test_a_significant_drop_too_small_to_matter_is_drift() -> None:
    found = judge(Evidence(BASE - 0.005, BASE))
    assert found.comparison.p < 0.001
    assert found.verdict == "drift"


def test_what_is_usual_for_this_arm_is_drift() -> None:
    wide = tuple((d, "drift") for d in (-0.03, 0.02, 0.03, -0.02, 0.01, -0.01))
    found = judge(replace(shifted(-0.05), earlier=wide))
    assert found.verdict == "drift"
    assert found.nights == 7


def test_regressions_do_not_teach_the_band() -> None:
    red = tuple((-0.05, "regression") for _ in range(20))
    assert judge(replace(shifted(-0.05), earlier=red)).verdict == "regression"


def test_a_regression_stands_without_correction_until_repaired() -> None:
    earlier = ((-0.05, "regression"),)
    weaker = replace(shifted(-0.028), earlier=earlier)
    # Beside 15 other tests, this one alone would not be called.
    others = [shifted(0.0) for _ in range(15)]
    found = judge_night([weaker, *others])[0]
    assert found.comparison.p < 0.05 < found.comparison.p_holm
    assert (found.verdict, found.reason) == ("regression", "standing")
    assert judge_night([shifted(-0.028), *others])[0].verdict == "suspect"
    assert judge(replace(shifted(-0.004), earlier=earlier)).verdict == "drift"


def test_drops_that_add_up_inside_the_band_are_called_by_their_trend() -> None:
    words: list[tuple[float, str]] = []
    reasons = []
    for night in range(1, 12):
        found = judge(replace(shifted(-0.004 * night), earlier=tuple(words)))
        words.append((found.comparison.delta, found.verdict))
        reasons.append(found.reason)
        if found.verdict == "regression":
            break
    assert found.band.holds(found.comparison.delta)
    assert (found.verdict, found.reason) == ("regression", "trend")
    assert "band" not in reasons


def test_five_drops_of_a_hundredth_are_called() -> None:
    words: list[tuple[float, str]] = []
    for night in range(1, 6):
        found = judge(replace(shifted(-0.01 * night), earlier=tuple(words)))
        words.append((found.comparison.delta, found.verdict))
    assert found.verdict == "regression"


def test_an_accepted_night_is_acknowledged_unless_nothing_changed() -> None:
    assert judge(replace(shifted(-0.05), accepted=True)).verdict == "acknowledged"
    same = Evidence(BASE, BASE, same_rankings=True, accepted=True)
    assert judge(same).verdict == "identical"


def test_a_night_that_lacks_data_is_incomplete() -> None:
    assert judge(replace(shifted(0), complete=False)).reason == "unranked"
    lost = BASE.copy()
    lost[:5] = np.nan
    found = judge(Evidence(lost, BASE))
    assert (found.verdict, found.reason) == ("incomplete", "coverage")
    assert found.comparison.queries == 75
    lost = BASE.copy()
    lost[:4] = np.nan
    assert judge(Evidence(lost, BASE)).verdict == "drift"


def test_queries_that_are_new_are_left_out_of_the_difference() -> None:
    more = np.append(BASE, [0.0] * 20)
    found = judge(Evidence(more, np.append(BASE, [np.nan] * 20)))
    assert found.verdict == "drift"
    assert (found.comparison.delta, found.comparison.queries) == (0, 80)


def test_holm_is_over_what_could_differ() -> None:
    same = Evidence(BASE, BASE, same_rankings=True)
    judged = judge_night([shifted(-0.05), shifted(0.0), *[same] * 10])
    assert [j.comparison.tests for j in judged] == [2, 2, *[0] * 10]


def test_of_what_is_no_quality_nothing_is_claimed() -> None:
    judged_share = replace(shifted(-0.2), is_quality=False)
    assert judge(judged_share).verdict == "suspect"
    assert judge(replace(judged_share, has_band=False)).verdict == "drift"
    assert judge(judged_share).comparison.p is None


def test_the_worst_word_is_the_nights() -> None:
    assert worst(["identical", "drift", "first"]) == "drift"
    assert worst(["identical", "regression", "incomplete"]) == "regression"
    assert worst([]) == Verdict.INCOMPLETE


def test_a_slower_night_is_named_and_does_not_become_usual() -> None:
    usual = [(q, "usual") for q in (10.0, 11.0, 9.5, 10.5, 10.2, 9.9)]
    assert judge_cost(SPEED, 7.0, usual).word == "usual"
    assert judge_cost(SPEED, 5.0, usual).word == "slower"
    assert judge_cost(SPEED, 20.0, usual).word == "faster"
    assert judge_cost(SPEED, 5.0, [*usual, *[(5.0, "slower")] * 9]).word == "slower"
    assert judge_cost(MEMORY, 21e9, [(10e9, "usual")]).word == "costlier"
    assert judge_cost(TOKENS, 1300, [(1000, "usual")]).word == "costlier"
    assert judge_cost(TOKENS, 700, [(1000, "usual")]).word == "cheaper"
    assert judge_cost(SPEED, 5.0, []).word == "first"
    band = judge_cost(SPEED, 10.0, [(10.0, "first")]).band
    assert band == Band(pytest.approx(10 / 1.5), pytest.approx(15))
