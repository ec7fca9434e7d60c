"""Real nights over a small collection: the right word and the right cause, arm by arm.

Thirty queries, so that a paired test can see something: six words of each of five topics.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from perank_tasks.artifacts.store import Store
from perank_tasks.night import provenance
from perank_tasks.settings import Settings
from perank_tasks.warehouse.attribution import ArmWord, Change, find_cause
from perank_tasks.warehouse.database import load_acceptance, reading
from perank_tasks.warehouse.decisions import acceptance
from perank_tasks.warehouse.night_verdict import NightVerdict
from perank_tasks.warehouse.nights import Run
from tests.needs import PROJECT
from tests.small import GOLDEN, TOPICS, run_night, small_night, some_passages, write_collection

DAY = date(2026, 1, 1)
ARMS = ("bm25", "cosine", "perank")
GONE = [f"{topic}-{i}" for topic in TOPICS for i in (3, 7)]
QUERIES = {
    f"q-{topic}-{i}": f"{word} source number {i}"
    for topic, text in TOPICS.items()
    for i, word in enumerate([w for w in text.lower().split() if len(w) > 3][:6])
}


def qrels() -> list[tuple[str, str, int]]:
    """Of each query, the passage with its number is best and one other is relevant."""
    return [
        line
        for query in QUERIES
        for line in (
            (query, f"{query.split('-')[1]}-{query.split('-')[2]}", 3),
            (query, f"{query.split('-')[1]}-7", 1),
        )
    ]


def collection(folder: Path, *, judged: Sequence | None = None, without: Sequence = ()) -> str:
    passages = [p for p in some_passages() if p["_id"] not in without]
    return write_collection(folder, passages=passages, queries=QUERIES, qrels=judged or qrels())


def night(spec: str, day: int, **options: Any) -> NightVerdict:
    values = {"arms": ARMS, "shards": 1, "run_date": f"2026-01-{day:02}", **options}
    return run_night(small_night(spec, **values))["verdict"]


def arms(verdict: NightVerdict) -> dict[str, tuple[str, str]]:
    return {arm["arm"]: (arm["verdict"], arm["text"]) for arm in verdict["arms"]}


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A collection whose first night is done."""
    made = collection(tmp_path / "topics")
    assert night(made, 1)["verdict"] == "first"
    return made


def test_an_unchanged_night_is_identical(spec: str) -> None:
    found = night(spec, 2)
    assert found["verdict"] == "identical"
    assert found["text"] == "identical (bm25, cosine, perank)"
    for word, text in arms(found).values():
        assert word == "identical"
        assert text.startswith("identical compared with 2026-01-01 (first night)")
        assert "different" not in text


def test_another_bm25_setting_is_named(spec: str) -> None:
    found = night(spec, 2, bm25={"k1": 10.0, "b": 1.0})
    word, text = arms(found)["bm25"]
    assert word in ("drift", "unusual", "suspect", "regression", "improvement")
    assert "setting first_stage.b: 0.4 → 1.0, setting first_stage.k1: 0.9 → 10.0" in text
    assert found["cause"] == (
        "because of setting first_stage.b: 0.4 → 1.0, setting first_stage.k1: 0.9 → 10.0"
    )


