"""Nights over collections as they are: what is odd is said, and stops none."""

import json
import logging
import os
from pathlib import Path

import duckdb
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.report.contents import read_summary, remarks
from perank_tasks.settings import Settings
from perank_tasks.warehouse.database import reading
from tests.small import run_night, small_arms, small_night, write_collection
from tests.typed import perank

REAL = {
    "cacm": (3204, 64, 796),
    "cisi": (1460, 112, 3114),
    "cranfield": (1400, 225, 1837),
    "lisa": (5999, 35, 379),
    "noveleval": (420, 21, 420),
    "time": (423, 83, 321),
    "wikiqa-dev": (2708, 296, 2733),
}
"""Passages, queries and judgements in the files."""


def values(sql: str, *parameters: object) -> list:
    with duckdb.connect(
        str(Settings.from_environment().published_warehouse), read_only=True
    ) as connection:
        return [row[0] for row in connection.execute(sql, list(parameters)).fetchall()]


def notes() -> list[str]:
    """What a reader of the night is told of its collection."""
    with reading(Settings.from_environment().warehouse) as warehouse:
        said = remarks(warehouse, read_summary(warehouse, None, None))
    return [note for note in said if not note.startswith("top-10 results not judged")]


def arguana(folder: Path) -> str:
    """Queries that are passages; each one's counterargument is relevant. BEIR layout."""
    texts = {
        "a1": "School uniforms make mornings simpler for parents.",
        "a1-con": "School uniforms suppress the individuality of pupils.",
        "a2": "Zoos protect endangered animals from extinction.",
        "a2-con": "Zoos harm animals by keeping them captive.",
        "x1": "Bread rises because of yeast.",
    }
    folder.mkdir()
    write(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in texts.items()])
    asked = [{"_id": name, "text": texts[name] + " "} for name in ("a1", "a2")]
    # Numbers of queries are often numbers of passages, too, and mean nothing.
    write(folder / "queries.jsonl", [*asked, {"_id": "x1", "text": "animals from zoos"}])
    (folder / "qrels.txt").write_text("a1 0 a1-con 1\na1 0 a1 1\na2 0 a2-con 1\nx1 0 a2 1\n")
    return f"files:{folder}"


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("first_stage", ["bm25", "dense", "hybrid"])
def test_a_query_that_is_a_passage_does_not_find_itself(tmp_path: Path, first_stage: str) -> None:
    spec = arguana(tmp_path / "c")
    arms = ["bm25", "cosine"]
    # One passage is what is searched for: the query's own must not take its place.
    run_night(small_night(spec, first_stage=first_stage, depth=1, arms=arms))
    own = "SELECT query_id FROM rankings WHERE query_id = passage_id"
    assert "a1" not in values(own)
    assert "a2" not in values(own)
    assert values("SELECT DISTINCT count(*) FROM rankings GROUP BY arm_hash") == [3]
    if first_stage == "bm25":
        ndcg = "SELECT DISTINCT value FROM query_measures WHERE measure = 'nDCG@10'"
        assert values(f"{ndcg} AND query_id <> 'x1'") == [1.0]
    assert notes() == [
        "queries that are passages: each one's own is left out of its candidates and judgements "
        "(identical_ids=keep keeps it): 2 of 3 (a1 the first)"
    ]


def test_identical_ids_are_kept_or_dropped_where_the_spec_says_so(tmp_path: Path) -> None:
    spec = f"{arguana(tmp_path / 'c')}?name=c"
    own = "SELECT query_id FROM rankings WHERE query_id = passage_id ORDER BY query_id"
    run_night(small_night(f"{spec}&identical_ids=keep", arms=["bm25"]))
    assert values(own) == ["a1", "a2"]
    assert notes() == []
    (tmp_path / "c" / "corpus.jsonl").rename(tmp_path / "c" / "passages.jsonl")
    run_night(small_night(spec, arms=["bm25"], run_date="2026-02-01"))
    assert values(own + ", run_date") == ["a1", "a1", "a2", "a2"]
    run_night(small_night(f"{spec}&identical_ids=drop", arms=["bm25"], run_date="2026-02-02"))
    assert values(own + ", run_date") == ["a1", "a1", "a2", "a2"]
    assert "3 of 3 (a1 the first)" in notes()[0]


