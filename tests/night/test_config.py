"""Options are refused at the door, and hashes name what runs."""

from datetime import date
from typing import Any

import pytest

from perank_tasks.config import Arm, FirstStage, Night, NightOptions, stable_hash
from perank_tasks.errors import ConfigError
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.settings import Settings
from tests.small import small_arms

DAY = date(2026, 1, 31)


def planned(options: dict[str, Any], **arms: Any) -> Night:
    """A night of the small arms, over the collection in the package."""
    file = small_arms(**arms)
    return plan_night(NightOptions.parse(options), DAY, Site.from_environment(), arms=file)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shards": 0}, r"shards: .*greater than or equal to 1 \(found 0\)"),
        ({"arms": ["bm25", "bm25"]}, "arms names one twice: bm25, bm25"),
        ({"shard": 3}, r"shard: there is no such option \(found 3\)\. Did you mean shards\?"),
        ({"window": 3}, r"window: there is no such option \(found 3\)"),
        ({"run_date": "31.1.2026"}, "run_date: .*date"),
        ({"query_limit": 0}, "query_limit: "),
        ({"baseline": "2026-02-30"}, "day is out of range"),
        ({"accept": "better"}, "accept_name the person; give both"),
    ],
)
def test_options_that_cannot_be_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NightOptions.parse(values)


@pytest.mark.parametrize(
    ("options", "arms", "close"),
    [
        ({"collection": "pydoc"}, {}, "pydocs"),
        ({}, {"embedder": "all-minilm-l6"}, "all-minilm-l6-v2"),
        ({}, {"checkpoint": "smollm2-bgee"}, "smollm2-bge"),
    ],
)
def test_unknown_names_offer_close_ones(options: dict, arms: dict, close: str) -> None:
    with pytest.raises(ConfigError, match=close):
        planned(options, **arms)


def test_a_night_survives_its_way_through_json() -> None:
    night = planned({"arms": ["bm25", "cosine", "perank"]}, depth=50)
    again = Night.from_json(night.to_json())
    assert again == night
    assert [arm.hash for arm in again.arms] == [arm.hash for arm in night.arms]
    assert again.embeddings == night.embeddings
    assert again.first_stages == night.first_stages
    assert night.collection == night.collection_name == "pydocs"
    assert night.run_date == DAY


def test_the_date_of_the_options_wins() -> None:
    assert planned({"arms": ["bm25"], "run_date": "2025-12-24"}).run_date == date(2025, 12, 24)


def test_an_arm_is_named_by_all_that_changes_its_results() -> None:
    def arms(options: dict[str, Any] | None = None, **values: Any) -> dict[str, str]:
        night = planned({"arms": ["bm25", "fusion"], **(options or {})}, **values)
        return {arm.name: arm.hash for arm in night.arms}

    plain = arms()
    assert arms({"shards": 7}) == plain  # how it is computed is not what
    assert arms(window=10) == plain  # nothing to these arms
    assert arms(depth=50).keys() == plain.keys()
    for change in (arms({"query_limit": 5}), arms(depth=50), arms(bm25={"k1": 1.2})):
        assert not set(change.values()) & set(plain.values())
    assert arms(fusion_weight=0.1)["bm25"] == plain["bm25"]
    assert arms(fusion_weight=0.1)["fusion"] != plain["fusion"]


def bm25_arm(**changes: Any) -> Arm:
    first_stage = FirstStage(name="bm25", kind="bm25", depth=100, k1=0.9, b=0.4)
    arm = Arm(name="bm25", ranker="first-stage", first_stage=first_stage, depth=100, options={})
    return arm.model_copy(update=changes)


def test_a_commit_that_leaves_the_code_as_it_was_changes_nothing() -> None:
    def night(**fingerprint: str) -> Night:
        return Night(
            run_date=DAY,
            collection="pydocs",
            collection_name="pydocs",
            options=NightOptions(),
            arms=(bm25_arm(),),
            fingerprint=fingerprint,
        )

    one = night(code="c", commit="1").fingerprint_hash
    assert one == night(code="c", commit="2").fingerprint_hash
    assert one != night(code="d", commit="1").fingerprint_hash


def test_names_are_no_part_of_an_arms_hash_and_settings_are() -> None:
    """Tables of earlier nights name arms by these hashes: a change here begins new histories."""
    arm = bm25_arm()
    assert arm.hash == "3ca2f638c4"
    renamed = arm.first_stage.model_copy(update={"name": "lexical"})
    assert bm25_arm(name="another", first_stage=renamed).hash == arm.hash
    deeper = arm.first_stage.model_copy(update={"depth": 200})
    changes: list[dict[str, Any]] = [
        {},
        {"depth": 50},
        {"query_limit": 5},
        {"first_stage": deeper},
        {"options": {"weight": 0.1}},
        {"identity": {"checkpoint_hash": "d"}},
    ]
    assert len({bm25_arm(**change).hash for change in changes}) == len(changes)


def test_hashes_are_the_same_in_every_process() -> None:
    assert stable_hash({"b": [1, 2.5, None], "a": "ß"}) == "f3629282810113a1"


def test_a_thread_count_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERANK_THREADS", "two")
    with pytest.raises(ConfigError, match=r"PERANK_THREADS is 'two'"):
        Settings.from_environment()
    monkeypatch.setenv("PERANK_THREADS", "3")
    assert Settings.from_environment().threads == 3
