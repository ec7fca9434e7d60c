"""Every rung of the ladder, and what leads from one to another."""

from dataclasses import replace

import numpy as np
import pytest

from perank_tasks.regression.cost import MEMORY, SPEED, TOKENS, judge_cost
from perank_tasks.regression.ladder import (
    EarlierNight,
    Evidence,
    Finding,
    Verdict,
    judge_arm,
    worst,
)

RANDOM = np.random.default_rng(11)
BASE = RANDOM.uniform(0.3, 0.9, 80)
NOISE = RANDOM.normal(0, 0.1, 80)
NOISE -= NOISE.mean()


def shifted(delta: float) -> Evidence:
    """80 queries whose mean differs by `delta`, each by .1 more or less."""
    return Evidence(now=BASE + NOISE + delta, baseline=BASE)


def nights(*changes: float, verdict: str = "drift", is_alike: bool = True) -> list[EarlierNight]:
    return [EarlierNight(change, verdict, is_alike) for change in changes]


def judge(evidence: Evidence) -> Finding:
    (finding,) = judge_arm([evidence])
    return finding


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
    finding = judge(shifted(-0.05))
    assert (finding.verdict, finding.reason) == ("regression", "band")
    assert finding.comparison.delta == pytest.approx(-0.05)
    assert finding.comparison.ci_low < -0.05 < finding.comparison.ci_high
    assert finding.comparison.p_holm == finding.comparison.p < 0.001
    assert judge(shifted(0.05)).verdict == "improvement"


def test_a_drop_that_chance_explains_is_suspect() -> None:
    finding = judge(shifted(-0.015))
    assert (finding.verdict, finding.reason) == ("suspect", "band")
    assert finding.comparison.p > 0.05


def test_a_significant_drop_too_small_to_matter_is_drift() -> None:
    finding = judge(Evidence(BASE - 0.005, BASE))
    assert finding.comparison.p < 0.001
    assert finding.verdict == "drift"


def test_a_rise_that_chance_explains_is_unusual_and_not_suspect() -> None:
    finding = judge(shifted(0.015))
    assert (finding.verdict, finding.reason) == ("unusual", "band")
    assert worst(["unusual", "drift", "identical"]) == "unusual"
    assert worst(["unusual", "suspect"]) == "suspect"


def test_what_is_usual_for_this_arm_is_drift() -> None:
    wide = nights(-0.03, 0.02, 0.03, -0.02, 0.01, -0.01)
    finding = judge(replace(shifted(-0.05), earlier=wide))
    assert finding.verdict == "drift"
    assert finding.nights == 7


@pytest.mark.parametrize(
    "called", ["unusual", "improvement", "suspect", "incomplete", "regression"]
)
def test_a_night_that_was_called_does_not_widen_the_band(called: str) -> None:
    """The same drop again, after five of its like and one usual night: judged as the first."""
    earlier = [*nights(*[-0.05, 0.05] * 10, verdict=called), *nights(0.0)]
    finding = judge(replace(shifted(-0.05), earlier=earlier))
    assert (finding.verdict, finding.nights) == ("regression", 2)
    assert finding.band == judge(shifted(-0.05)).band


def test_nights_of_other_settings_or_judgements_do_not_widen_the_band() -> None:
    earlier = nights(*[-0.05, 0.05] * 10, is_alike=False)
    finding = judge(replace(shifted(-0.05), earlier=earlier))
    assert (finding.verdict, finding.nights) == ("regression", 1)


def test_a_regression_stands_until_it_is_repaired() -> None:
    earlier = nights(-0.05, verdict="regression")
    # Alone, and with no other night before it, this one would be no regression.
    weaker = shifted(-0.015)
    assert judge(weaker).verdict == "suspect"
    finding = judge(replace(weaker, earlier=earlier))
    assert (finding.verdict, finding.reason) == ("regression", "standing")
    assert judge(replace(shifted(-0.004), earlier=earlier)).verdict == "drift"


def test_drops_that_add_up_inside_the_band_are_called_by_their_trend() -> None:
    earlier: list[EarlierNight] = []
    reasons = []
    for night in range(1, 12):
        finding = judge(replace(shifted(-0.004 * night), earlier=earlier))
        earlier = [*earlier, EarlierNight(finding.comparison.delta, finding.verdict)]
        reasons.append(finding.reason)
        if finding.verdict == "regression":
            break
    assert finding.band.holds(finding.comparison.delta)
    assert (finding.verdict, finding.reason) == ("regression", "trend")
    assert "band" not in reasons


def test_five_drops_of_a_hundredth_are_called() -> None:
    earlier: list[EarlierNight] = []
    for night in range(1, 6):
        finding = judge(replace(shifted(-0.01 * night), earlier=earlier))
        earlier = [*earlier, EarlierNight(finding.comparison.delta, finding.verdict)]
    assert finding.verdict == "regression"