def test_a_given_run_leaves_the_query_out_and_says_what_is_beyond_the_depth(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = arguana(tmp_path / "c")
    lines = [f"a1 Q0 {p} 1 {9 - n} t\n" for n, p in enumerate(("a1", "x1", "a2", "a1-con"))]
    (tmp_path / "c" / "run.trec").write_text("".join(lines))
    night = small_night(f"{spec}?run=run.trec", first_stage="given", depth=2, arms=["bm25"])
    with caplog.at_level(logging.WARNING):
        run_night(night)
    assert values("SELECT passage_id FROM rankings ORDER BY rank") == ["x1", "a2"]
    assert "first stage's depth of 2, left out: 2, of 1 queries" in caplog.text
    assert "--set first-stages.given.depth=4 keeps them" in caplog.text


def test_counts_are_in_the_manifest_the_tables_and_what_is_printed(tmp_path: Path) -> None:
    passages = [
        {"_id": "p1", "text": "Fleas live on cats."},
        {"_id": "p2", "text": ""},
        {"_id": "p3", "text": "Fleas live on cats."},
    ]
    queries, qrels = {"q1": "fleas", "q2": " "}, [("q1", "p1", 1), ("q2", "p1", 1)]
    spec = write_collection(tmp_path / "c", passages=passages, queries=queries, qrels=qrels)
    night = small_night(spec, arms=["bm25", "cosine"])
    reference = run_night(night, until="report")["snapshot"]
    counts = Store(Settings.from_environment().root).open(reference).manifest.counts["odd"]
    assert {kind: (c["count"], c["of"], c["first"]) for kind, c in counts.items()} == {
        "empty_passages": (1, 3, "p2"),
        "repeated_texts": (1, 3, "p3"),
        "empty_queries": (1, 2, "q2"),
        "unknown_queries": (1, 2, "q2"),
    }
    assert notes() == [
        "passages without title and text, left out: 1 of 3 (p2 the first)",
        "queries without text, left out: 1 of 2 (q2 the first)",
        "passages with the text of another one, kept: 1 of 3 (p3 the first)",
        "judgements of queries that the collection does not have, passed over: 1 of 2 (q2 the "
        "first)",
    ]
    page = Settings.from_environment().reports / "c" / "2026-01-31.html"
    assert all(note in page.read_text(encoding="utf-8") for note in notes())
    with pytest.raises(CollectionError, match=r"queries.tsv, line 2: among queries without text"):
        take(f"{spec}?strict=true&name=c")


def take(spec: str) -> str:
    return take_snapshot(small_night(spec, arms=["bm25"]), Site.from_environment())


def test_judgements_of_other_passages_are_refused_before_anything_is_embedded(
    tmp_path: Path,
) -> None:
    spec = write_collection(tmp_path / "c", qrels=[("q-flea", "1", 1), ("q-thai", "2", 1)])
    with pytest.raises(CollectionError, match=r"none of the 2 judged passages .* name '1', say"):
        take(spec)
    assert not [*Store(Settings.from_environment().root).published("snapshots", "c")]


def test_strict_refuses_what_cannot_be_measured(tmp_path: Path) -> None:
    judged = [(f"q-{topic}", f"{topic}-1", 1) for topic in ("flea", "thai")]
    spec = write_collection(tmp_path / "c", qrels=judged) + "?strict=true"
    with pytest.raises(CollectionError, match=r"query q-\w+: among queries without judgements"):
        take(spec)
    spec = write_collection(tmp_path / "d", qrels=[*judged, ("q-flea", "gone", 1)])
    with pytest.raises(CollectionError, match="q-flea and gone: among those of passages that"):
        take(f"{spec}?strict=true")


CJK = {
    "zh1": "黄山归来不看岳，五岳归来不看山。",
    "zh2": "蛋白质结构预测方法获得诺贝尔化学奖。",
    "ja1": "東京は日本の首都であり、人口が最も多い都市です。",
    "th1": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "en1": "Cairo is the capital of Egypt.",
}
ASKED = {
    "q1": ("诺贝尔化学奖", "zh2"),
    "q2": ("日本の首都", "ja1"),
    "q3": ("เมืองหลวงของประเทศไทย", "th1"),
    "q4": ("capital of Egypt", "en1"),
}


def test_a_first_stage_that_finds_nothing_says_so_and_bigrams_find_it(tmp_path: Path) -> None:
    spec = write_collection(
        tmp_path / "c",
        passages=[{"_id": name, "text": text} for name, text in CJK.items()],
        queries={name: text for name, (text, _) in ASKED.items()},
        qrels=[(name, passage, 1) for name, (_, passage) in ASKED.items()],
    )
    arms = ["bm25", "cosine"]
    run_night(small_night(spec, arms=arms))
    assert notes() == [
        "queries for which the first stage bm25 found no passage (its analyzer is english): 2 of 4 "
        "(q1 the first)"
    ]
    english = values("SELECT DISTINCT arm_hash FROM runs")
    run_night(small_night(spec, arms=arms, bm25={"analyzer": "bigrams"}))
    bigrams = "SELECT arm_hash FROM runs WHERE config LIKE '%bigrams%'"
    assert not {*english} & {*values(bigrams)}
    assert values(
        f"SELECT DISTINCT value FROM measures WHERE measure = 'nDCG@10' AND arm_hash IN ({bigrams})"
    ) == [1.0]


def test_an_unknown_analyzer_is_refused_with_a_hint(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "c")
    with pytest.raises(ConfigError, match="Did you mean french"):
        small_night(spec, arms=["bm25"], bm25={"analyzer": "frensh"})
    file = small_arms().change(["first-stages.given.analyzer=french"])
    with pytest.raises(ConfigError, match="kind given reads no analyzer"):
        file.first_stage("given", of="test")


def test_passages_that_are_longer_than_the_embedder_reads_are_said(tmp_path: Path) -> None:
    passages = [
        {"_id": "long", "text": "flea " * 600},
        {"_id": "again", "text": "flea " * 600},
        {"_id": "short", "text": "flea"},
    ]
    spec = write_collection(tmp_path / "c", passages=passages, qrels=[("q-flea", "short", 1)])
    run_night(small_night(spec, arms=["bm25", "cosine"]))
    sentence = next(note for note in notes() if "longer" in note)
    assert sentence.startswith("cosine: passages longer than the ")
    assert sentence.endswith("(split them into passages): 2 of 3")
    # What is known of a text comes with its vector, where that is reused.
    (tmp_path / "c" / "passages.jsonl").open("a").write('{"_id": "new", "text": "new"}\n')
    run_night(small_night(spec, arms=["bm25", "cosine"], run_date="2026-02-01"))
    assert any(note.endswith("2 of 4") for note in notes())


def test_names_in_notes_are_no_markup(tmp_path: Path) -> None:
    passages = [{"_id": "[/red]", "text": ""}, {"_id": "p1", "text": "flea"}]
    spec = write_collection(tmp_path / "c", passages=passages, qrels=[("q-flea", "p1", 1)])
    run_night(small_night(spec, arms=["bm25"]))
    assert "left out: 1 of 2 ([/red] the first)" in perank("report").stdout


@pytest.mark.skipif(
    "PERANK_TREC_DATA" not in os.environ, reason="PERANK_TREC_DATA names no folder of TREC data"
)
@pytest.mark.parametrize("name", REAL)
def test_a_night_over_every_collection_of_the_field(name: str) -> None:
    folder = Path(os.environ["PERANK_TREC_DATA"]) / "collections" / name
    if not folder.is_dir():
        pytest.skip(f"PERANK_TREC_DATA has no {folder}")
    reference = run_night(small_night(f"files:{folder}", arms=["bm25"]))["snapshot"]
    counts = Store(Settings.from_environment().root).open(reference).manifest.counts
    left_out = {kind: c["count"] for kind, c in counts["odd"].items()}
    passages, queries, judgements = REAL[name]
    assert counts["passages"] + left_out.get("empty_passages", 0) == passages
    assert counts["queries"] == queries
    assert counts["judgements"] == judgements
    assert len(notes()) >= len(left_out)
    (ndcg,) = values("SELECT value FROM measures WHERE measure = 'nDCG@10'")
    print(f"{name}: bm25 {ndcg:.4f}", *notes(), sep="\n  ")
    assert 0.2 < ndcg < 1
