"""Rerank: the candidates of every query, ordered by every arm of the night.

In: candidates, embeddings, the snapshot's queries and, for an arm that reads them, its texts.
Out, for each arm: the artifact `rankings/<collection>/<key>` with the tables `rankings` (a
permutation of each query's candidates) and `queries` (what ranking each query took, or why it
could not be ranked).

Embeddings are joined by id from the embedding artifact and never made here. A query that
cannot be ranked keeps its first-stage order and says why; the others are ranked.

A ranker whose model, file or service is not there, or that fails in the middle, leaves the rest of
its lists unranked, so that the arm is incomplete and says why, and the other arms are whole. Of a
ranker that another package brings, any exception counts as failing; of our own it is a bug, and
raised.

Rankings of a night belong to its date and fingerprint: they are computed anew every night.
"""

import json
import logging
import math
import operator
import time
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.collections.records import RunLine
from perank_tasks.collections.trec import write_run
from perank_tasks.config import Arm, Night
from perank_tasks.errors import CheckpointError, ConfigError, RankerError
from perank_tasks.models.vectors import Transform
from perank_tasks.night.best import Hits
from perank_tasks.night.embed import read_vectors
from perank_tasks.night.retrieve import read_candidates, shards_of_queries
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import read_qrels, read_queries, read_texts
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models, Ranker, ScoreRanker
from perank_tasks.schemas import QUERY_STATUS, RANKINGS, dicts_to_table, rows_to_table
from perank_tasks.support.lists import NOT_FINITE, CandidateList, RankedList, unranked
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import share

log = logging.getLogger(__name__)

CANDIDATES_A_JOIN = 100_000
"""Passages whose vectors or texts are in memory at once, 154 MB of 384 values each. A
join reads the row groups that hold any of them: joins of fewer would read the same ones again."""


class RerankShard(TypedDict):
    """One piece of work: a shard of the queries for one arm."""

    arm: str  # Arm.hash
    shard: int


def plan_reranking(
    night: Night, site: Site, candidates: dict[str, str], embeddings: dict[str, str]
) -> list[RerankShard]:
    """The pieces of work for `rerank_shard`: every arm that is not published by every shard."""
    return [
        RerankShard(arm=arm.hash, shard=shard)
        for arm in night.arms
        if not _unfinished(_attempts(site.store, night, arm, candidates, embeddings)).is_published
        for shard in range(shards_of_queries(site.store.open(candidates[arm.first_stage.hash])))
    ]


def rerank_shard(
    night: Night,
    site: Site,
    candidates: dict[str, str],
    embeddings: dict[str, str],
    work: RerankShard,
) -> dict[str, int]:
    """Rank one shard's queries by one arm; returns how many queries, and how many unranked.

    Args:
        candidates: {`FirstStage.hash`: reference}.
        embeddings: {`Embedding.hash`: reference}.
    """
    arm, shard = night.arm(work["arm"]), work["shard"]
    artifact = _unfinished(_attempts(site.store, night, arm, candidates, embeddings))
    if artifact.is_published or artifact.has_part("queries", shard):
        return {"queries": 0, "unranked": 0}

    meter = Meter()
    begin = time.perf_counter()
    ranker = load_ranker(arm, site.models(night.run_date))
    # With what is imported for it, which the process's first model pays for all.
    load_seconds = time.perf_counter() - begin
    meter.device = ranker.device
    join = Join.of(night, site, arm, candidates, embeddings)
    queries = read_queries(night, join.snapshot)
    queries = queries[slice(*share(len(queries), shards_of_queries(join.candidates), shard))]
    ranked_lists = []
    with progress(f"ranking by {arm.name}", len(queries), "queries") as advance:
        lists = join.lists(queries, read_candidates(join.candidates, shard, arm.depth))
        for ranked in rank_guarded(arm, ranker, lists):
            ranked_lists.append(ranked)
            advance(1)
    meter.items = len(ranked_lists)
    meter.tokens_in = sum(r.tokens_in for r in ranked_lists)
    meter.decode_steps = sum(r.decode_steps for r in ranked_lists)
    meter.numbers_repaired = sum(r.numbers_missing + r.numbers_repeated for r in ranked_lists)
    meter.work |= ranker.work() | {"load_seconds": load_seconds}

    artifact.write_part("rankings", _rankings_table(ranked_lists), RANKINGS, shard=shard)
    status = [vars(ranked) | {"candidates": len(ranked.order)} for ranked in ranked_lists]
    # Written last: its presence says that the shard is done.
    artifact.write_part(
        "queries",
        dicts_to_table(status, QUERY_STATUS),
        QUERY_STATUS,
        shard=shard,
        stats=lambda: {
            **meter.stats(),
            "model": ranker.description(),
            "outages": sum(r.is_outage for r in ranked_lists),
        },
    )
    left = [ranked for ranked in ranked_lists if ranked.unranked_reason]
    for reason, number in Counter(ranked.unranked_reason for ranked in left).items():
        query_id = next(ranked.query_id for ranked in left if ranked.unranked_reason == reason)
        log.warning(
            "%d queries keep their first-stage order, %s the first: %s", number, query_id, reason
        )
    return {"queries": len(ranked_lists), "unranked": len(left)}


