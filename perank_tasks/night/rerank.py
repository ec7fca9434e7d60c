"""Rerank: the candidates of every query, ordered by every arm of the night.

In: candidates, embeddings, the snapshot's queries and, for an arm that reads them, its texts.
Out, for each arm: the artifact `rankings/<collection>/<key>` with the tables `rankings` (a
permutation of each query's candidates) and `queries` (what ranking each query took, or why it
could not be ranked).

Embeddings are joined by id from the embedding artifact and never made here. A query that
cannot be ranked keeps its first-stage order and says why; the others are ranked.
Rankings belong to one date and fingerprint: they are computed anew every night.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.collections.records import RunLine
from perank_tasks.collections.trec import write_run
from perank_tasks.config import Arm, Night
from perank_tasks.errors import EmbeddingError
from perank_tasks.models.vectors import Transform
from perank_tasks.night.embed import read_vectors
from perank_tasks.night.retrieve import query_shard, read_candidates
from perank_tasks.night.snapshot import read_texts
from perank_tasks.rankers import baselines
from perank_tasks.schemas import QUERY_STATUS, RANKINGS, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.support.meter import WORK, Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.warehouse.registry import local

if TYPE_CHECKING:
    from perank_tasks.perank import RankingOptions, RerankResult

log = logging.getLogger(__name__)

QUERIES_A_CALL = 64
"""Queries that are ranked together."""

CANDIDATES_A_JOIN = 100_000
"""Different passages whose vectors or texts are in memory at once, 154 MB of 384 values each. A
join reads the row groups that hold any of them: joins of fewer would read the same ones again."""


class RerankShard(TypedDict):
    """One piece of work: a shard of the queries for one arm."""

    arm: str  # Arm.hash
    shard: int


def plan_reranking(night: Night, candidates: str) -> list[RerankShard]:
    """The pieces of work for `rerank_shard`: every arm by every shard."""
    shards = range(night.options.shards)
    return [RerankShard(arm=arm.hash, shard=shard) for arm in night.arms for shard in shards]


def rerank_shard(
    night: Night, candidates: str, embeddings: dict[str, str], work: RerankShard
) -> dict[str, int]:
    """Rank one shard's queries by one arm; returns how many queries, and how many unranked."""
    store = Store(Settings.from_environment().root)
    arm = night.arm(work["arm"])
    artifact = _artifact(store, night, arm, candidates, embeddings)
    if artifact.is_published or artifact.has_part("queries", work["shard"]):
        return {"queries": 0, "unranked": 0}

    meter = Meter()
    first_stage = store.open(candidates)
    found = read_candidates(first_stage, work["shard"])
    snapshot = first_stage.manifest.inputs["snapshot"]
    queries = query_shard(night, snapshot, work["shard"])
    vectors = store.open(embeddings[arm.embedder]) if arm.embedder else None
    transform = Transform.parse(arm.transform) if arm.transform else None
    oracle = arm.ranking is not None and arm.ranking.initial_order == "oracle"
    grades = _grades(store.open(snapshot)) if oracle else None
    texts = store.open(snapshot) if arm.ranking and arm.ranking.passages != "embeddings" else None
    begin = time.perf_counter()
    ranker = _ranker(arm, store)
    # With what is imported for it, which the process's first model pays for all.
    load_seconds = time.perf_counter() - begin
    if vectors is not None:
        ranker.check_width(vectors)
    meter.device = ranker.device
    results: list[Ranked] = []
    with progress(f"ranking by {arm.name}", len(queries), "queries") as advance:
        for part in _parts(queries, found):
            inputs = replace(_join(part, found, vectors, texts, transform), grades=grades)
            for start in range(0, len(part), QUERIES_A_CALL):
                tasks = _tasks(part[start : start + QUERIES_A_CALL], found, inputs)
                results += [_without_inputs(r) for r in ranker.rank(tasks, advance)]
    meter.items = len(results)
    meter.tokens_in = sum(r.tokens_in for r in results)
    meter.decode_steps = sum(r.decode_steps for r in results)
    meter.numbers_repaired = sum(r.numbers_missing + r.numbers_repeated for r in results)
    meter.work |= ranker.work() | {"load_seconds": load_seconds}

    artifact.write_part("rankings", _rankings_table(results), RANKINGS, shard=work["shard"])
    # Written last: its presence says that the shard is done.
    artifact.write_part(
        "queries",
        _status_table(results),
        QUERY_STATUS,
        shard=work["shard"],
        stats=lambda: {**meter.stats(), "model": ranker.description()},
    )
    unranked = [r for r in results if r.unranked_reason]
    for r in unranked:
        log.warning("query %s keeps its first-stage order: %s", r.task.query_id, r.unranked_reason)
    return {"queries": len(results), "unranked": len(unranked)}


