"""Collections of ir_datasets, by datasets on this machine that are registered with the library."""

import uuid
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import BaseDocs, TrecScoredDocs
from ir_datasets.util import LocalDownload

from perank_tasks.collections.records import CollectionData, RunLine
from perank_tasks.collections.spec import open_collection, with_run
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.support.text import REPLACEMENT
from tests.small import run_night, small_night, some_passages, some_qrels, some_queries

TODAY = date(2025, 1, 31)


@pytest.fixture(autouse=True)
def library_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty IR_DATASETS_HOME, and no way to the network."""
    home = tmp_path / "ir_datasets"
    monkeypatch.setenv("IR_DATASETS_HOME", str(home))
    monkeypatch.setenv("IR_DATASETS_DL_TRIES", "1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return home


def write(folder: Path, run: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    docs = "".join(f"{row['_id']}\t{row['text']}\n" for row in some_passages())
    (folder / "docs.tsv").write_text(docs)
    (folder / "queries.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in some_queries().items()))
    (folder / "qrels.txt").write_text("".join(f"{q} 0 {p} {g}\n" for q, p, g in some_qrels()))
    (folder / "run.txt").write_text(run)
    return folder


@pytest.fixture
def register(tmp_path: Path) -> Callable[..., str]:
    """Register a dataset and return its id."""

    def add(*more: object, **files: Path) -> str:
        folder = write(tmp_path / "local")
        given = {
            "docs_tsv": folder / "docs.tsv",
            "queries_tsv": folder / "queries.tsv",
            "qrels_trec": folder / "qrels.txt",
        }
        dataset = ir_datasets.create_dataset(**(files or given))
        name = f"local-{uuid.uuid4().hex[:8]}/topics/test"
        ir_datasets.registry.register(name, Dataset(*more, dataset))
        return name

    return add


def loaded(spec: str) -> tuple[CollectionData, list]:
    data = open_collection(spec).load(TODAY)
    return data, list(data.passages)


def test_a_registered_dataset_is_read(register: Callable[..., str]) -> None:
    name = register()
    data, passages = loaded(f"ir_datasets:{name}")
    assert data.name == name.replace("/", "-")
    assert data.snapshot_date is None
    assert data.relevance_level == 1
    assert [(p.passage_id, p.text) for p in passages] == [
        (row["_id"], row["text"]) for row in some_passages()
    ]
    assert {q.query_id: q.text for q in data.queries} == some_queries()
    assert [(j.query_id, j.passage_id, j.relevance) for j in data.judgements] == some_qrels()
    assert data.run == []
    data, _ = loaded(f"ir_datasets:{name}?name=mine&relevance_level=2")
    assert (data.name, data.relevance_level) == ("mine", 2)


def test_scoreddocs_or_a_file_stand_in_for_the_first_stage(
    register: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "q-flea Q0 flea-2 1 3.5 t\nq-flea Q0 flea-1 2 2.5 t\n"
    run = tmp_path / "run.trec"
    run.write_text(lines)
    name = register(TrecScoredDocs(LocalDownload(run)))
    expected = [RunLine("q-flea", "flea-2", 3.5), RunLine("q-flea", "flea-1", 2.5)]
    spec = f"ir_datasets:{name}?run=scoreddocs"
    assert loaded(spec)[0].run == expected
    assert open_collection(spec).run == "scoreddocs"
    assert loaded(f"ir_datasets:{name}")[0].run == []
    assert loaded(with_run(f"ir_datasets:{name}", run))[0].run == expected
    assert not caplog.records
    run.write_text("q-flea Q0 flea-2 0 0 t\nq-flea Q0 flea-1 0 0 t\n")
    assert len(loaded(spec)[0].run) == 2
    assert "scoreddocs have no order" in caplog.text


class _Doc(NamedTuple):
    doc_id: str
    text: str
    title: str
    url: str

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class _Body(NamedTuple):
    doc_id: str
    headline: str
    body: str

    def default_text(self) -> str:
        return f"{self.headline} {self.body}"


class _Docs(BaseDocs):
    def __init__(self, docs: list[Any]):
        self.docs = docs

    def docs_iter(self) -> Any:
        return iter(self.docs)

    def docs_cls(self) -> type:
        return type(self.docs[0])


def test_titles_default_texts_and_empty_documents(register: Callable[..., str]) -> None:
    name = register(_Docs([_Doc("a", "A text\0.", "Title", "u"), _Doc("b", " ", "", "u")]))
    data, (passage,) = loaded(f"ir_datasets:{name}")
    assert (passage.title, passage.text) == ("Title", f"A text{REPLACEMENT}.")
    assert data.odd.counts()["empty_passages"] == {"count": 1, "of": 2, "first": "b"}
    name = register(_Docs([_Body("a", "News", "A cat.")]))
    _, (passage,) = loaded(f"ir_datasets:{name}")
    assert (passage.title, passage.text) == (None, "News A cat.")
    name = register(_Docs([_Body("a b", "News", "A cat.")]))
    with pytest.raises(CollectionError, match=r"without white space.*'a b'"):
        loaded(f"ir_datasets:{name}")


@pytest.mark.parametrize(
    ("dataset_id", "level"),
    [
        ("msmarco-passage/trec-dl-2019/judged", 2),
        ("msmarco-passage/trec-dl-2020/judged", 2),
        ("beir/scifact/test", 1),
        ("msmarco-passage/dev/small", 1),
    ],
)
def test_public_datasets_are_known_with_their_level(dataset_id: str, level: int) -> None:
    from perank_tasks.collections.ir_datasets import _level

    collection = open_collection(f"ir_datasets:{dataset_id}")
    collection.check(TODAY)
    assert collection.name == dataset_id.replace("/", "-")
    assert _level(ir_datasets.load(dataset_id)) == level


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("beir/scifct/test", "knows no dataset 'beir/scifct/test'.*beir/scifact/test"),
        ("beir/scifact/test?run=scoreddocs", "has no scoreddocs"),
        ("beir/scifact/test?run=/absent.trec", "no such file"),
    ],
)
def test_what_the_library_does_not_have_is_said(spec: str, words: str) -> None:
    collection = open_collection(f"ir_datasets:{spec}")
    with pytest.raises(CollectionError, match=words):
        collection.check(TODAY)


@pytest.mark.parametrize(
    "spec", ["ir_datasets:", "ir_datasets:x?name=a b", "ir_datasets:x?qrels=y"]
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        open_collection(spec)


def test_files_that_cannot_be_fetched_are_said_with_a_way_out(library_home: Path) -> None:
    collection = open_collection("ir_datasets:beir/scifact/test")
    with pytest.raises(CollectionError) as raised:
        collection.load(TODAY)
    said = str(raised.value)
    assert "its queries cannot be read" in said
    assert "ir_datasets export beir/scifact/test" in said
    assert "IR_DATASETS_HOME" in said


def test_a_file_that_is_gone_is_said(register: Callable[..., str], tmp_path: Path) -> None:
    name = register()
    (tmp_path / "local" / "docs.tsv").unlink()
    with pytest.raises(CollectionError, match=r"its passages cannot be read.*docs\.tsv"):
        loaded(f"ir_datasets:{name}")


def test_a_night_over_a_dataset(register: Callable[..., str], tmp_path: Path) -> None:
    run = tmp_path / "run.trec"
    run.write_text("".join(f"{q} Q0 {p} 1 1.5 t\n" for q, p, _ in some_qrels()))
    name = register(TrecScoredDocs(LocalDownload(run)))
    night = small_night(f"ir_datasets:{name}", arms=["bm25", "cosine"])
    assert run_night(night)["load"]["runs"] == 2
    given = small_night(f"ir_datasets:{name}?run=scoreddocs", arms=["bm25"], first_stage="given")
    assert run_night(given, until="evaluate")["evaluate"]
    with pytest.raises(ConfigError, match="brings no run"):
        small_night(f"ir_datasets:{name}", arms=["bm25"], first_stage="given")