def publish_rankings(
    night: Night, site: Site, candidates: dict[str, str], embeddings: dict[str, str]
) -> dict[str, str]:
    """Publish each arm's rankings once its shards are written: {`Arm.hash`: reference}."""
    references = {}
    for arm in night.arms:
        artifact = _newest(_attempts(site.store, night, arm, candidates, embeddings))
        if not artifact.is_published:
            shards = range(shards_of_queries(site.store.open(candidates[arm.first_stage.hash])))
            stats = [artifact.part_stats("queries", shard) for shard in shards]
            artifact.publish(
                expected={"rankings": len(shards), "queries": len(shards)},
                inputs=_inputs(arm, candidates, embeddings),
                config=arm.model_dump(mode="json"),
                counts={
                    "stats": total(stats),
                    "model": stats[0]["model"],
                    "outages": sum(of_shard["outages"] for of_shard in stats),
                },
                provenance=night.fingerprint,
            )
        references[arm.hash] = artifact.reference
    return references


def write_runs(night: Night, store: Store, rankings: dict[str, str], path: Path) -> dict[Path, int]:
    """Write each arm's ranking as a TREC run; returns the number of queries in each file.

    Args:
        rankings: what `publish_rankings` returned.
        path: the file; with several arms, `path` and the arm's name after a full stop.

    Raises:
        StorageError: a file cannot be written.
        CollectionError: an identifier holds white space, which the format cannot carry.
    """
    written = {}
    for arm_hash, reference in rankings.items():
        arm = night.arm(arm_hash)
        columns = ["query_id", "passage_id", "score"]
        rows = store.open(reference).read("rankings", columns).to_pylist()
        lines = [RunLine(**row) for row in rows]
        file = path if len(rankings) == 1 else path.with_name(f"{path.name}.{arm.name}")
        write_run(file, lines, f"perank-{arm.name}-{arm.hash}")
        written[file] = len({line.query_id for line in lines})
    return written