def publish_rankings(night: Night, candidates: str, embeddings: dict[str, str]) -> dict[str, str]:
    """Publish each arm's rankings once its shards are written: {arm hash: reference}."""
    store = Store(Settings.from_environment().root)
    references = {}
    for arm in night.arms:
        artifact = _artifact(store, night, arm, candidates, embeddings)
        if not artifact.is_published:
            shards = range(night.options.shards)
            stats = [artifact.part_stats("queries", shard) for shard in shards]
            artifact.publish(
                expected={"rankings": len(shards), "queries": len(shards)},
                inputs={"candidates": candidates, **_embeddings_of(arm, embeddings)},
                config=arm.model_dump(mode="json"),
                counts={"stats": total(stats), "model": stats[0]["model"]},
                provenance=night.fingerprint,
            )
        references[arm.hash] = artifact.reference
    return references


def write_runs(night: Night, rankings: dict[str, str], path: Path) -> dict[Path, int]:
    """Write each arm's ranking as a TREC run; returns the number of queries in each file.

    Args:
        night: the night they belong to.
        rankings: what `publish_rankings` returned.
        path: the file; with several arms, `path` and the arm's name after a full stop.

    Raises:
        StorageError: a file cannot be written.
        CollectionError: an identifier holds white space, which the format cannot carry.
    """
    store = Store(Settings.from_environment().root)
    written = {}
    for arm_hash, reference in rankings.items():
        arm = night.arm(arm_hash)
        columns = ("query_id", "passage_id", "score")
        table = store.open(reference).read("rankings", list(columns))
        lines = [
            RunLine(*row) for row in zip(*(table[c].to_pylist() for c in columns), strict=True)
        ]
        file = path if len(rankings) == 1 else path.with_name(f"{path.name}.{arm.name}")
        write_run(file, lines, f"perank-{arm.name}-{arm.hash}")
        written[file] = len({line.query_id for line in lines})
    return written


@dataclass(frozen=True)
class QueryTask:
    """One query with what a ranker needs; `problem` says why it cannot be ranked."""

    query_id: str
    text: str
    passage_ids: list[str]
    scores: np.ndarray  # (n,) first-stage
    embeddings: np.ndarray | None = None  # (n, d)
    query_embedding: np.ndarray | None = None  # (d,)
    texts: list[str] | None = None  # n
    grades: list[int] | None = None  # n, judged; 0 where nobody judged
    problem: str | None = None


@dataclass(frozen=True)
class Ranked:
    """A query's ranking: `order` is a permutation of its candidates' positions."""

    task: QueryTask
    order: list[int]
    scores: list[float]
    unranked_reason: str | None = None
    query_was_cut: bool = False
    markers_defused: int = 0
    windows: int = 0
    tokens_in: int = 0
    decode_steps: int = 0
    numbers_missing: int = 0
    numbers_repeated: int = 0


