"""Dense and hybrid first stages against plain loops; what vectors can be put through."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError
from perank_tasks.models.vectors import Transform
from perank_tasks.night import dense, index
from perank_tasks.night.embed import read_vectors
from perank_tasks.night.retrieve import read_candidates
from perank_tasks.settings import Settings
from tests.small import run_night, small_night, some_passages, some_queries, write_collection


def candidates(spec: str, **options: Any) -> dict[str, list[tuple[str, float]]]:
    night = small_night(spec, **{"arms": ["bm25"], "depth": 12, **options})
    (reference,) = run_night(night, until="retrieve")["retrieve"].values()
    return read_candidates(Store(Settings.from_environment().root).open(reference))


def by_id(rows: dict[str, int], vectors: np.ndarray) -> dict[str, np.ndarray]:
    return {name: vectors[row] for name, row in rows.items()}


def plain_dense(spec: str, transform: Transform | None = None) -> dict[str, list[str]]:
    """All passages of each query by cosine, one dot product at a time."""
    night = small_night(spec, arms=["cosine"])
    (reference,) = run_night(night, until="embed")["embed"].values()
    artifact = Store(Settings.from_environment().root).open(reference)
    ids = [passage["_id"] for passage in some_passages()]
    vectors = by_id(*read_vectors(artifact, "passages", set(ids)))
    if transform:
        vectors = {i: transform.apply([i], v[None])[0] for i, v in vectors.items()}
    queries = by_id(*read_vectors(artifact, "queries", set(some_queries())))
    return {
        q: sorted(ids, key=lambda p: -round(float(np.dot(vectors[p], queries[q])), 6))
        for q in queries
    }


@pytest.mark.parametrize("block", [5, 16_384])
@pytest.mark.parametrize("shards", [1, 3])
def test_dense_search_is_the_plain_one_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, shards: int
) -> None:
    monkeypatch.setattr(dense, "ROWS_A_BLOCK", block)
    monkeypatch.setattr(dense, "QUERIES_A_BLOCK", 2)
    spec = write_collection(tmp_path / "c")
    found = candidates(spec, first_stage="dense", shards=shards)
    expected = plain_dense(spec)
    assert {q: [p for p, _ in ranked] for q, ranked in found.items()} == {
        q: order[:12] for q, order in expected.items()
    }
    assert all(s == sorted(s, reverse=True) for s in ([s for _, s in r] for r in found.values()))


def test_equal_vectors_go_to_the_earlier_passage_also_where_the_list_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "ROWS_A_BLOCK", 4)
    passages = [{"_id": f"p{i:02}", "text": "the same words"} for i in range(30)]
    qrels = [("q-flea", "p00", 1)]
    spec = write_collection(tmp_path / "c", passages=passages, qrels=qrels)
    found = candidates(spec, first_stage="dense", depth=5)
    assert all(
        [p for p, _ in ranked] == [f"p{i:02}" for i in range(5)] for ranked in found.values()
    )


def test_hybrid_is_the_fusion_of_both_by_reciprocal_ranks(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "c")
    lexical, similar = candidates(spec), plain_dense(spec)
    found = candidates(spec, first_stage="hybrid", rrf_k=10)
    moved = 0
    for query, ranked in found.items():
        lists = [[p for p, _ in lexical[query]], similar[query][:12]]
        scores = {
            p: sum(1 / (10 + ids.index(p) + 1) for ids in lists if p in ids)
            for p in dict.fromkeys(lists[0] + lists[1])
        }
        expected = sorted(scores, key=lambda p: -scores[p])[:12]
        assert [p for p, _ in ranked] == expected
        assert dict(ranked) == pytest.approx({p: scores[p] for p in expected})
        moved += expected not in lists
    assert moved  # or fusing would not have been tested


def test_hybrid_over_an_index_in_shards_is_hybrid_over_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_collection(tmp_path / "c")
    whole = candidates(spec, first_stage="hybrid")
    monkeypatch.setattr(index, "PASSAGES_A_SHARD", 9)
    monkeypatch.setenv("PERANK_HOME", str(tmp_path / "sharded"))
    assert candidates(spec, first_stage="hybrid") == whole


def test_a_dense_night_ranks_and_its_first_stage_names_the_embedder(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "c")
    night = small_night(spec, first_stage="dense", arms=["bm25", "cosine", "perank"])
    run_night(night, until="load")
    first, cosine, _ = night.arms
    settings = first.settings()
    assert settings["first_stage.kind"] == "dense"
    assert settings["first_stage.embedder"].startswith("checkpoint:")
    assert settings["first_stage.embedder_hash"] == cosine.settings()["embedder_hash"]
    assert first.hash != small_night(spec, arms=["bm25"]).arms[0].hash
    other = small_night(spec, first_stage="dense", embedding={"transform": "int8"})
    assert other.arms[0].settings() == settings | {"first_stage.transform": "int8"}
    assert other.arms[1].hash != cosine.hash


def test_what_is_searched_is_what_the_vectors_were_put_through(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "c")
    found = candidates(spec, first_stage="dense", embedding={"transform": "dims:4+binary"})
    plain = plain_dense(spec, Transform.parse("dims:4+binary"))
    assert {q: [p for p, _ in ranked] for q, ranked in found.items()} == {
        q: order[:12] for q, order in plain.items()
    }
    assert plain != plain_dense(spec)


RANDOM = np.random.default_rng(1)
VECTORS = RANDOM.standard_normal((50, 32)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
IDS = [f"p{i}" for i in range(50)]


@pytest.mark.parametrize(
    ("text", "bits", "least", "most"),
    [
        ("float16", 512, 0.99999, 1.0),
        ("int8", 288, 0.999, 0.99999),
        ("dims:16", 512, 0.4, 0.95),
        ("binary", 32, 0.6, 0.95),
        ("dims:8+int8", 96, 0.2, 0.9),
        ("noise:0.5", 1024, 0.85, 0.95),
    ],
)
def test_transforms_keep_width_and_length_and_what_their_bits_allow(
    text: str, bits: int, least: float, most: float
) -> None:
    transform = Transform.parse(text)
    made = transform.apply(IDS, VECTORS)
    assert made.shape == VECTORS.shape
    assert np.linalg.norm(made, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert least <= float((made * VECTORS).sum(axis=1).mean()) <= most
    assert transform.bits(32) == bits


def test_a_transform_of_one_vector_depends_on_no_other() -> None:
    transform = Transform.parse("dims:20+noise:1:7+int8")
    alone = np.concatenate(
        [transform.apply([i], v[None]) for i, v in zip(IDS, VECTORS, strict=True)]
    )
    together = transform.apply(IDS, VECTORS)
    assert np.allclose(alone, together, atol=1e-6)
    assert (together[:, 20:] == 0).all()
    other = Transform.parse("dims:20+noise:1:8+int8").apply(IDS, VECTORS)
    assert not np.allclose(other, together, atol=1e-2)


def test_the_length_of_noise_is_what_it_says() -> None:
    cosines = (Transform.parse("noise:1").apply(IDS, VECTORS) * VECTORS).sum(axis=1)
    assert float(cosines.mean()) == pytest.approx(1 / np.sqrt(2), abs=0.05)


@pytest.mark.parametrize("text", ["dims", "dims:0", "dims:1.5", "int9", "noise:x", "int8+int8", ""])
def test_malformed_transforms_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="transform"):
        Transform.parse(text)


def rankings(spec: str, **options: Any) -> dict[str, list[str]]:
    night = small_night(spec, **{"arms": ["perank"], "window": 6, "step": 3, **options})
    (reference,) = run_night(night, until="rerank")["rerank"].values()
    table = Store(Settings.from_environment().root).open(reference).read("rankings")
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["query_id"], []).append(row["passage_id"])
    return found


def test_averaging_over_orders_is_the_mean_rank_of_rankings_from_each(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "c")
    given = candidates(spec)
    turns = [rankings(spec, depth=12)] + [
        rankings(spec, depth=12, initial_order="random", order_seed=seed) for seed in (1, 2)
    ]
    averaged = rankings(spec, depth=12, orders=3)
    assert turns[0] != turns[1] != turns[2]
    for query, ranked in averaged.items():
        first_stage = [p for p, _ in given[query]]
        total = {p: sum(turn[query].index(p) for turn in turns) for p in first_stage}
        assert ranked == sorted(first_stage, key=lambda p: total[p])
    assert averaged != turns[0]


def test_an_oracle_begins_with_what_was_judged_best(tmp_path: Path) -> None:
    """By giving the same order as a run: there the engine starts from it, too."""
    qrels = [("q-flea", "flea-6", 3), ("q-flea", "flea-2", 1), ("q-thai", "thai-7", 2)]
    spec = write_collection(tmp_path / "c", qrels=qrels)
    first = candidates(spec, depth=40)
    grades = {(q, p): g for q, p, g in qrels}
    run = [
        (q, p, -float(rank))
        for q, ranked in first.items()
        for rank, p in enumerate(
            sorted([p for p, _ in ranked], key=lambda p: -grades.get((q, p), 0))
        )
    ]
    given = write_collection(tmp_path / "given", qrels=qrels, run=run)
    oracle = rankings(spec, initial_order="oracle", depth=40)
    assert oracle == rankings(given, first_stage="given", depth=40)
    assert oracle != rankings(spec, depth=40)
