"""Every Arrow schema of the pipeline, written once.

Artifacts between stages, first; then the result tables, and what only experiments have, which
are the same in Parquet and in DuckDB (`sql/schema/` creates them there; a test compares the two).
What is derived in DuckDB alone is in `sql/schema/` alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

STRING, BOOL, DATE, TIME = pa.string(), pa.bool_(), pa.date32(), pa.timestamp("us")
INT32, INT64, FLOAT64 = pa.int32(), pa.int64(), pa.float64()


def optional(kind: pa.DataType) -> pa.Field:
    """A column for `table` that may be null."""
    return pa.field("", kind)


def table(**columns: pa.DataType | pa.Field) -> pa.Schema:
    """A schema of these columns, in order; null only where one is `optional`."""
    fields = (c if isinstance(c, pa.Field) else pa.field("", c, False) for c in columns.values())
    return pa.schema([field.with_name(name) for name, field in zip(columns, fields, strict=True)])


PASSAGES = table(
    passage_id=STRING,
    title=optional(STRING),
    text=STRING,
    # Of title and text: names what was read, whatever the id (see `text_hash`).
    text_hash=STRING,
    aliases=optional(pa.list_(STRING)),
)

QUERIES = table(
    query_id=STRING,
    text=STRING,
    # whether it is a passage, under the same identifier: that one is none of its candidates
    is_passage=BOOL,
    tags=optional(pa.list_(STRING)),
)

QRELS = table(query_id=STRING, passage_id=STRING, relevance=INT32)

# A run that came with the collection and can stand in for BM25.
GIVEN_RUN = table(query_id=STRING, passage_id=STRING, score=FLOAT64)


def embeddings(dimension: int, precision: Literal["float32", "float16"]) -> pa.Schema:
    """Schema of L2-normalised embeddings: one row a text, `dimension` values each.

    `is_cut`: the text is longer than the embedder reads.
    """
    value = {"float32": pa.float32(), "float16": pa.float16()}[precision]
    vector = pa.list_(value, dimension)
    return table(id=STRING, text_hash=STRING, is_cut=BOOL, embedding=vector)


CANDIDATES = table(
    query_id=STRING,
    passage_id=STRING,
    rank=INT32,  # from 1
    score=FLOAT64,
)

# What is counted for an index, in shards; an index itself keeps the ids.
INDEX_IDS = table(passage_id=STRING)
INDEX_LENGTHS = table(passage_id=STRING, tokens=INT32)
INDEX_TERMS = table(
    term=STRING,
    passages=INT64,  # that have it
)
# Term after term as in the shard's `terms`, passages ascending.
INDEX_POSTINGS = table(
    passage=INT32,  # from 0, within the shard
    count=INT32,
)

# What one shard of an index found, while the others are still searched.
FOUND = table(
    query=INT32,  # from 0, in the night's order
    passage_id=STRING,
    score=FLOAT64,
)

RANKINGS = table(
    query_id=STRING,
    passage_id=STRING,
    rank=INT32,  # from 1, dense
    score=FLOAT64,  # listwise arms: 1 / rank
    first_stage_rank=INT32,
)

# One row a query and arm: what ranking it took, or why it kept its first-stage order.
QUERY_STATUS = table(
    query_id=STRING,
    candidates=INT32,
    unranked_reason=optional(STRING),  # null: ranked
    query_was_cut=BOOL,
    markers_defused=INT32,
    windows=INT32,
    tokens_in=INT64,
    decode_steps=INT64,
    numbers_missing=INT32,
    numbers_repeated=INT32,
    texts_cut=INT32,
    is_malformed=BOOL,  # what the ranker was answered cannot be read
)

# Passages of several collections, each text once. A list of candidates names them by row.
TRAINING_PASSAGES = table(
    passage_id=STRING,
    text=STRING,  # as embedders and LLMs read it
    text_hash=STRING,
)

ALIGNMENT_DATA = table(passage_row=INT64)

# One row a list of n candidates; all lists are in the order of the prompt.
RANKING_DATA = table(
    query_id=STRING,
    query=STRING,
    query_embedding=pa.list_(pa.float32()),
    list=INT32,  # which of the query's, from 0
    passage_rows=pa.list_(INT64),
    # Indices into the list, best first.
    ranking=pa.list_(INT32),
    bm25=optional(pa.list_(pa.float32())),  # null: not known
    teacher=optional(pa.list_(pa.float32())),  # null: no teacher
    grades=optional(pa.list_(INT32)),  # null: no judgements
    hard=optional(pa.list_(BOOL)),  # or drawn at random; null: not known
)

_RESULT_KEY = table(
    series=STRING,  # `nightly`, or an experiment's name
    run_date=DATE,
    collection=STRING,
    arm=STRING,
    arm_hash=STRING,
)


def _result(**columns: pa.DataType | pa.Field) -> pa.Schema:
    return pa.schema([*_RESULT_KEY, *table(**columns)])


RESULT_TABLES: dict[str, pa.Schema] = {
    "runs": _result(
        status=STRING,  # complete | incomplete
        ranking_hash=STRING,
        snapshot=STRING,
        snapshot_date=optional(DATE),  # null: the collection has no dates
        fingerprint=STRING,
        passages=INT64,
        queries=INT64,
        collection_queries=INT64,
        judged_queries=INT64,
        unranked_queries=INT64,
        unranked_reason=optional(STRING),  # the most frequent; null: all were ranked
        cut_queries=INT64,
        stale_judgements=INT64,
        unknown_judgements=INT64,
        top_10_results=INT64,
        top_10_unjudged=INT64,
        config=STRING,  # JSON of the arm
        evaluated_at=TIME,  # UTC
    ),
    "measures": _result(measure=STRING, value=FLOAT64, queries=INT64),
    "query_measures": _result(query_id=STRING, measure=STRING, value=FLOAT64),
    "rankings": pa.schema([*_RESULT_KEY, *RANKINGS]),
    "efficiency": _result(
        stage=STRING,
        device=STRING,
        seconds=FLOAT64,
        items=INT64,  # queries or passages
        items_per_second=optional(FLOAT64),
        tokens_in=INT64,
        decode_steps=INT64,
        peak_memory_bytes=INT64,
        numbers_repaired=INT64,
        forward_passes=INT64,
        flops=INT64,
        load_seconds=FLOAT64,
        tokenise_seconds=FLOAT64,
        prefill_seconds=FLOAT64,
        decode_seconds=FLOAT64,
    ),
    "provenance": _result(key=STRING, value=STRING),
    # One row each of `regression.symptoms.SYMPTOMS`.
    "symptoms": _result(
        symptom=STRING,
        shown=INT64,  # lists, or texts, that show it
        looked_at=INT64,
        expected=BOOL,  # the arm is to have it
        other_arm=optional(STRING),
    ),
}

_SNAPSHOT_KEY = table(collection=STRING, snapshot=STRING)

# What results are of, once a snapshot. Queries and judgements are in the results' Parquet, too:
# verdicts depend on them, and results outlive snapshots.
RESULT_CONTENTS: dict[str, pa.Schema] = {
    "queries": pa.schema([*_SNAPSHOT_KEY, *QUERIES]),
    "judgements": pa.schema([*_SNAPSHOT_KEY, *QRELS]),
}

# One row an act of acceptance: the truth is Parquet here, too.
BASELINES = table(
    baseline_id=STRING,
    collection=STRING,
    arm=optional(STRING),  # null: every arm
    run_date=DATE,
    as_of=DATE,
    name=STRING,
    reason=STRING,
    accepted_at=TIME,  # UTC
)

# Acts of people or of training on which checkpoint is champion. They are kept in the registry of
# checkpoints and never changed.
PROMOTIONS = table(
    promotion_id=STRING,
    act=STRING,  # promote | withdraw
    checkpoint=STRING,  # a reference, or a shipped name
    checkpoint_hash=STRING,
    as_of=DATE,
    name=STRING,
    reason=STRING,
    evaluation=optional(STRING),  # what it rests on; null: a person's word
    decided_at=TIME,  # UTC
)

# What only an experiment has; its results are rows of the tables above, with its name as series.
EXPERIMENT_TABLES: dict[str, pa.Schema] = {
    "experiments": table(
        series=STRING,
        run_date=DATE,
        question=STRING,
        baseline=STRING,
        fingerprint=STRING,
        config=STRING,  # JSON of the experiment
        concluded_at=TIME,  # UTC
    ),
    "experiment_cells": table(
        series=STRING,
        run_date=DATE,
        collection=STRING,
        arm=STRING,
        arm_hash=optional(STRING),  # null: it has no results
        variant=STRING,
        place=INT32,  # in the grid
        reason=optional(STRING),  # why it has no results
        ranked_at=optional(TIME),  # UTC
    ),
    # What a result was held against, measure by measure, paired by query.
    "comparisons": _result(
        measure=STRING,
        against_kind=STRING,
        against_date=DATE,
        against_arm=STRING,
        against_arm_hash=STRING,
        queries=INT32,  # that both have
        value=FLOAT64,
        against_value=FLOAT64,
        delta=FLOAT64,
        ci_low=FLOAT64,
        ci_high=FLOAT64,
        better=INT32,
        worse=INT32,
        p=optional(FLOAT64),  # null: not tested
        p_holm=optional(FLOAT64),
        tests=INT32,
        family=STRING,
    ),
}


def dicts_to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows by column name as a table; KeyError where one lacks a column of the schema."""
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def keyed_table(
    key: Mapping[str, Any], rows: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema
) -> pa.Table:
    """Rows as a table of `schema`, with the key's values in each of them.

    Args:
        key: {column: value}, the same for all rows.
        rows: the other columns.
    """
    if not isinstance(rows, pa.Table):
        rows = dicts_to_table(rows, pa.schema([f for f in schema if f.name not in key]))
    columns = [
        pa.repeat(pa.scalar(key[field.name], field.type), len(rows))
        if field.name in key
        else rows[field.name]
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def rows_to_table(rows: Sequence[tuple], schema: pa.Schema) -> pa.Table:
    """Tuples in the schema's column order as a table, none at all included."""
    columns: Any = zip(*rows, strict=True) if rows else [[]] * len(schema)
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)
