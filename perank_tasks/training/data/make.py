"""Make training data: in, options; out, the artifact `training_data/<name>/<key>`.

    collections ─snapshot, embed─▶ passages  (each text once, vectors mapped into memory)
    collection, file or cloze ───▶ queries   (none of an evaluation collection)
    passages + BM25 + teacher ───▶ lists of n candidates, each with a golden ranking

Stage ranking: the table `lists`, one row a list, in shards of queries from which a killed run is
resumed. Stage alignment: the table `passages`, rows of the pool. `readers` reads both. The
manifest's inputs name the pool and the queries, its counts say what was left out and why, its
provenance the terms of use of every source.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.config import stable_hash
from perank_tasks.errors import TrainingDataError
from perank_tasks.night.provenance import fingerprint
from perank_tasks.night.snapshot import own_passages
from perank_tasks.schemas import ALIGNMENT_DATA, RANKING_DATA, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.support.analysis import ANALYZER
from perank_tasks.support.progress import progress
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.data.list_builder import (
    FirstStage,
    Grades,
    ListBuilder,
    cross_encoder_content,
)
from perank_tasks.training.data.lists import generator
from perank_tasks.training.data.pool import Making, Pool, Source, build_pool, prepare
from perank_tasks.training.data.queries import CLOZE, TrainingQueries, make_queries, qualified_id
from perank_tasks.training.data.readers import KIND, terms_of
from perank_tasks.training.data.reference_jsonl import make_from_reference
from perank_tasks.warehouse.registry import open_store

QUERIES_A_SHARD = 256

ALIGNMENT_CONFIG = {"stage", "passages", "min_words", "max_words", "seed"}
RANKING_CONFIG = {"stage", "judgements", "depth", "hard", "random", "relevant", "lists_per_query"}
RANKING_CONFIG |= {"feedback", "feedback_passages", "k1", "b", "seed"}
"""Options that data depend on as they are."""


def make_training_data(options: DataOptions) -> str:
    """Make what the options ask for, unless it is there; returns the reference.

    Raises:
        ConfigError, CollectionError: a collection, a model or a file is not there.
        TrainingDataError: queries of an evaluation collection, too few passages, no queries.
    """
    machine = fingerprint(Settings.from_environment().threads)
    making = Making(open_store(), options, machine)
    if options.reference_jsonl:
        return make_from_reference(making)
    sources = [prepare(making, spec) for spec in options.collections]
    pool = build_pool(making, sources)
    make = _make_alignment if options.stage == "alignment" else _make_ranking
    return make(making, pool, sources)


def _make_alignment(making: Making, pool: str, sources: Sequence[Source]) -> str:
    store, options = making.store, making.options
    config = options.model_dump(include=ALIGNMENT_CONFIG)
    terms = terms_of([source.name for source in sources], options)
    key = artifact_key(pool=pool, terms=terms, **config)
    artifact = store.artifact(KIND, pool.split("/")[1], key)
    if artifact.use():
        return artifact.reference
    texts = store.open(pool).read("passages", ["text"])["text"]
    words = np.array([len(text.as_py().split()) for text in texts])
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
        provenance=making.provenance | terms,
    )


def _make_ranking(making: Making, pool: str, sources: Sequence[Source]) -> str:
    store, options, name = making.store, making.options, pool.split("/")[1]
    queries, pool = make_queries(making, pool, sources)
    passages = Pool(store.open(pool))
    own = _own(passages, sources, options)
    if len(passages) - bool(own) < options.hard + options.random:
        raise TrainingDataError(
            f"There are {len(passages)} passages, and a list takes {options.hard} hard and "
            f"{options.random} random ones; ask for fewer, or add collections."
        )
    grades = _grades(passages, queries, sources, options)
    config = {
        "teacher": options.teacher_weights,
        "cross_encoder": cross_encoder_content(options),
        "hard_from": options.hard_weights or "judged",
        "analyzer": ANALYZER,
        "compared_with": queries.evaluation.counts,
        **options.model_dump(include=RANKING_CONFIG),
    }
    used = sorted({query.source for query in queries.queries})
    terms = terms_of(list(dict.fromkeys([*(s.name for s in sources), *used])), options)
    key = artifact_key(
        pool=pool, queries=queries.key, terms=terms, grades=stable_hash(grades), **config
    )
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    vectors, first_stage = queries.vectors(making), FirstStage(passages, options)
    builder = ListBuilder(options, queries.queries, vectors, first_stage, grades, own)
    shards = _write_lists(artifact, builder)
    return artifact.publish(
        expected={"lists": shards},
        inputs={"passages": pool},
        config=config,
        counts=_counts(artifact, queries, shards),
        provenance=making.provenance | terms,
    )


def _write_lists(artifact: Artifact, builder: ListBuilder) -> int:
    """Write the lists in shards of queries; returns how many there are."""
    count = len(builder.queries)
    firsts = range(0, count, QUERIES_A_SHARD)
    with progress("making lists", count, "queries") as advance:
        for shard, first in enumerate(firsts):
            rows = range(first, min(first + QUERIES_A_SHARD, count))
            if not artifact.has_part("lists", shard):
                _write_shard(artifact, shard, rows, builder)
            advance(len(rows))
    return len(firsts)


def _write_shard(artifact: Artifact, shard: int, rows: range, builder: ListBuilder) -> None:
    lists = [line for row in rows for line in builder.lists(row)]
    table = pa.Table.from_pylist(lists, RANKING_DATA)
    artifact.write_part("lists", table, RANKING_DATA, shard=shard)


def _counts(artifact: Artifact, queries: TrainingQueries, shards: int) -> dict[str, int]:
    read = [artifact.dataset("lists", s).to_table(columns=["query_id"]) for s in range(shards)]
    of_lists = pa.concat_tables(read)["query_id"]
    if not len(of_lists):
        raise TrainingDataError(
            "No query has a hard candidate: none shares a word with a passage, or none of its "
            "judged passages is here. Look at --hard-from, and at the collections' judgements."
        )
    with_lists = len(of_lists.unique())
    return {
        "examples": len(of_lists),
        "queries": with_lists,
        "queries_without_candidates": len(queries.queries) - with_lists,
        "queries_repeated": queries.counts["repeated"],
        "queries_of_evaluation_collections": queries.counts["of_evaluation_collections"],
    }


def _grades(
    pool: Pool, queries: TrainingQueries, sources: Sequence[Source], options: DataOptions
) -> Grades | None:
    """What is judged of the pool; of passages with one text, the best grade counts."""
    if not options.judgements:
        return None
    if options.queries == CLOZE:
        cloze = queries.queries
        return {q.query_id: {q.passage_row: 1} for q in cloze if q.passage_row is not None}
    grades: dict[str, dict[int, int]] = {}
    for source in sources:
        lines = source.snapshot.read("qrels").to_pylist()
        rows = pool.rows_of({line["passage_id"] for line in lines}, source.snapshot)
        for line in lines:
            row = rows.get(line["passage_id"])
            if row is not None:
                query_id = qualified_id(source, line["query_id"], sources)
                of_query = grades.setdefault(query_id, {})
                of_query[row] = max(line["relevance"], of_query.get(row, line["relevance"]))
    if not grades:
        raise TrainingDataError(
            f"No judgement of {', '.join(source.name for source in sources)} is of a passage that "
            "is here; leave out judgements, or add a collection that has some."
        )
    return grades


def _own(pool: Pool, sources: Sequence[Source], options: DataOptions) -> dict[str, int]:
    """Rows of queries that are passages, by the query's id."""
    if options.queries != "collection":
        return {}
    return {
        qualified_id(source, query_id, sources): row
        for source in sources
        for query_id, row in pool.rows_of(own_passages(source.snapshot), source.snapshot).items()
    }