@dataclass(frozen=True)
class Join:
    """Candidates, and what an arm reads of them: vectors, texts, judgements."""

    candidates: Artifact
    snapshot: Artifact
    vectors: Artifact | None = None
    transform: Transform | None = None
    texts: bool = False
    grades: dict[str, dict[str, int]] | None = None
    """By query, then passage."""

    @classmethod
    def of(
        cls,
        night: Night,
        site: Site,
        arm: Arm,
        candidates: dict[str, str],
        embeddings: dict[str, str],
    ) -> "Join":
        """What an arm of a night reads."""
        options = RANKERS[arm.ranker].parse(arm.options)
        described = RANKERS.describe(arm.ranker, options, site.models(night.run_date))
        opened = site.store.open(candidates[arm.first_stage.hash])
        snapshot = site.store.open(opened.manifest.inputs["snapshot"])
        transform = arm.options.get("transform")
        return cls(
            candidates=opened,
            snapshot=snapshot,
            vectors=site.store.open(embeddings[arm.embedding.hash]) if arm.embedding else None,
            transform=Transform.parse(transform) if transform else None,
            texts=described.texts,
            grades=read_qrels(snapshot) if described.grades else None,
        )

    def lists(
        self, queries: Sequence[tuple[str, str]], candidates: dict[str, Hits]
    ) -> Iterator[CandidateList]:
        """One list a query, in order; inputs are read for as many as a join allows."""
        longest = max(map(len, candidates.values()), default=0)
        count = max(1, CANDIDATES_A_JOIN // max(1, longest))
        for first in range(0, len(queries), count):
            yield from self._joined(queries[first : first + count], candidates)

    def _joined(
        self, queries: Sequence[tuple[str, str]], candidates: dict[str, Hits]
    ) -> Iterator[CandidateList]:
        wanted = {p for query_id, _ in queries for p, _ in candidates.get(query_id, [])}
        texts = read_texts(self.snapshot, wanted) if self.texts else {}
        rows: dict[str, int] = {}
        vectors, asked = None, {}
        if self.vectors:
            rows, vectors = read_vectors(self.vectors, "passages", wanted)
            if self.transform:
                vectors = self.transform.apply(list(rows), vectors)
            numbers, asking = read_vectors(self.vectors, "queries", [q for q, _ in queries])
            asked = {query_id: asking[number] for query_id, number in numbers.items()}
        for query_id, text in queries:
            hits = candidates.get(query_id, [])
            ids = [passage_id for passage_id, _ in hits]
            scores = np.array([score for _, score in hits], np.float64)
            problem = None
            if self.vectors:
                what = "embedding: they are not passages of the collection"
                problem = _lacking(ids, rows, what)
            if self.texts:
                problem = problem or _lacking(ids, texts, "text in the collection")
            if problem:
                yield CandidateList(query_id, text, ids, scores, problem=problem)
                continue
            judged = None if self.grades is None else self.grades.get(query_id, {})
            yield CandidateList(
                query_id,
                text,
                ids,
                scores,
                vectors=vectors,
                rows=np.array([rows[p] for p in ids], np.intp) if self.vectors else None,
                query_embedding=asked[query_id] if self.vectors else None,
                texts=[texts[p] for p in ids] if self.texts else None,
                grades=None if judged is None else [judged.get(p, 0) for p in ids],
            )


def _lacking(ids: list[str], known: Container[str], what: str) -> str | None:
    """The problem of a list whose candidates have not all got something."""
    absent = [passage_id for passage_id in ids if passage_id not in known]
    if not absent:
        return None
    return f"{len(absent)} of {len(ids)} candidates, {absent[0]} the first, have no {what}"


def load_ranker(arm: Arm, models: Models) -> Ranker:
    """The arm's ranker, or one that says of the first list why there is none."""
    try:
        if arm.missing:
            raise RankerError(arm.missing)
        ranker = RANKERS[arm.ranker].parse(arm.options).load(models)
        json.dumps([ranker.device, ranker.description(), ranker.work()])  # what is kept of it
        return ranker
    except (CheckpointError, ConfigError) as error:
        reason = str(error)
    except Exception as error:
        reason = RANKERS.reason(arm.ranker, error)

    def fail(_: CandidateList) -> None:
        raise RankerError(reason)

    return ScoreRanker(fail, device="none")  # type: ignore[arg-type]


def rank_guarded(arm: Arm, ranker: Ranker, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
    """As `Ranker.rank`, each result held against its list."""
    stream = iter(lists)
    waiting: deque[CandidateList] = deque()

    def handed() -> Iterator[CandidateList]:
        for candidates in stream:
            waiting.append(candidates)
            yield candidates

    reason = None
    try:
        for ranked in ranker.rank(handed()):
            if not waiting:
                raise RankerError("the ranker gave more rankings than there are lists")
            yield _checked(waiting[0], ranked)
            waiting.popleft()
    except Exception as error:
        reason = RANKERS.reason(arm.ranker, error)
    for candidates in (*waiting, *stream):
        why = candidates.problem or reason or "the ranker gave no ranking for it"
        yield unranked(candidates, why, is_outage=reason is not None)


def _checked(candidates: CandidateList, ranked: RankedList) -> RankedList:
    """The ranking, if it is one of these candidates; else they are left unranked."""
    is_other = ranked.query_id != candidates.query_id
    if is_other or list(ranked.passage_ids) != list(candidates.passage_ids):
        wrong = "the ranker answered with another list"
    elif sorted(map(operator.index, ranked.order)) != list(range(len(candidates))):
        wrong = "the ranker's order does not name every candidate once"
    elif len(ranked.scores) != len(candidates):
        wrong = f"the ranker gave {len(ranked.scores)} scores for {len(candidates)} candidates"
    elif not all(map(math.isfinite, ranked.scores)):
        wrong = NOT_FINITE
    else:
        return ranked
    return unranked(candidates, wrong, is_malformed=True)


def _rankings_table(ranked_lists: list[RankedList]) -> pa.Table:
    rows = [
        (r.query_id, r.passage_ids[place], rank, score, place + 1)
        for r in ranked_lists
        for rank, (place, score) in enumerate(zip(r.order, r.scores, strict=True), 1)
    ]
    return rows_to_table(rows, RANKINGS)


def _inputs(arm: Arm, candidates: dict[str, str], embeddings: dict[str, str]) -> dict[str, str]:
    """The artifacts that an arm's rankings are made of."""
    inputs = {"candidates": candidates[arm.first_stage.hash]}
    if arm.embedding:
        inputs["embeddings"] = embeddings[arm.embedding.hash]
    return inputs


def _attempts(
    store: Store, night: Night, arm: Arm, candidates: dict[str, str], embeddings: dict[str, str]
) -> Iterator[Artifact]:
    """Where an arm's rankings go: the first, and where a second run of the night ranks anew what
    the first left unranked because the arm's model or service was not there."""
    for attempt in count():
        key = artifact_key(
            date=night.filed_under,
            fingerprint=night.fingerprint_hash,
            arm=arm.hash,
            attempt=attempt,
            **_inputs(arm, candidates, embeddings),
        )
        yield store.artifact("rankings", night.collection_name, key)


def _unfinished(attempts: Iterator[Artifact]) -> Artifact:
    """The first attempt that is not published, or that lacked nothing."""
    return next(a for a in attempts if not a.is_published or not a.manifest.counts["outages"])


def _newest(attempts: Iterator[Artifact]) -> Artifact:
    """The last attempt that has begun, the first where none has."""
    newest = next(attempts)
    for artifact in attempts:
        if not artifact.is_published and not artifact.has_part("queries", 0):
            break
        newest = artifact
    return newest