class _BaselineRanker:
    """bm25, cosine and fusion."""

    device = "cpu"

    def __init__(self, arm: Arm):
        self.arm = arm

    def check_width(self, vectors: Artifact) -> None:
        """Any width will do."""

    def work(self) -> dict[str, float]:
        """No LLM, no work of one."""
        return {}

    def description(self) -> dict[str, Any]:
        """No model."""
        return {}

    def rank(self, tasks: list[QueryTask], advance: Callable[[int], None]) -> Iterator[Ranked]:
        for task in tasks:
            yield self._rank(task)
            advance(1)

    def _rank(self, task: QueryTask) -> Ranked:
        if self.arm.name == "bm25":
            scores = baselines.first_stage(task.scores)
        elif task.problem:
            return _unranked(task, task.problem)
        else:
            assert task.embeddings is not None
            assert task.query_embedding is not None
            if self.arm.name == "cosine":
                scores = baselines.cosine(task.query_embedding, task.embeddings)
            else:
                assert self.arm.fusion_weight is not None
                scores = baselines.fusion(
                    task.scores, task.query_embedding, task.embeddings, self.arm.fusion_weight
                )
        if not np.isfinite(scores).all():
            return _unranked(task, "its scores are not finite: embeddings or scores hold NaN")
        order = np.argsort(-scores, kind="stable")
        return Ranked(task, order.tolist(), scores[order].astype(float).tolist())


class _PERankRanker:
    """The paper's method."""

    def __init__(self, arm: Arm, checkpoint: str):
        import torch

        from perank_tasks.perank import PERank

        settings = Settings.from_environment()
        torch.set_num_threads(settings.threads)
        self.arm = arm
        self.model = PERank.from_pretrained(checkpoint, cache=settings.cache)
        self.device = str(self.model.device)

    def check_width(self, vectors: Artifact) -> None:
        """Refuse embeddings that the projector cannot read."""
        found = vectors.dataset("passages").schema.field("embedding").type.list_size
        if found != self.model.embedding_size:
            raise EmbeddingError(
                f"The embeddings in {vectors.place} have {found} values each, and checkpoint "
                f"{self.arm.checkpoint} expects {self.model.embedding_size}: they are of another "
                "embedder or damaged. Remove the folder and embed again."
            )

    def description(self) -> dict[str, Any]:
        """What ranked: checkpoint, prompt, precision."""
        return self.model.description(self.arm.ranking) | {"checkpoint": self.arm.checkpoint}

    def work(self) -> dict[str, float]:
        """What the LLM did so far, by the names in `meter.WORK`."""
        counted = self.model.counters.as_dict()
        return {name: counted[name] for name in WORK}

    def rank(self, tasks: list[QueryTask], advance: Callable[[int], None]) -> Iterator[Ranked]:
        able = [task for task in tasks if task.problem is None]
        results = zip(*(self._rank_once(able, turn) for turn in self._turns()), strict=True)
        for task in tasks:
            if task.problem is not None:
                yield _unranked(task, task.problem)
            else:
                yield _averaged(task, next(results))
            advance(1)

    def _turns(self) -> list["RankingOptions"]:
        """How to rank each time: from the arm's own initial order, then from shuffled ones."""
        ranking = self.arm.ranking
        assert ranking is not None
        more = range(1, self.arm.orders or 1)
        shuffled = [
            replace(ranking, initial_order="random", seed=ranking.seed + turn) for turn in more
        ]
        return [ranking, *shuffled]

    def _rank_once(
        self, tasks: list[QueryTask], options: "RankingOptions"
    ) -> Iterator["RerankResult"]:
        """Each task's result, its order one of the candidates as the first stage gave them."""
        from perank_tasks.perank import RerankRequest

        begins = [_begin(task, options) for task in tasks]
        requests = (
            RerankRequest(
                task.query_id,
                task.text,
                [task.passage_ids[place] for place in begin],
                None if task.embeddings is None else task.embeddings[begin],
                task.query_embedding,
                None if task.texts is None else [task.texts[place] for place in begin],
                task.scores[begin],
            )
            for task, begin in zip(tasks, begins, strict=True)
        )
        ranked = self.model.rerank_many(requests, options)
        for begin, result in zip(begins, ranked, strict=True):
            order = [begin[place] for place in result.order]
            yield replace(result, order=sorted(begin) if result.unranked_reason else order)


