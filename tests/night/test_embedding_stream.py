"""Embedding and joining in small blocks: the same rows as at once, nothing embedded twice."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perank_tasks.artifacts.store import Store
from perank_tasks.models import embedders
from perank_tasks.night import embed, rerank
from perank_tasks.night.embed import read_vectors
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.perank.embedders import load
from perank_tasks.settings import Settings
from perank_tasks.support import progress
from tests.small import GOLDEN, run_night, small_night, some_passages, write_collection

TEXTS = [passage["text"] for passage in some_passages()]


def store() -> Store:
    return Store(Settings.from_environment().root)


def collection(folder: Path, texts: list[str]) -> str:
    passages = [{"_id": f"p{i}", "text": text} for i, text in enumerate(texts)]
    return write_collection(folder, passages=passages, qrels=[])


def embedded(night: Any) -> Any:
    (reference,) = run_night(night, until="embed")["embed"].values()
    return store().open(reference)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "TEXTS_A_CALL", 3)
    monkeypatch.setattr(embed, "ROWS_A_BLOCK", 5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shards", [1, 3])
def test_blocks_keep_order_and_embed_a_text_once(tmp_path: Path, shards: int) -> None:
    texts = random.Random(1).choices(TEXTS[:20], k=60)
    night = small_night(collection(tmp_path / "c", texts), arms=["cosine"], shards=shards)
    site = Site.from_environment()
    work = embed.plan_embedding(night, site, take_snapshot(night, site))
    artifact = embedded(night)
    rows = artifact.read("passages")
    assert rows["id"].to_pylist() == [f"p{i}" for i in range(60)]
    parts = [texts[slice(*piece["rows"])] for piece in work]
    queries = 5
    assert artifact.manifest.counts["embedded"] == sum(len(set(p)) for p in parts) + queries

    (embedding,) = night.embeddings.values()
    embedder = load(embedding.name, Settings.from_environment())
    rows, vectors = read_vectors(artifact, "passages", {"p0", "p31", "p59"})
    for name, row in rows.items():
        (alone,) = embedder.encode([texts[int(name[1:])]])
        assert np.abs(vectors[row] - alone).max() < 1e-5


@pytest.mark.usefixtures("small_blocks")
def test_vectors_are_taken_over_wherever_their_text_has_gone(tmp_path: Path) -> None:
    earlier = embedded(small_night(collection(tmp_path / "c", TEXTS), arms=["cosine"], shards=2))
    of_text = dict(zip(TEXTS, earlier.read("passages")["embedding"].to_pylist(), strict=True))
    moved = [*TEXTS[1:], "A new text.", TEXTS[3], "Another new text.", "A new text."]
    random.Random(2).shuffle(moved)
    night = small_night(
        collection(tmp_path / "c", moved), arms=["cosine"], shards=1, run_date="2026-02-01"
    )
    artifact = embedded(night)
    assert artifact.manifest.counts["embedded"] == 2
    rows = artifact.read("passages")["embedding"].to_pylist()
    for text, vector in zip(moved, rows, strict=True):
        assert "new" in text or vector == of_text[text]
    new = [vector for text, vector in zip(moved, rows, strict=True) if text == "A new text."]
    assert new[0] == new[1]


def test_the_rows_of_a_large_shard_are_in_groups(tmp_path: Path) -> None:
    texts = [f"Passage number {i} is on rice." for i in range(2500)]
    night = small_night(collection(tmp_path / "c", texts), arms=["cosine"], shards=1)
    (fragment,) = embedded(night).dataset("passages").get_fragments()
    assert [group.num_rows for group in fragment.row_groups] == [2048, 452]


def test_joins_of_few_candidates_rank_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = {f"q{i}": TEXTS[i % len(TEXTS)] for i in range(70)}
    spec = write_collection(tmp_path / "c", queries=queries, qrels=[])
    rankings = []
    for home, candidates in (("one", 100_000), ("two", 1)):
        monkeypatch.setenv("PERANK_HOME", str(tmp_path / home))
        monkeypatch.setattr(rerank, "CANDIDATES_A_JOIN", candidates)
        night = small_night(spec, passages="both", shards=1, depth=6)
        done = run_night(night, until="rerank")["rerank"]
        rankings.append([store().open(r).read("rankings").to_pylist() for r in done.values()])
    assert rankings[0] == rankings[1]


def test_a_part_that_failed_half_way_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "TEXTS_A_CALL", 3)
    night = small_night(collection(tmp_path / "c", TEXTS), arms=["cosine"], shards=1)
    site = Site.from_environment()
    snapshot = take_snapshot(night, site)
    (work,) = embed.plan_embedding(night, site, snapshot)
    calls = iter(range(3))

    def failing(*args: Any) -> None:
        if next(calls) == 2:
            raise MemoryError

    monkeypatch.setattr(embed, "check_unit_vectors", failing)
    with pytest.raises(MemoryError):
        embed.embed_shard(night, site, snapshot, work)
    assert not list(store().root.glob("embeddings/*/*/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's batches are others")
def test_embedding_is_counted_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    monkeypatch.setattr(
        progress, "relay", lambda what, unit, more, done_: done.append((what, done_))
    )
    monkeypatch.setattr(embedders, "TOKENS_ON_CPU", 300)
    texts = [f"{text} Number {n}." for n in range(3) for text in TEXTS[:20]]
    night = small_night(collection(tmp_path / "c", texts), arms=["cosine"], shards=1)
    embedded(night)
    counts = [count for what, count in done if what == "embedding passages" and count]
    assert sorted(counts) == sorted([4, 4, 4, 4, 4, 4, 5, 5, 2, 7, 7, 7, 3])
    assert sum(counts) == 60


def test_batches_hold_each_text_once_and_no_more_tokens_than_they_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedders, "TOKENS_ON_GPU", 2048)

    def tokenizer(texts: list[str], **_: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [text.split() for text in texts]}

    counts = np.random.default_rng(3).integers(1, 900, 400)
    texts = ["word " * count for count in counts]
    for device, most, padding in (("cpu", embedders.TOKENS_ON_CPU, 1), ("cuda", 2048, 1.1)):
        batches = list(embedders.in_batches(texts, tokenizer, 512, device))
        assert sorted(np.concatenate(batches).tolist()) == list(range(400))
        padded = [len(batch) * min(counts[batch].max(), 512) for batch in batches]
        assert max(padded) <= most
        assert sum(padded) <= padding * np.minimum(counts, 512).sum()
    uncut = embedders.in_batches(["a b", "word " * 2000, "a b c"], tokenizer, None, "cuda")
    assert [batch.tolist() for batch in uncut] == [[1], [2, 0]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU pads")
@pytest.mark.parametrize("name", ["bge-small-en-v1.5?prompts=own", f"checkpoint:{GOLDEN}"])
@pytest.mark.parametrize("queries", [False, True])
def test_no_bit_of_a_vector_depends_on_the_texts_beside_it(name: str, queries: bool) -> None:
    embedder = load(name, Settings.from_environment())
    texts = [*TEXTS, *(" ".join(TEXTS[:n]) for n in (2, 5, 30)), "Rice", ""]
    counts: list[int] = []
    together = embedder.encode(texts, queries=queries, advance=counts.append)
    assert sum(counts) == len(texts)
    alone = np.concatenate([embedder.encode([text], queries=queries) for text in texts])
    assert np.array_equal(together, alone)
    assert embedder.encode([]).shape == (0, embedder.dimension)


def test_shards_have_as_much_text_each(tmp_path: Path) -> None:
    texts = [f"Short text {i}." for i in range(900)] + [f"Long text {i}. " * 9 for i in range(100)]
    night = small_night(collection(tmp_path / "c", texts), arms=["cosine"], shards=3)
    site = Site.from_environment()
    work = embed.plan_embedding(night, site, take_snapshot(night, site))
    starts, ends = zip(*(piece["rows"] for piece in work), strict=True)
    assert [*starts, len(texts)] == [0, *ends]
    sizes = [sum(map(len, texts[start:end])) for start, end in zip(starts, ends, strict=True)]
    assert max(sizes) < 1.1 * min(sizes) < 1.1 * sum(map(len, texts)) / 3


def test_the_first_shard_does_the_queries_and_what_is_missing_is_done_again(tmp_path: Path) -> None:
    night = small_night(collection(tmp_path / "c", TEXTS), arms=["cosine"], shards=2)
    site = Site.from_environment()
    snapshot = take_snapshot(night, site)
    first, second = embed.plan_embedding(night, site, snapshot)
    done = embed.embed_shard(night, site, snapshot, second)
    assert done["passages"]["embedded"] == len(set(TEXTS[slice(*second["rows"])]))
    folder = store().root / "embeddings"
    assert not list(folder.rglob("queries-*"))
    assert embed.embed_shard(night, site, snapshot, first).keys() == {"passages", "queries"}
    (queries,) = folder.rglob("queries-*.parquet")
    queries.unlink()
    again = embed.embed_shard(night, site, snapshot, first)
    assert again.keys() == {"queries"}
    assert embed.embed_shard(night, site, snapshot, first) == {}
    (reference,) = embed.publish_embeddings(night, site, snapshot).values()
    assert store().open(reference).read("queries").num_rows == again["queries"]["embedded"] > 0
