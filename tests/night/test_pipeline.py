"""Whole nights over a small collection: real files, the golden checkpoint, real DuckDB."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.config import Night
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.night.embed import read_vectors
from perank_tasks.report.contents import read_summary, remarks
from perank_tasks.schemas import RESULT_TABLES
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.analyst import analyst_at_work
from tests.perank.tiny import write_own
from tests.small import TOPICS, run_night, small_night, some_passages, write_collection


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return write_collection(tmp_path / "topics")


WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"decoding": "first-step"},
    {"decoding": "free", "passages": "text"},
    {"passages": "both", "top_k": 10},
    {"passes": 2, "initial_order": "random", "order_seed": 7},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home with one night of every arm, beside it its collection; and what the night returned."""
    home = tmp_path_factory.mktemp("made") / "perank"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERANK_HOME", str(home))
        return home, run_night(small_night(write_collection(home.parent / "topics"), shards=1))


@pytest.fixture
def done(made: tuple[Path, dict[str, Any]], home: Path) -> dict[str, Any]:
    """What the night returned, a copy of which is in this test's own home."""
    shutil.copytree(made[0], home)
    return made[1]


@pytest.fixture
def done_spec(made: tuple[Path, dict[str, Any]]) -> str:
    """That night's collection."""
    return f"files:{made[0].parent / 'topics'}"


def tables() -> dict[str, list[tuple]]:
    """Every row of every table of the published warehouse."""
    path = Settings.from_environment().published_warehouse
    with duckdb.connect(str(path), read_only=True) as connection:
        return {
            table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall()
            for table in RESULT_TABLES
        }


def values(statement: str, *parameters: Any) -> list[Any]:
    path = Settings.from_environment().published_warehouse
    with duckdb.connect(str(path), read_only=True) as connection:
        return [row[0] for row in connection.execute(statement, parameters).fetchall()]


def store() -> Store:
    return Store(Settings.from_environment().root)


def test_a_night_ranks_every_query_by_every_arm(done: dict[str, Any]) -> None:
    assert values("SELECT arm FROM runs ORDER BY arm") == ["bm25", "cosine", "fusion", "perank"]
    assert values("SELECT DISTINCT status FROM runs") == ["complete"]
    assert values("SELECT DISTINCT judged_queries FROM runs") == [len(TOPICS)]
    # The first stage finds every passage of a query's topic, and those only share its words.
    assert values("SELECT value FROM measures WHERE measure = 'recall@100' AND arm = 'bm25'") == [1]
    assert done["verdict"]["verdict"] == "first"
    assert [arm["verdict"] for arm in done["verdict"]["arms"]] == ["first"] * 4
    stages = values("SELECT DISTINCT stage FROM efficiency WHERE arm = 'perank'")
    assert set(stages) == {"snapshot", "embed", "index", "retrieve", "rerank"}
    decoded = "SELECT decode_steps FROM efficiency WHERE arm = 'perank' AND stage = 'rerank'"
    assert values(decoded)[0] >= 8 * len(TOPICS)


@pytest.mark.usefixtures("done")
def test_the_same_night_again_changes_no_cell(done_spec: str) -> None:
    before = tables()
    run_night(small_night(done_spec, shards=1))
    assert tables() == before
    assert all(before.values())


def test_more_shards_than_passages_and_queries_do_no_harm(tmp_path: Path) -> None:
    passages = [{"_id": "a", "text": "a flea lives"}, {"_id": "b", "text": "the flea market"}]
    queries = {"q": "flea"}
    spec = write_collection(tmp_path / "c", passages=passages, queries=queries, qrels=[])
    run_night(small_night(spec, shards=5))
    assert values("SELECT count(*) FROM rankings") == [2 * 4]


def test_embeddings_of_half_precision_rank_alike_and_are_another_arm(spec: str) -> None:
    run_night(small_night(spec, arms=["cosine"]))
    night = small_night(spec, arms=["cosine"], embedding={"precision": "float16"})
    done = run_night(night)
    artifact = store().open(done["embed"][next(iter(night.embeddings))])
    column = artifact.dataset("passages").schema.field("embedding").type
    assert column == pa.list_(pa.float16(), 32)
    halves, full = values("SELECT value FROM measures WHERE measure = 'nDCG@10' ORDER BY arm_hash")
    assert halves == pytest.approx(full, abs=0.01)
    assert len(set(values("SELECT arm_hash FROM runs"))) == 2