def _begin(task: QueryTask, options: "RankingOptions") -> list[int]:
    """The order in which the engine is given the candidates: the first stage's, or an oracle's."""
    places = range(len(task.passage_ids))
    if options.initial_order != "oracle":
        return list(places)
    assert task.grades is not None
    return sorted(places, key=[-grade for grade in task.grades].__getitem__)


def _averaged(task: QueryTask, results: Sequence["RerankResult"]) -> Ranked:
    """One ranking of several, by mean rank; equal ones go as the first stage has them."""
    order = list(results[0].order)
    reason = next((r.unranked_reason for r in results if r.unranked_reason), None)
    if reason:
        order = list(range(len(order)))
    elif len(results) > 1:
        ranks = np.sum([np.argsort(result.order) for result in results], axis=0)
        order = np.argsort(ranks, kind="stable").tolist()
    return Ranked(
        task=task,
        order=order,
        scores=_reciprocal_ranks(len(order)),
        unranked_reason=reason,
        query_was_cut=results[0].query_was_cut,
        markers_defused=results[0].markers_defused,
        windows=sum(r.windows for r in results),
        tokens_in=sum(r.tokens_in for r in results),
        decode_steps=sum(r.decode_steps for r in results),
        numbers_missing=sum(r.numbers_missing for r in results),
        numbers_repeated=sum(r.numbers_repeated for r in results),
    )


def _ranker(arm: Arm, store: Store) -> _BaselineRanker | _PERankRanker:
    if arm.checkpoint:
        return _PERankRanker(arm, local(arm.checkpoint, store))
    return _BaselineRanker(arm)


def join_candidates(
    queries: list[tuple[str, str]],
    found: dict[str, list[tuple[str, float]]],
    vectors: Artifact | None,
    snapshot: Artifact | None,
) -> list[QueryTask]:
    """Candidates and what an arm reads of them, vectors or texts or both, query by query."""
    return _tasks(queries, found, _join(queries, found, vectors, snapshot))


def _parts(
    queries: list[tuple[str, str]], found: dict[str, list[tuple[str, float]]]
) -> Iterator[list[tuple[str, str]]]:
    """The queries in parts of whole calls, as many as a join of their candidates allows."""
    part: list[tuple[str, str]] = []
    passages: set[str] = set()
    for start in range(0, len(queries), QUERIES_A_CALL):
        call = queries[start : start + QUERIES_A_CALL]
        wanted = {p for query_id, _ in call for p, _ in found.get(query_id, [])}
        if part and len(passages | wanted) > CANDIDATES_A_JOIN:
            yield part
            part, passages = [], set()
        part = part + call
        passages |= wanted
    if part:
        yield part


def _without_inputs(ranked: Ranked) -> Ranked:
    """A ranking that no longer holds on to its query's vectors and texts."""
    task = replace(ranked.task, embeddings=None, query_embedding=None, texts=None)
    return replace(ranked, task=task)


def _join(
    queries: list[tuple[str, str]],
    found: dict[str, list[tuple[str, float]]],
    vectors: Artifact | None,
    snapshot: Artifact | None,
    transform: Transform | None = None,
) -> "_Inputs":
    """What the arm reads of these queries' candidates: vectors or texts or both."""
    wanted = {p for query_id, _ in queries for p, _ in found.get(query_id, [])}
    asking = {query_id for query_id, _ in queries}
    embedded = read_vectors(vectors, "passages", wanted) if vectors else None
    if embedded and transform:
        made = transform.apply(list(embedded), np.stack(list(embedded.values())))
        embedded = dict(zip(embedded, made, strict=True))
    return _Inputs(
        embedded=embedded,
        asked=read_vectors(vectors, "queries", asking) if vectors else None,
        texts=read_texts(snapshot, wanted) if snapshot else None,
    )


@dataclass(frozen=True)
class _Inputs:
    """By id; None where the arm does not read them."""

    embedded: dict[str, np.ndarray] | None  # (d,) each
    asked: dict[str, np.ndarray] | None  # (d,) each, of queries
    texts: dict[str, str] | None
    grades: dict[str, dict[str, int]] | None = None  # by query, then passage


