"""Make training data: in, options; out, the artifact `training_data/<name>/<key>`.

Stage ranking: the table `lists`, one row a list of candidates with its golden ranking, in
shards of queries that a killed run goes on from. Stage alignment: the table `passages`, rows
of the pool. The manifest's inputs name the pool and the queries, its counts say what was
left out and why, its provenance the terms of use of every source.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.collections import trec
from perank_tasks.config import stable_hash
from perank_tasks.errors import TrainingDataError
from perank_tasks.models.find import file_sha256
from perank_tasks.night.provenance import fingerprint
from perank_tasks.schemas import ALIGNMENT_DATA, RANKING_DATA, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.training.data.first_stage import FirstStage, build_pool_index
from perank_tasks.training.data.lists import (
    draw,
    generator,
    golden_ranking,
    prompt_order,
    top,
    with_feedback,
)
from perank_tasks.training.data.options import FIRST_STAGE, DataOptions, Weights
from perank_tasks.training.data.pool import (
    Pool,
    Source,
    build_pool,
    pool_name,
    prepare,
)
from perank_tasks.training.data.queries import (
    CLOZE,
    QuerySet,
    TrainingQuery,
    make_queries,
    qualified_id,
)
from perank_tasks.training.data.teachers import Teacher, identify_teachers, load_teachers

log = logging.getLogger(__name__)

KIND = "training_data"
QUERIES_A_SHARD = 256

TERMS = {
    "pydocs": "Python's documentation, under the PSF License Agreement",
    CLOZE: "sentences of the passages",
}
NO_TERMS = "not stated: find out before you publish what is trained on it"

Grades = dict[str, dict[int, int]]
"""{query id: {row of the pool: grade}}"""


def make_training_data(options: DataOptions) -> str:
    """Make what the options ask for, or find it; returns the reference.

    Raises:
        ConfigError, CollectionError: a collection, a model or a file is not there.
        TrainingDataError: queries of an evaluation collection, too few passages, no queries.
    """
    if options.reference_jsonl:
        from perank_tasks.training.data.reference_jsonl import make_from_reference

        return make_from_reference(options)
    settings = Settings.from_environment()
    store = Store(settings.root)
    machine = fingerprint(settings.threads)
    sources = [prepare(spec, options) for spec in options.collections]
    pool = build_pool(store, pool_name(options), sources, machine)
    if options.stage == "alignment":
        return _make_alignment(store, pool, sources, options, machine)
    return _make_ranking(store, pool, sources, options, machine)


def terms_of(sources: list[str], options: DataOptions) -> dict[str, str]:
    """The terms of use of each source, for the provenance.

    Raises:
        TrainingDataError: terms are given for what is no source.
    """
    given = options.terms_by_name
    if unknown := set(given) - set(sources):
        raise TrainingDataError(
            f"Terms are given for {', '.join(sorted(unknown))}, but the sources are "
            f"{', '.join(sources)}."
        )
    return {f"terms.{name}": given.get(name) or TERMS.get(name, NO_TERMS) for name in sources}


def _make_alignment(
    store: Store,
    pool: str,
    sources: list[Source],
    options: DataOptions,
    machine: dict[str, str],
) -> str:
    config = {
        "stage": options.stage,
        **_some(options, "passages", "min_words", "max_words", "seed"),
    }
    terms = terms_of([source.name for source in sources], options)
    key = artifact_key(pool=pool, terms=terms, **config)
    artifact = store.artifact(KIND, pool.split("/")[1], key)
    if artifact.use():
        return artifact.reference
    words = np.concatenate(
        [
            np.array([len(text.split()) for text in batch["text"].to_pylist()], np.int64)
            for batch in store.open(pool).dataset("passages").to_batches(columns=["text"])
        ]
    )
    fit = np.flatnonzero((words >= options.min_words) & (words <= options.max_words))
    if not len(fit):
        raise TrainingDataError(
            f"None of {len(words)} passages has {options.min_words} to {options.max_words} words; "
            "give other limits with --min-words and --max-words."
        )
    chosen = generator(options.seed, "alignment").permutation(fit)[: options.passages]
    table = rows_to_table([(int(row),) for row in chosen], ALIGNMENT_DATA)
    artifact.write_part("passages", table, ALIGNMENT_DATA)
    return artifact.publish(
        expected={"passages": 1},
        inputs={"passages": pool},
        config=config,
        counts={
            "examples": len(chosen),
            "passages": len(words),
            "too_short": int((words < options.min_words).sum()),
            "too_long": int((words > options.max_words).sum()),
            "words": int(words[chosen].sum()),
        },
        provenance=machine | terms,
    )


def _make_ranking(
    store: Store,
    pool: str,
    sources: list[Source],
    options: DataOptions,
    machine: dict[str, str],
) -> str:
    made = make_queries(store, pool, sources, options, machine)
    opened = Pool(store.open(made.pool))
    if len(opened) < options.hard + options.random:
        raise TrainingDataError(
            f"There are {len(opened)} passages, and a list takes {options.hard} hard and "
            f"{options.random} random ones; ask for fewer, or add collections."
        )
    queries = QuerySet(store.open(made.reference))
    index = build_pool_index(store, made.pool, options, machine)
    grades = _grades(store, opened, queries, sources, options)
    config = {
        "stage": options.stage,
        "teacher": options.teacher_weights,
        "models": identify_teachers(options),
        "hard_from": options.hard_weights or "judged",
        **_some(
            options,
            *("judgements", "depth", "hard", "random", "relevant", "lists_per_query", "order"),
            *("k1", "b", "seed"),
            *(("feedback", "feedback_passages") if options.feedback else ()),
        ),
    }
    used = sorted({queries[row].source for row in range(len(queries))})
    terms = terms_of(list(dict.fromkeys([*(s.name for s in sources), *used])), options)
    key = artifact_key(
        pool=made.pool,
        queries=made.reference,
        terms=terms,
        index=index,
        grades=stable_hash(grades),
        run=file_sha256(Path(options.run_file)) if options.run_file else None,
        **config,
    )
    artifact = store.artifact(KIND, pool.split("/")[1], key)
    if artifact.use():
        return artifact.reference
    run = _read_run(Path(options.run_file), opened) if options.run_file else None
    first_stage = FirstStage(opened, store.open(index), run)
    builder = _Builder(options, queries, first_stage, grades)
    shards = range(-(-len(queries) // QUERIES_A_SHARD))
    with progress("making lists", len(queries), "queries") as advance:
        for shard in shards:
            rows = range(shard * QUERIES_A_SHARD, min((shard + 1) * QUERIES_A_SHARD, len(queries)))
            if not artifact.has_part("lists", shard):
                _write_shard(artifact, shard, rows, builder)
            advance(len(rows))
    return artifact.publish(
        expected={"lists": len(shards)},
        inputs={"passages": made.pool, "queries": made.reference, "index": index},
        config=config,
        counts=_counts(artifact, queries, len(shards)),
        provenance=machine | terms,
    )


def _write_shard(artifact: Artifact, shard: int, rows: range, builder: "_Builder") -> None:
    meter = Meter(builder.device)
    meter.items = len(rows)
    lists = [line for row in rows for line in builder.lists(row)]
    skipped = len(rows) - len({line[0] for line in lists})
    artifact.write_part(
        "lists",
        rows_to_table(lists, RANKING_DATA),
        RANKING_DATA,
        shard=shard,
        stats=lambda: (
            meter.stats()
            | {
                "skipped": skipped,
                "hard": sum(sum(line[-1]) for line in lists),
                "relevant": sum(sum(grade > 0 for grade in line[-2] or ()) for line in lists),
            }
        ),
    )


def _counts(artifact: Artifact, queries: QuerySet, shards: int) -> dict[str, Any]:
    stats = [artifact.part_stats("lists", shard) for shard in range(shards)]
    lists = sum(artifact.dataset("lists", shard).count_rows() for shard in range(shards))
    skipped = sum(s["skipped"] for s in stats)
    if not lists:
        raise TrainingDataError(
            "No query has a hard candidate: none shares a word with a passage, or none of its "
            "judged passages is here. Look at --hard-from, and at the collections' judgements."
        )
    told = queries.artifact.manifest.counts
    return {
        "examples": lists,
        "queries": len(queries) - skipped,
        "queries_without_candidates": skipped,
        "queries_repeated": told["repeated"],
        "queries_of_evaluation_collections": told["of_evaluation_collections"],
        "hard_candidates": sum(s["hard"] for s in stats),
        "relevant_candidates": sum(s["relevant"] for s in stats),
        "stats": total(stats),
    }


@dataclass
class _Builder:
    """Makes the lists of a query."""

    options: DataOptions
    queries: QuerySet
    first_stage: FirstStage
    grades: Grades | None

    def __post_init__(self) -> None:
        self.teachers: dict[str, Teacher] = {}
        self._loaded = False

    @property
    def device(self) -> str:
        devices = {teacher.device for teacher in self._teachers().values()}
        return ", ".join(sorted(devices)) or "cpu"

    def lists(self, row: int) -> list[tuple]:
        """Rows of the schema RANKING_DATA; none where the query has no hard candidate."""
        options, query = self.options, self.queries[row]
        dense = self._dense(query, self.queries.embedding(row))
        judged = (self.grades or {}).get(query.query_id, {})
        relevant = np.array(sorted(r for r, g in judged.items() if g > 0), np.int64)
        weights = options.hard_weights
        if weights is None:
            hard, certain = np.array(sorted(judged), np.int64), 0
        else:
            hard, certain = self._first(weights, dense), options.relevant
        if not len(hard) and not (certain and len(relevant)):
            return []
        draws = []
        for number in range(options.lists_per_query):
            rng = generator(options.seed, query.query_id, number)
            rows, is_hard = draw(
                rng,
                relevant=relevant,
                hard=hard,
                passages=len(self.first_stage.pool),
                relevant_count=certain,
                hard_count=options.hard,
                random_count=options.random,
            )
            by_bm25 = dense["bm25"][rows] if options.order == "first-stage" else None
            order = prompt_order(rng, rows, by_bm25)
            draws.append((rows[order], is_hard[order]))
        scores = self._teach(query, np.unique(np.concatenate([rows for rows, _ in draws])), dense)
        made = partial(self._line, row, query, judged, dense["bm25"], scores)
        return [made(number, rows, is_hard) for number, (rows, is_hard) in enumerate(draws)]

    def _line(
        self,
        row: int,
        query: TrainingQuery,
        judged: dict[int, int],
        bm25: np.ndarray,
        scores: dict[int, float] | None,
        number: int,
        rows: np.ndarray,
        is_hard: np.ndarray,
    ) -> tuple:
        grades = teacher = None
        if self.grades is not None:
            grades = np.array([judged.get(int(r), 0) for r in rows], np.int32)
        if scores is not None:
            teacher = np.array([scores[int(r)] for r in rows], np.float32)
            if self.options.feedback:
                teacher = with_feedback(
                    teacher,
                    self.first_stage.pool.embeddings(rows),
                    passages=self.options.feedback_passages,
                    weight=self.options.feedback,
                )
        return (
            row,
            query.query_id,
            number,
            rows.tolist(),
            golden_ranking(rows, grades, teacher).tolist(),
            bm25[rows].tolist(),
            None if teacher is None else teacher.tolist(),
            None if grades is None else grades.tolist(),
            is_hard.tolist(),
        )

    def _dense(self, query: TrainingQuery, vector: np.ndarray) -> dict[str, np.ndarray]:
        scorers = {"bm25", *(self.options.hard_weights or {}), *self.options.teacher_weights}
        wanted = sorted(scorers & {*FIRST_STAGE})
        return self.first_stage.scores(query.query_id, query.text, vector, wanted)

    def _first(self, weights: Weights, dense: dict[str, np.ndarray]) -> np.ndarray:
        """Rows that hard candidates are drawn from."""
        scores = weighted_sum(weights, dense)
        # A passage without a term of the query, or that a run does not have, was not found.
        above = 0.0 if set(weights) == {"bm25"} else -np.inf
        return top(scores, self.options.depth, above=above)

    def _teach(
        self, query: TrainingQuery, rows: np.ndarray, dense: dict[str, np.ndarray]
    ) -> dict[int, float] | None:
        """The teacher's score of each row; every passage is read once a query."""
        weights = self.options.teacher_weights
        if not weights:
            return None
        scores = {name: dense[name][rows] for name in weights if name in dense}
        teachers = self._teachers()
        if teachers:
            texts = self.first_stage.pool.texts(rows)
            scores |= {name: teacher.score(query.text, texts) for name, teacher in teachers.items()}
        both = weighted_sum(weights, scores)
        return dict(zip(rows.tolist(), both.tolist(), strict=True))

    def _teachers(self) -> dict[str, Teacher]:
        if not self._loaded:
            self.teachers, self._loaded = load_teachers(self.options), True
        return self.teachers