@pytest.mark.usefixtures("done")
def test_more_shards_give_the_same_results(done_spec: str) -> None:
    before = tables()
    run_night(small_night(done_spec, shards=3))
    after = tables()
    for table in ("rankings", "measures", "query_measures"):
        assert after[table] == before[table]


@pytest.mark.usefixtures("done")
def test_another_date_adds_rows_and_is_identical(done_spec: str) -> None:
    before = set(tables()["rankings"])
    again = run_night(small_night(done_spec, shards=1, run_date="2026-02-01"))
    assert before < set(tables()["rankings"])
    same = "identical compared with 2026-01-31 (first night)"
    assert [arm["text"] for arm in again["verdict"]["arms"]] == [same] * 4


def test_an_earlier_date_filled_in_later_is_judged_by_its_own_past(spec: str) -> None:
    run_night(small_night(spec, run_date="2026-02-02", arms=["bm25"]))
    run_night(small_night(spec, run_date="2026-02-01", arms=["bm25"]))
    assert values("SELECT verdict FROM arm_verdicts ORDER BY run_date") == ["first", "identical"]


def test_a_smoke_run_of_the_same_date_leaves_the_full_one(spec: str) -> None:
    run_night(small_night(spec, arms=["bm25"]))
    before = set(tables()["rankings"])
    run_night(small_night(spec, arms=["bm25"], query_limit=2))
    assert before < set(tables()["rankings"])
    assert sorted(values("SELECT queries FROM runs")) == [2, len(TOPICS)]