def test_an_accepted_night_is_acknowledged_unless_nothing_changed() -> None:
    assert judge(replace(shifted(-0.05), accepted=True)).verdict == "acknowledged"
    same = Evidence(BASE, BASE, same_rankings=True, accepted=True)
    assert judge(same).verdict == "identical"


def test_a_night_that_lacks_data_is_incomplete() -> None:
    for missing in ("unranked", "unmeasured"):
        finding = judge(replace(shifted(0), missing=missing))
        assert (finding.verdict, finding.reason) == ("incomplete", missing)
    same = Evidence(BASE, BASE, same_rankings=True, missing="unmeasured")
    assert judge(same).verdict == "incomplete"
    assert judge(replace(same, baseline=None)).verdict == "incomplete"
    lost = BASE.copy()
    lost[:5] = np.nan
    finding = judge(Evidence(lost, BASE))
    assert (finding.verdict, finding.reason) == ("incomplete", "coverage")
    assert finding.comparison.queries == 75
    lost = BASE.copy()
    lost[:4] = np.nan
    assert judge(Evidence(lost, BASE)).verdict == "drift"


def test_queries_that_are_new_are_left_out_of_the_difference() -> None:
    more = np.append(BASE, [0.0] * 20)
    finding = judge(Evidence(more, np.append(BASE, [np.nan] * 20)))
    assert finding.verdict == "drift"
    assert (finding.comparison.delta, finding.comparison.queries) == (0, 80)


def test_holm_is_over_what_could_differ() -> None:
    same = Evidence(BASE, BASE, same_rankings=True)
    judged = judge_arm([shifted(-0.05), shifted(0.0), *[same] * 10])
    assert [j.comparison.tests for j in judged] == [2, 2, *[0] * 10]


def test_of_what_is_no_quality_nothing_is_claimed() -> None:
    finding = judge(replace(shifted(-0.2), is_quality=False))
    assert (finding.verdict, finding.band) == ("drift", None)
    assert finding.comparison.p is None


def test_the_worst_word_is_the_nights() -> None:
    assert worst(["identical", "drift", "first"]) == "drift"
    assert worst(["identical", "regression", "incomplete"]) == "regression"
    assert worst([]) == Verdict.INCOMPLETE


def test_a_slower_night_is_named_and_does_not_become_usual() -> None:
    usual = [(q, "usual") for q in (10.0, 11.0, 9.5, 10.5, 10.2, 9.9)]
    assert judge_cost(SPEED, 7.0, usual).verdict == "usual"
    assert judge_cost(SPEED, 5.0, usual).verdict == "slower"
    assert judge_cost(SPEED, 20.0, usual).verdict == "faster"
    assert judge_cost(SPEED, 5.0, [*usual, *[(5.0, "slower")] * 9]).verdict == "slower"
    assert judge_cost(MEMORY, 21e9, [(10e9, "usual")] * 5).verdict == "costlier"
    assert judge_cost(TOKENS, 1300, [(1000, "usual")] * 5).verdict == "costlier"
    assert judge_cost(TOKENS, 700, [(1000, "usual")] * 5).verdict == "cheaper"
    assert judge_cost(SPEED, 5.0, []).verdict == "first"
    usual_of_tens = judge_cost(SPEED, 10.0, [(10.0, "first")] * 5)
    assert usual_of_tens.band_low == pytest.approx(10 / 1.5)
    assert usual_of_tens.band_high == pytest.approx(15)


def test_four_nights_do_not_say_what_a_night_costs() -> None:
    few = judge_cost(MEMORY, 21e9, [(10e9, "first")] * 4)
    assert (few.verdict, few.band_low, few.nights) == ("first", None, 4)


@pytest.mark.parametrize(
    ("shift", "is_quality", "word", "reason"),
    [
        (0.0, True, "identical", None),
        (-0.005, True, "drift", "judgements"),
        (-0.03, True, "suspect", "judgements"),
        (0.03, True, "unusual", "judgements"),
        (-0.3, False, "drift", "judgements"),
    ],
)
def test_what_judgements_alone_change_is_no_regression_and_not_green_for_long(
    shift: float, is_quality: bool, word: str, reason: str | None
) -> None:
    evidence = Evidence(
        BASE, BASE, same_rankings=True, judgements_delta=shift, is_quality=is_quality
    )
    finding = judge(evidence)
    assert (finding.verdict, finding.reason) == (word, reason)
    assert finding.judgements_delta == shift
    accepted = judge(replace(evidence, accepted=True))
    assert accepted.verdict == ("acknowledged" if shift else "identical")


def test_a_drop_by_like_judgements_is_a_regression_whatever_these_gain() -> None:
    finding = judge(replace(shifted(-0.05), judgements_delta=0.1))
    assert (finding.verdict, finding.reason) == ("regression", "band")