def test_noise_in_the_projector_is_a_regression_of_the_reranker(spec: str, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    shutil.copytree(GOLDEN, noisy)
    weights = load_file(noisy / "model.safetensors")
    torch.manual_seed(0)
    for name in [n for n in weights if "projector" in n and n.endswith("weight")]:
        weights[name] = weights[name] + 5 * torch.randn_like(weights[name])
    save_file(weights, noisy / "model.safetensors", metadata={"format": "pt"})
    found = night(spec, 2, checkpoint=str(noisy))
    words = {arm: word for arm, (word, _) in arms(found).items()}
    assert words["bm25"] == words["cosine"] == "identical"
    assert words["perank"] not in ("identical", "first")
    # Its own embedder is the checkpoint's, too.
    assert found["cause"].startswith(f"because of setting checkpoint: {GOLDEN} → {noisy}")
    assert f"setting checkpoint: {GOLDEN} → {noisy}" in arms(found)["perank"][1]


def test_deleted_passages_are_counted_and_blamed_on_the_data(spec: str, tmp_path: Path) -> None:
    collection(tmp_path / "topics", without=GONE)
    found = night(spec, 2)
    assert found["verdict"] == "regression"
    assert found["text"].endswith("; with passages: 10 removed")
    for word, text in arms(found).values():
        assert word == "regression"
        assert "different: passages: 10 removed" in text
    # It stays red, and no cause is forgotten.
    again = night(spec, 3)
    assert again["verdict"] == "regression"
    assert "passages: 10 removed" in arms(again)["bm25"][1]


def test_one_changed_judgement_is_named_and_no_ranking_moved(spec: str, tmp_path: Path) -> None:
    judged = qrels()
    query, passage, _ = judged[0]
    judged[0] = (query, passage, 0)
    collection(tmp_path / "topics", judged=judged)
    found = night(spec, 2)
    assert found["cause"] == "because of judgements: 1 changed; no ranking moved"
    for word, text in arms(found).values():
        assert word in ("drift", "unusual", "suspect")
        assert "different: judgements: 1 changed" in text
        assert "0 of 29 queries changed in the top 10" in text
        assert " by other judgements alone " in text
        assert "queries better" not in text
    # The rankings are the same, so that the first night's get what the second's got.
    with reading(Settings.from_environment().warehouse) as warehouse:
        own = "SELECT {} FROM {} WHERE run_date = '2026-01-02' ORDER BY ALL"
        columns = "arm_hash, query_id, measure, value"
        rescored = warehouse.execute(own.format(columns, "rescored")).fetchall()
        assert len(rescored) == 3 * 5 * len(QUERIES)
        assert rescored == warehouse.execute(own.format(columns, "query_measures")).fetchall()
        deltas = "SELECT DISTINCT delta FROM comparisons WHERE run_date = '2026-01-02'"
        assert warehouse.execute(deltas).fetchall() == [(0.0,)]
    again = night(spec, 3, baseline="previous")
    assert again["verdict"] == "identical"


def test_a_library_that_changed_nothing_else_is_named(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = provenance._version
    monkeypatch.setattr(
        provenance, "_version", lambda name: "99.0" if name == "numpy" else real(name)
    )
    found = night(spec, 2)
    assert found["verdict"] == "identical"
    for word, text in arms(found).values():
        assert word == "identical"
        assert f"; different: numpy {real('numpy')} → 99.0" in text


NIGHT = """
import json, sys
from tests.small import run_night
from tests.small import small_night
print(json.dumps(run_night(small_night(**json.loads(sys.argv[1])))["verdict"]))
"""

OTHER_STEMMER = """
def algorithms():
    return ["english", "porter"]


class Stemmer:
    def __init__(self, algorithm):
        assert algorithm == "porter"

    def stemWord(self, word):
        return word[:1]
"""


@pytest.mark.long
def test_another_release_of_a_library_that_ranks_otherwise_is_judged_and_named(
    spec: str, tmp_path: Path
) -> None:
    was = provenance._version("PyStemmer")
    other = tmp_path / "other"
    (other / "PyStemmer-99.0.dist-info").mkdir(parents=True)
    (other / "Stemmer.py").write_text(OTHER_STEMMER)
    about = "Metadata-Version: 2.1\nName: PyStemmer\nVersion: 99.0\n"
    (other / "PyStemmer-99.0.dist-info" / "METADATA").write_text(about)

    def with_the_other(day: int) -> NightVerdict:
        options = {"spec": spec, "arms": ARMS, "shards": 1, "run_date": f"2026-01-{day:02}"}
        done = subprocess.run(
            [sys.executable, "-c", NIGHT, json.dumps(options)],
            env={**os.environ, "PYTHONPATH": str(other)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    found = with_the_other(2)
    word, text = arms(found)["bm25"]
    assert word in ("suspect", "regression")
    assert f"; different: PyStemmer {was} → 99.0" in text
    assert found["text"].endswith(
        f"; with PyStemmer {was} → 99.0; bm25 moved: it shows in the first stage"
    )
    # The index was made by it, too: a night does not mix the terms of two releases.
    made = Store(Settings.from_environment().root).published("indexes", "topics")
    assert len(list(made)) == 2
    assert night(spec, 3)["verdict"] == "identical"
    assert arms(with_the_other(4))["bm25"][0] == word


def test_a_night_can_be_accepted_as_it_runs(spec: str, tmp_path: Path) -> None:
    collection(tmp_path / "topics", without=GONE)
    found = night(spec, 2, accept="ten passages were wrong", accept_name="Ada")
    assert {word for word, _ in arms(found).values()} == {"acknowledged"}
    assert found["verdict"] == "acknowledged"
    after = night(spec, 3)
    assert {word for word, _ in arms(after).values()} == {"identical"}
    assert "identical compared with 2026-01-02 (accepted)" in arms(after)["bm25"][1]


def test_another_baseline_is_asked_for_by_an_option(spec: str, tmp_path: Path) -> None:
    collection(tmp_path / "topics", without=GONE)
    assert night(spec, 2)["verdict"] == "regression"
    assert night(spec, 3, baseline="previous")["verdict"] == "identical"
    assert night(spec, 3, baseline="2026-01-01")["verdict"] == "regression"


def test_arms_with_other_baselines_say_nothing_of_each_other(spec: str) -> None:
    other = {"bm25": {"k1": 10.0, "b": 1.0}}
    moved = night(spec, 2, **other)
    assert arms(moved)["bm25"][0] != "identical"
    settings = Settings.from_environment()
    act = acceptance("topics", date(2026, 1, 2), "Ada", "on purpose", arm="bm25")
    load_acceptance(settings.warehouse, Store(settings.root), act)
    found = night(spec, 3, **other)
    words = {arm["arm"]: (arm["verdict"], arm["against"]) for arm in found["arms"]}
    assert words["bm25"] == ("identical", "2026-01-02")
    assert any(
        word != "identical" and against == "2026-01-01" for word, against in words.values()
    ), words
    # BM25 stands still since the second night only, which says nothing of the time before.
    changed = "setting first_stage.b: 0.4 → 1.0, setting first_stage.k1: 0.9 → 10.0"
    assert found["cause"] == f"because of {changed}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("bm25 identical, cosine identical, perank identical", None),
        ("cosine suspect, perank suspect", None),
        ("bm25 drift, cosine suspect, perank suspect", "bm25 moved: it is the first stage"),
        ("bm25 identical, cosine suspect, perank drift", "it is the embeddings"),
        ("bm25 identical, cosine identical, perank drift", "it is the reranker"),
        ("bm25 identical, cosine identical, llm-off identical, perank drift", "it is the LLM"),
        ("bm25 identical, cosine identical, llm-off drift, perank drift", "it is the reranker"),
        ("bm25 identical, perank drift", "bm25 did not move: it is what comes after"),
    ],
)
def test_control_arms_say_which_stage_it_is(words: str, sentence: str | None) -> None:
    said = dict(pair.split() for pair in words.split(", "))
    found = find_cause([arm_word(arm, word, RANKERS.get(arm, arm)) for arm, word in said.items()])
    assert (found is None) if sentence is None else (sentence in (found or ""))


RANKERS = {"bm25": "first-stage"}


def arm_word(
    arm: str, word: str, ranker: str, first_stage: str = "bm25", changes: Sequence[Change] = ()
) -> ArmWord:
    run = Run("nightly", DAY, "c", arm, arm, True, True, False, "", "", "", 1, ranker, first_stage)
    return ArmWord(run, word, DAY, word != "identical", changes)


def test_arms_are_controls_by_what_ranks_in_them_and_not_by_their_names() -> None:
    words = [
        arm_word("plain", "identical", "first-stage"),
        arm_word("vectors", "identical", "cosine"),
        arm_word("window 20", "drift", "perank"),
        arm_word("window 100", "identical", "perank"),
    ]
    assert find_cause(words) == "plain and vectors did not move: it is the reranker"
    # A first stage says nothing of what ranks another one's candidates.
    other = arm_word("over hybrid", "drift", "perank", first_stage="hybrid")
    assert find_cause([*words[:2], words[3], other]) is None


TOP_K = Change("settings", "setting top_k: none → 10")
TORCH = Change("versions", "torch 2.13 → 2.14")
GONE_PASSAGES = Change("data", "passages: 20 removed")
JUDGED = Change("judgements", "judgements: 6 changed")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([TOP_K], "because of setting top_k: none → 10"),
        ([TORCH], "with torch 2.13 → 2.14; bm25 and cosine did not move: it shows in the reranker"),
        ([JUDGED, TOP_K], "because of setting top_k: none → 10; with judgements: 6 changed"),
        (
            [TORCH, GONE_PASSAGES],
            "with torch 2.13 → 2.14, passages: 20 removed; bm25 and cosine did not move: "
            "it shows in the reranker",
        ),
    ],
)
def test_what_was_different_is_named_before_a_stage(changes: list[Change], sentence: str) -> None:
    words = [
        arm_word("bm25", "identical", "first-stage"),
        arm_word("cosine", "identical", "cosine"),
    ]
    words.append(arm_word("perank", "suspect", "perank", changes=changes))
    assert find_cause(words) == sentence


def test_settings_explain_the_arms_that_have_them_and_no_others() -> None:
    words = [
        arm_word("bm25", "identical", "first-stage"),
        arm_word("fast", "drift", "perank", changes=[TOP_K]),
        arm_word("whole", "drift", "perank"),
    ]
    assert find_cause(words) == (
        "because of setting top_k: none → 10 (fast); "
        "bm25 did not move: it is what comes after the first stage, in whole"
    )