def test_a_changed_collection_embeds_only_new_texts_and_says_what_changed(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    run_night(small_night(spec))
    passages = some_passages()
    passages[3] = {"_id": "flea-3", "title": "", "text": "Nothing to do with any of it."}
    write_collection(tmp_path / "topics", passages=passages)

    night = small_night(spec, run_date="2026-02-01")
    done = run_night(night)
    counts = store().open(done["embed"][next(iter(night.embeddings))]).manifest.counts
    assert (counts["embedded"], counts["reused"]) == (1, len(passages) - 1 + len(TOPICS))
    bm25 = next(arm for arm in done["verdict"]["arms"] if arm["arm"] == "bm25")
    assert bm25["verdict"] == "suspect"
    assert "different: passages: 1 changed" in bm25["text"]
    assert "0 queries better, 1 worse" in bm25["text"]


def test_dated_snapshots_are_read_as_of_the_night(tmp_path: Path) -> None:
    folder = tmp_path / "dated"
    write_collection(folder / "dt=2026-01-01")
    write_collection(folder / "dt=2026-01-15", passages=some_passages(each=9))
    for run_date in ("2026-01-10", "2026-01-20"):
        run_night(small_night(f"files:{folder}", run_date=run_date, arms=["bm25"]))
    assert values("SELECT snapshot_date::VARCHAR FROM runs ORDER BY run_date") == [
        "2026-01-01",
        "2026-01-15",
    ]
    assert values("SELECT passages FROM runs ORDER BY run_date") == [40, 45]
    with pytest.raises(CollectionError, match=r"2026-01-01"):
        run_night(small_night(f"files:{folder}", run_date="2025-12-31", arms=["bm25"]))


def test_unknown_judgements_are_counted_and_not_fatal(tmp_path: Path) -> None:
    qrels = [("q-flea", "flea-1", 1), ("q-flea", "nowhere", 1), ("q-thai", "gone", 2)]
    run_night(small_night(write_collection(tmp_path / "c", qrels=qrels), arms=["bm25"]))
    assert values("SELECT unknown_judgements FROM runs") == [2]
    # trec_eval counts them among what could have been found.
    recall = "SELECT value FROM query_measures WHERE measure = 'recall@100' ORDER BY query_id"
    assert values(recall) == [0.5, 0]


def test_short_runs_rank_what_they_have(tmp_path: Path) -> None:
    ids = [passage["_id"] for passage in some_passages()]
    candidates = {"q-concrete": 0, "q-thai": 1, "q-flea": 10, "q-election": 35}
    run = [(query, ids[i], 50.0 - i) for query, n in candidates.items() for i in range(n)]
    spec = write_collection(tmp_path / "c", run=run)
    run_night(small_night(spec, first_stage="given"))
    statement = "SELECT passage_id FROM rankings WHERE arm = ? AND query_id = ?"
    for arm in ("bm25", "cosine", "fusion", "perank"):
        for query, n in candidates.items():
            assert sorted(values(statement, arm, query)) == sorted(ids[:n])
    assert values("SELECT DISTINCT status FROM runs") == ["complete"]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged but for progress, of which a slow machine says more."""
    its = "perank_tasks.support.progress"
    return [record.message for record in caplog.records if record.name != its]


def test_what_a_given_run_and_its_collection_do_not_share_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = [(f"q-{topic}", f"{topic}-3", 1.0) for topic in TOPICS]
    spec = write_collection(tmp_path / "whole", run=shared)
    run_night(small_night(spec, first_stage="given", arms=["bm25"]))
    assert not said(caplog)

    run = [("q-cat", "flea-0", 2.0), ("q-dog", "flea-0", 2.0), ("q-flea", "gone", 1.5), shared[0]]
    spec = write_collection(tmp_path / "part", run=run)
    run_night(small_night(spec, first_stage="given", arms=["bm25"]))
    assert said(caplog) == [
        "queries of the run that the collection does not have, passed over: 2 (q-cat the first)",
        "passages of the run that the collection does not have: 1 (gone the first)",
        "queries without candidates, since the run does not name them: 4 (q-concrete the first)",
    ]


def test_a_query_that_cannot_be_ranked_keeps_its_order_and_is_counted(tmp_path: Path) -> None:
    run = [(f"q-{topic}", f"{topic}-{i}", 9.0 - i) for topic in TOPICS for i in range(8)]
    run += [("q-flea", "not-a-passage", 0.5)]
    spec = write_collection(tmp_path / "c", run=run)
    run_night(small_night(spec, first_stage="given"))
    assert values("SELECT unranked_queries FROM runs ORDER BY arm") == [0, 1, 1, 1]
    # One of five is above the default threshold of 2%.
    assert values("SELECT status FROM runs ORDER BY arm") == ["complete", *["incomplete"] * 3]
    kept = "SELECT rank = first_stage_rank FROM rankings WHERE arm = 'perank' AND query_id = ?"
    assert all(values(kept, "q-flea"))
    assert not all(values(kept, "q-thai"))
    verdicts = "SELECT verdict FROM arm_verdicts ORDER BY arm"
    assert values(verdicts) == ["first", *["incomplete"] * 3]

    run_night(small_night(spec, first_stage="given", max_unranked=0.5))
    assert values("SELECT DISTINCT status FROM runs") == ["complete"]


def _damage_embeddings(night: Night, reference: str, change: Any) -> None:
    """Rewrite the first passages part of an embedding artifact."""
    part = store().open(reference).folder / "passages-0000.parquet"
    table = pq.read_table(part)
    pq.write_table(change(table), part)


def test_one_embedding_that_is_nan_costs_its_queries_and_no_others(spec: str) -> None:
    night = small_night(spec, shards=1)
    embeddings = run_night(night, until="embed")["embed"]

    def with_nan(table: pa.Table) -> pa.Table:
        width = table.schema.field("embedding").type.list_size
        flat = table["embedding"].combine_chunks().flatten().to_numpy().copy()
        flat[:width] = np.nan  # flea-0
        column = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
        return table.set_column(3, table.schema.field("embedding"), column)

    _damage_embeddings(night, embeddings[next(iter(night.embeddings))], with_nan)
    run_night(night)
    touched = "SELECT count(DISTINCT query_id) FROM rankings WHERE passage_id = 'flea-0'"
    (expected,) = values(touched)
    assert 0 < expected < len(TOPICS)
    assert values("SELECT unranked_queries FROM runs ORDER BY arm") == [0, *[expected] * 3]


def test_embeddings_of_another_width_leave_every_query_unranked(spec: str) -> None:
    night = small_night(spec, shards=1, arms=["perank"])
    embeddings = run_night(night, until="embed")["embed"]

    def narrower(table: pa.Table) -> pa.Table:
        rows = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        rows = rows[:, :16] / np.linalg.norm(rows[:, :16], axis=1, keepdims=True)
        flat = pa.array(rows.ravel())
        return table.set_column(3, "embedding", pa.FixedSizeListArray.from_arrays(flat, 16))

    _damage_embeddings(night, embeddings[next(iter(night.embeddings))], narrower)
    (rankings,) = run_night(night)["rerank"].values()
    assert values("SELECT unranked_queries FROM runs") == [len(TOPICS)]
    reasons = store().open(rankings).read("queries")["unranked_reason"].to_pylist()
    assert all("16), expected" in reason for reason in reasons)


def test_text_that_no_tokenizer_takes_is_cleaned_and_counted(tmp_path: Path) -> None:
    passages = [
        {"_id": "nul", "text": "a flea\0 lives on dogs"},
        {"_id": "surrogate", "text": "a flea \ud800 bites"},
        {"_id": "arabic", "text": "دورة حياة البرغوث flea"},
        {"_id": "emoji", "text": "🐕 flea 跳蚤的生命周期"},
        {"_id": "markers", "text": "flea <PLACEHOLDER> [/INST] <RANK> </s>"},
    ]
    queries = {"q1": "flea <PLACEHOLDER> [INST] </s>", "q2": "flea " * 2500, "q3": "跳蚤 flea"}
    spec = write_collection(tmp_path / "c", passages=passages, queries=queries, qrels=[])
    night = small_night(spec)
    run_night(night)
    assert values("SELECT count(*) FROM rankings WHERE arm = 'perank'") == [15]
    assert values("SELECT unranked_queries FROM runs") == [0, 0, 0, 0]
    assert values("SELECT cut_queries FROM runs WHERE arm = 'perank'") == [1]
    defused = "SELECT value FROM provenance WHERE key = 'queries.markers_defused' AND arm = ?"
    assert int(values(defused, "perank")[0]) >= 3


def test_a_collection_without_queries_publishes_nothing(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "c", queries={"q": "flea"}, passages=[])
    with pytest.raises(CollectionError):
        run_night(small_night(spec))
    assert not list(store().root.rglob("*.parquet"))


def test_what_is_not_there_is_refused_before_any_work(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"brings no run.*run=FILE"):
        small_night(spec, first_stage="given")
    with pytest.raises(CollectionError, match=r"run=bm52.trec: no such file"):
        small_night(f"{spec}?run=bm52.trec", arms=["bm25"])
    with pytest.raises(CollectionError, match=r"nowhere: no such folder"):
        small_night(f"files:{tmp_path / 'nowhere'}", arms=["bm25"])


def test_two_given_runs_stand_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for name, best in {"a.trec": "flea-3", "b.trec": "flea-0"}.items():
        write_collection(folder, run=[("q-flea", best, 2.0), ("q-flea", "flea-1", 1.0)])
        (folder / "given.trec").rename(folder / name)
    for name in ("a.trec", "b.trec"):
        run_night(small_night(f"files:{folder}?run={name}", first_stage="given", arms=["bm25"]))
    first = "SELECT passage_id FROM rankings WHERE rank = 1 AND query_id = 'q-flea' ORDER BY ALL"
    assert values(first) == ["flea-0", "flea-3"]
    runs = values("""SELECT config->>'$."first_stage.run"' FROM runs ORDER BY ALL""")
    assert runs == ["a.trec", "b.trec"]


def test_a_folder_does_not_overwrite_the_results_of_another_of_its_name(tmp_path: Path) -> None:
    mine, other = (write_collection(tmp_path / where / "good") for where in "ab")
    run_night(small_night(mine, arms=["bm25"]))
    before = tables()
    with pytest.raises(ConfigError) as caught:
        small_night(other, arms=["bm25"])
    for part in (mine, other, f"{other}?name=good"):
        assert part in str(caught.value)
    small_night(mine, arms=["bm25"])
    small_night(f"{mine}?relevance_level=2", arms=["bm25"])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    small_night(f"files:{tmp_path}/link/good", arms=["bm25"])
    run_night(small_night(f"{other}?name=better", arms=["bm25"]))
    assert set(before["runs"]) < set(tables()["runs"])

    # An explicit name is the user's word: the collection has moved, and its results go on.
    run_night(small_night(f"{other}?name=good", run_date="2026-02-01", arms=["bm25"]))
    small_night(other, arms=["bm25"])
    with pytest.raises(ConfigError, match=r"name=good"):
        small_night(mine, arms=["bm25"])


def test_a_folder_is_recorded_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = write_collection(tmp_path / "topics")
    monkeypatch.chdir(tmp_path)
    assert small_night("files:topics?name=t", arms=["bm25"]).collection == f"{absolute}?name=t"


def test_every_way_of_ranking_is_an_arm_of_its_own(spec: str) -> None:
    prompts = []
    for number, changes in enumerate(WAYS, 1):
        night = small_night(spec, arms=("perank",), **changes)
        run_night(night)
        assert values("SELECT count(DISTINCT arm_hash) FROM rankings") == [number]
        cost = values(
            "SELECT unnest([forward_passes, flops, prefill_seconds, numbers_repaired]) "
            "FROM efficiency WHERE arm_hash = ? AND stage = 'rerank'",
            night.arms[0].hash,
        )
        assert all(value > 0 for value in cost[:3]), changes
        assert (cost[3] > 0) == (changes.get("decoding") == "free"), changes
        prompt = "SELECT value FROM provenance WHERE key = 'model.prompt_hash' AND arm_hash = ?"
        prompts += values(prompt, night.arms[0].hash)
    plain, first_step, free, both, twice = prompts
    assert plain == first_step == twice
    assert plain not in (free, both)


def test_read_vectors_joins_by_id(spec: str) -> None:
    night = small_night(spec)
    (reference,) = run_night(night, until="embed")["embed"].values()
    artifact = store().open(reference)
    rows, vectors = read_vectors(artifact, "passages", {"thai-7", "flea-0", "absent"})
    assert set(rows) == {"thai-7", "flea-0"}
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-5)


@pytest.mark.usefixtures("done")
def test_an_analysts_session_stays_open_through_a_whole_night(done_spec: str) -> None:
    published = Settings.from_environment().published_warehouse
    with analyst_at_work(published, questions=5):
        run_night(small_night(done_spec, run_date="2026-02-01"))
    assert values("SELECT DISTINCT run_date::VARCHAR FROM runs ORDER BY 1") == [
        "2026-01-31",
        "2026-02-01",
    ]


KILLED = """
import json, sys
from perank_tasks.config import Night
from tests.small import run_night
run_night(Night.from_json(json.loads(sys.argv[1])))
"""


@pytest.mark.long  # the fast tests kill one that writes to S3
@pytest.mark.parametrize("part", ["embeddings/*/*/passages-*", "rankings/*/*/queries-*"])
def test_a_killed_night_goes_on_to_the_same_tables(spec: str, part: str) -> None:
    night = small_night(spec, shards=4)
    root = store().root
    process = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps(night.to_json())])
    deadline = time.monotonic() + 120
    while not list(root.glob(f"{part}.parquet")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Settings.from_environment().published_warehouse.exists()
    first_part = min(root.glob(f"{part}.parquet"), key=lambda path: path.stat().st_mtime)
    written = first_part.stat().st_mtime_ns

    run_night(night)
    assert first_part.stat().st_mtime_ns == written
    resumed = tables()
    shutil.rmtree(os.environ["PERANK_HOME"])
    run_night(night)
    for table in ("rankings", "measures", "query_measures", "provenance"):
        assert resumed[table] == tables()[table]


@pytest.mark.parametrize(
    ("arm", "published"), [("bm25", 0.5058), pytest.param("cosine", 0.6424, marks=pytest.mark.long)]
)
def test_given_runs_reproduce_published_first_stage_scores(arm: str, published: float) -> None:
    folder = os.environ.get("PERANK_TREC_DATA")
    if not folder:
        pytest.skip("PERANK_TREC_DATA names no folder with trec-dl-2019")
    spec = (
        f"files:{folder}/trec-dl-2019?run=candidates.bm25.top100.trec&relevance_level=2&name=dl19"
    )
    run_night(small_night(spec, first_stage="given", arms=[arm], embedder="all-minilm-l6-v2"))
    assert values("SELECT value FROM measures WHERE measure = 'nDCG@10'") == [
        pytest.approx(published, abs=0.0005)
    ]


def test_what_the_llm_adds_is_said_with_its_interval(spec: str, tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", embedding_size=384)
    run_night(small_night(spec, arms=["llm-off", "perank"], checkpoint=str(own)))
    off, on = values("SELECT value FROM measures WHERE measure = 'nDCG@10' ORDER BY arm")
    assert on != off
    with reading(Settings.from_environment().warehouse) as warehouse:
        said = remarks(warehouse, read_summary(warehouse, None, None))
    (sentence,) = (each for each in said if "its LLM" in each)
    assert sentence.startswith(f"perank: its LLM changes nDCG@10 by {on - off:+.4f} [")
    assert sentence.endswith("] against llm-off, the same checkpoint without it")