def _grades(snapshot: Artifact) -> dict[str, dict[str, int]]:
    """The judgements: {query id: {passage id: grade}}."""
    grades: dict[str, dict[str, int]] = {}
    for row in snapshot.read("qrels").to_pylist():
        grades.setdefault(row["query_id"], {})[row["passage_id"]] = row["relevance"]
    return grades


def _tasks(
    queries: list[tuple[str, str]], found: dict[str, list[tuple[str, float]]], inputs: _Inputs
) -> list[QueryTask]:
    """Candidates and what the arm reads of them, query by query."""
    tasks = []
    for query_id, text in queries:
        pairs = found.get(query_id, [])
        ids = [p for p, _ in pairs]
        task = QueryTask(query_id, text, ids, np.array([s for _, s in pairs], dtype=np.float64))
        if inputs.embedded is not None and inputs.asked is not None:
            task = _with_vectors(task, inputs.embedded, inputs.asked[query_id])
        if inputs.texts is not None and task.problem is None:
            task = _with_texts(task, inputs.texts)
        if inputs.grades is not None:
            judged = inputs.grades.get(query_id, {})
            task = replace(task, grades=[judged.get(p, 0) for p in ids])
        tasks.append(task)
    return tasks


def _with_vectors(
    task: QueryTask, embedded: dict[str, np.ndarray], asking: np.ndarray
) -> QueryTask:
    ids = task.passage_ids
    absent = [p for p in ids if p not in embedded]
    if absent:
        problem = f"{_some(absent, ids)} no embedding: they are not passages of the collection"
        return replace(task, problem=problem)
    matrix = np.array([embedded[p] for p in ids], np.float32).reshape(-1, asking.size)
    return replace(task, embeddings=matrix, query_embedding=asking)


def _with_texts(task: QueryTask, texts: dict[str, str]) -> QueryTask:
    ids = task.passage_ids
    absent = [p for p in ids if p not in texts]
    if absent:
        return replace(task, problem=f"{_some(absent, ids)} no text in the collection")
    return replace(task, texts=[texts[p] for p in ids])


def _some(absent: list[str], ids: list[str]) -> str:
    return f"{len(absent)} of {len(ids)} candidates, {absent[0]} the first, have"


def _unranked(task: QueryTask, reason: str) -> Ranked:
    n = len(task.passage_ids)
    return Ranked(task, list(range(n)), _reciprocal_ranks(n), unranked_reason=reason)


def _reciprocal_ranks(n: int) -> list[float]:
    return [1 / rank for rank in range(1, n + 1)]


def _rankings_table(results: list[Ranked]) -> pa.Table:
    rows = [
        (r.task.query_id, r.task.passage_ids[position], rank, score, position + 1)
        for r in results
        for rank, (position, score) in enumerate(zip(r.order, r.scores, strict=True), 1)
    ]
    return rows_to_table(rows, RANKINGS)


def _status_table(results: list[Ranked]) -> pa.Table:
    rows = [
        (
            r.task.query_id,
            len(r.order),
            r.unranked_reason,
            r.query_was_cut,
            r.markers_defused,
            r.windows,
            r.tokens_in,
            r.decode_steps,
            r.numbers_missing,
            r.numbers_repeated,
        )
        for r in results
    ]
    return rows_to_table(rows, QUERY_STATUS)


def _embeddings_of(arm: Arm, embeddings: dict[str, str]) -> dict[str, str]:
    return {"embeddings": embeddings[arm.embedder]} if arm.embedder else {}


def _artifact(
    store: Store, night: Night, arm: Arm, candidates: str, embeddings: dict[str, str]
) -> Artifact:
    key = artifact_key(
        date=night.run_date,
        fingerprint=night.fingerprint_hash,
        arm=arm.hash,
        candidates=candidates,
        shards=night.options.shards,
        **_embeddings_of(arm, embeddings),
    )
    return store.artifact("rankings", night.collection_name, key)