def weighted_sum(weights: Weights, scores: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) float32."""
    summed = sum(weight * scores[name] for name, weight in weights.items())
    return np.asarray(summed, np.float32)


def _grades(
    store: Store,
    pool: Pool,
    queries: QuerySet,
    sources: list[Source],
    options: DataOptions,
) -> Grades | None:
    """What is judged of the pool; of passages with one text, the best grade counts."""
    if not options.judgements:
        return None
    grades: Grades = {}
    if options.queries == CLOZE:
        for row in range(len(queries)):
            query = queries[row]
            assert query.passage_row is not None
            grades[query.query_id] = {query.passage_row: 1}
        return grades
    lines = list(_judgements(store, sources))
    rows = pool.rows_of({passage for _, passage, _ in lines})
    for query_id, passage, grade in lines:
        if passage in rows:
            mine = grades.setdefault(query_id, {})
            mine[rows[passage]] = max(grade, mine.get(rows[passage], grade))
    if not grades:
        raise TrainingDataError(
            f"No judgement of {', '.join(source.name for source in sources)} is of a passage that "
            "is here; leave out judgements, or add a collection that has some."
        )
    return grades


def _judgements(store: Store, sources: list[Source]) -> Iterator[tuple[str, str, int]]:
    for source in sources:
        for line in store.open(source.snapshot).read("qrels").to_pylist():
            query_id = qualified_id(source, line["query_id"], sources)
            yield query_id, f"{source.name}/{line['passage_id']}", line["relevance"]


def _read_run(path: Path, pool: Pool) -> dict[str, dict[int, float]]:
    """A run's scores by row; of passages with one text, the best."""
    lines = trec.read_run(path)
    rows = pool.rows_of({line.passage_id for line in lines}, with_collection=False)
    run: dict[str, dict[int, float]] = {}
    for line in lines:
        if line.passage_id in rows:
            scores = run.setdefault(line.query_id, {})
            row = rows[line.passage_id]
            scores[row] = max(line.score, scores.get(row, line.score))
    if not run:
        raise TrainingDataError(
            f"{path} names no passage that is here; give the run of these collections."
        )
    absent = {line.passage_id for line in lines} - set(rows)
    if absent:
        log.warning("%s: %d of its passages are not here", path, len(absent))
    return run


def _some(options: DataOptions, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}
