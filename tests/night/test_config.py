"""Options are refused at the door, and hashes name what runs."""

from datetime import date

import pytest

from perank_tasks.config import Arm, Night, NightOptions, stable_hash
from perank_tasks.errors import ConfigError
from perank_tasks.night.plan import plan_night
from perank_tasks.perank.options import RankingOptions
from perank_tasks.settings import Settings

DAY = date(2026, 1, 31)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 0}, r"depth: .*greater than or equal to 1 \(found 0\)"),
        ({"step": 30}, "step must be from 1 to the window's 20, found 30"),
        ({"arms": ["bm25", "bm25"]}, "arms names one twice: bm25, bm25"),
        (
            {"arms": ["bm52"]},
            r"valid:\n  arms\.0: .*'bm25', .*'perank' or 'llm-off' \(found 'bm52'\)\. "
            r"Did you mean bm25\?$",
        ),
        ({"arms": ["zzz"]}, r"\(found 'zzz'\)$"),
        ({"arms": []}, "arms: "),
        ({"windows": 3}, r"windows: there is no such option \(found 3\)\. Did you mean window\?"),
        ({"first_stage": "givn"}, r"first_stage: .*Did you mean given\?$"),
        ({"run_date": "31.1.2026"}, "run_date: .*date"),
        ({"query_limit": 0}, "query_limit: "),
    ],
)
def test_options_that_cannot_be_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NightOptions.parse(values)


@pytest.mark.parametrize(
    ("values", "close"),
    [
        ({"collection": "pydoc"}, "pydocs"),
        ({"embedder": "all-minilm-l6"}, "all-minilm-l6-v2"),
        ({"checkpoint": "smollm2-minilmm"}, "smollm2-minilm"),
    ],
)
def test_unknown_names_offer_close_ones(values: dict, close: str) -> None:
    with pytest.raises(ConfigError, match=close):
        plan_night(NightOptions.parse(values), DAY)


def test_a_night_survives_its_way_through_json() -> None:
    night = plan_night(NightOptions.parse({"arms": ["bm25", "cosine"], "depth": 50}), DAY)
    again = Night.from_json(night.to_json())
    assert again == night
    assert [arm.hash for arm in again.arms] == [arm.hash for arm in night.arms]
    assert night.collection == night.collection_name == "pydocs"
    assert night.run_date == DAY


def test_the_date_of_the_options_wins() -> None:
    night = plan_night(NightOptions.parse({"arms": ["bm25"], "run_date": "2025-12-24"}), DAY)
    assert night.run_date == date(2025, 12, 24)


def test_an_arm_is_named_by_all_that_changes_its_results() -> None:
    def arms(**values) -> dict[str, str]:
        night = plan_night(NightOptions.parse({"arms": ["bm25", "fusion"], **values}), DAY)
        return {arm.name: arm.hash for arm in night.arms}

    plain = arms()
    assert arms(shards=7) == plain  # how it is computed is not what
    assert arms(window=10) == plain  # nothing to these arms
    assert arms(depth=50).keys() == plain.keys()
    for change in ({"depth": 50}, {"query_limit": 5}, {"k1": 1.2}):
        assert not set(arms(**change).values()) & set(plain.values()), change
    assert arms(fusion_weight=0.1)["bm25"] == plain["bm25"]
    assert arms(fusion_weight=0.1)["fusion"] != plain["fusion"]


def test_a_commit_that_leaves_the_code_as_it_was_changes_nothing() -> None:
    def night(**fingerprint: str) -> Night:
        return Night(
            run_date=DAY,
            collection="pydocs",
            collection_name="pydocs",
            options=NightOptions(),
            arms=(Arm(name="bm25", first_stage="given", depth=1),),
            fingerprint=fingerprint,
        )

    one = night(code="c", commit="1").fingerprint_hash
    assert one == night(code="c", commit="2").fingerprint_hash
    assert one != night(code="d", commit="1").fingerprint_hash


def test_arms_of_before_keep_their_names_and_later_settings_make_others() -> None:
    """The hashes are those of perank before an arm had a transform and orders."""
    first = Arm(name="bm25", first_stage="bm25 k1=0.9 b=0.4", depth=100)
    assert first.hash == "a6a5c728d1"
    perank = Arm(
        name="perank",
        first_stage="bm25 k1=0.9 b=0.4",
        depth=100,
        embedder="e",
        embedder_hash="h",
        checkpoint="c",
        checkpoint_hash="d",
        prompt="p",
        ranking=RankingOptions(),
    )
    assert perank.hash == "d3c1a98218"
    changes = ({}, {"orders": 2}, {"orders": 3}, {"transform": "int8"})
    assert len({perank.model_copy(update=change).hash for change in changes}) == 4


def test_hashes_are_the_same_in_every_process() -> None:
    assert stable_hash({"b": [1, 2.5, None], "a": "ß"}) == "f3629282810113a1"


def test_a_thread_count_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERANK_THREADS", "two")
    with pytest.raises(ConfigError, match=r"PERANK_THREADS is 'two'"):
        Settings.from_environment()
    monkeypatch.setenv("PERANK_THREADS", "3")
    assert Settings.from_environment().threads == 3
