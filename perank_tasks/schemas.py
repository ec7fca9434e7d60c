"""Every Arrow schema of the pipeline, written once.

Artifacts between stages, first; then the result tables, which are the same in Parquet
and in DuckDB (`sql/schema/` creates them there; a test compares the two); then what is
derived from those in DuckDB alone; then what only
experiments have, in Parquet and in DuckDB.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

PASSAGES = pa.schema(
    [
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        # Of title and text: names what was read, whatever the id (see `text_hash`).
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("aliases", pa.list_(pa.string())),
    ]
)

QUERIES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)

QRELS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("relevance", pa.int32(), nullable=False),
    ]
)

# A run that came with the collection and can stand in for BM25.
GIVEN_RUN = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)


def embeddings(dimension: int, precision: Literal["float32", "float16"]) -> pa.Schema:
    """Schema of L2-normalised embeddings: one row a text, `dimension` values each."""
    value = {"float32": pa.float32(), "float16": pa.float16()}[precision]
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(value, dimension), nullable=False),
        ]
    )


CANDIDATES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # from 1
        pa.field("score", pa.float64(), nullable=False),
    ]
)

# What one shard of an index found, while the others are still searched.
FOUND = pa.schema(
    [
        pa.field("query", pa.int32(), nullable=False),  # from 0, in the night's order
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)

RANKINGS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # from 1, dense
        pa.field("score", pa.float64(), nullable=False),  # listwise arms: 1 / rank
        pa.field("first_stage_rank", pa.int32(), nullable=False),
    ]
)

# One row a query and arm: what ranking it took, or why it kept its first-stage order.
QUERY_STATUS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("candidates", pa.int32(), nullable=False),
        pa.field("unranked_reason", pa.string()),  # null: ranked
        pa.field("query_was_cut", pa.bool_(), nullable=False),
        pa.field("markers_defused", pa.int32(), nullable=False),
        pa.field("windows", pa.int32(), nullable=False),
        pa.field("tokens_in", pa.int64(), nullable=False),
        pa.field("decode_steps", pa.int64(), nullable=False),
        pa.field("numbers_missing", pa.int32(), nullable=False),
        pa.field("numbers_repeated", pa.int32(), nullable=False),
    ]
)

# Passages of several collections, each text once. A list of candidates names them by row.
TRAINING_PASSAGES = pa.schema(
    [
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),  # as embedders and LLMs read it
        pa.field("text_hash", pa.string(), nullable=False),
    ]
)

# Where the passages of each collection are among these.
TRAINING_SOURCES = pa.schema(
    [
        pa.field("collection", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("passage_row", pa.int64(), nullable=False),
    ]
)

TRAINING_QUERIES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # collection, file or `cloze`
        pa.field("passage_row", pa.int64()),  # of the passage that a cloze query is from
    ]
)

ALIGNMENT_DATA = pa.schema([pa.field("passage_row", pa.int64(), nullable=False)])

# One row a list of n candidates; all lists are in the order of the prompt.
RANKING_DATA = pa.schema(
    [
        pa.field("query_row", pa.int64(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("list", pa.int32(), nullable=False),  # which of the query's, from 0
        pa.field("passage_rows", pa.list_(pa.int64()), nullable=False),
        # Indices into the list, best first.
        pa.field("ranking", pa.list_(pa.int32()), nullable=False),
        pa.field("bm25", pa.list_(pa.float32())),  # null: not known
        pa.field("teacher", pa.list_(pa.float32())),  # null: no teacher
        pa.field("grades", pa.list_(pa.int32())),  # null: no judgements
        pa.field("hard", pa.list_(pa.bool_())),  # or drawn at random; null: not known
    ]
)

_RESULT_KEY = [
    pa.field("series", pa.string(), nullable=False),  # `nightly`, or an experiment's name
    pa.field("run_date", pa.date32(), nullable=False),
    pa.field("collection", pa.string(), nullable=False),
    pa.field("arm", pa.string(), nullable=False),
    pa.field("arm_hash", pa.string(), nullable=False),
]

RESULT_TABLES: dict[str, pa.Schema] = {
    "runs": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("status", pa.string(), nullable=False),  # complete | incomplete
            pa.field("ranking_hash", pa.string(), nullable=False),
            pa.field("snapshot", pa.string(), nullable=False),
            pa.field("snapshot_date", pa.date32()),  # null: the collection has no dates
            pa.field("fingerprint", pa.string(), nullable=False),
            pa.field("passages", pa.int64(), nullable=False),
            pa.field("queries", pa.int64(), nullable=False),
            pa.field("judged_queries", pa.int64(), nullable=False),
            pa.field("unranked_queries", pa.int64(), nullable=False),
            pa.field("cut_queries", pa.int64(), nullable=False),
            pa.field("stale_judgements", pa.int64(), nullable=False),
            pa.field("unknown_judgements", pa.int64(), nullable=False),
            pa.field("config", pa.string(), nullable=False),  # JSON of the arm
            pa.field("evaluated_at", pa.timestamp("us"), nullable=False),  # UTC
        ]
    ),
    "measures": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("measure", pa.string(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
            pa.field("queries", pa.int64(), nullable=False),
        ]
    ),
    "query_measures": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("query_id", pa.string(), nullable=False),
            pa.field("measure", pa.string(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
        ]
    ),
    "rankings": pa.schema([*_RESULT_KEY, *RANKINGS]),
    "efficiency": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("stage", pa.string(), nullable=False),
            pa.field("device", pa.string(), nullable=False),
            pa.field("seconds", pa.float64(), nullable=False),
            pa.field("items", pa.int64(), nullable=False),  # queries or passages
            pa.field("items_per_second", pa.float64()),
            pa.field("tokens_in", pa.int64(), nullable=False),
            pa.field("decode_steps", pa.int64(), nullable=False),
            pa.field("peak_memory_bytes", pa.int64(), nullable=False),
            pa.field("numbers_repaired", pa.int64(), nullable=False),
            pa.field("forward_passes", pa.int64(), nullable=False),
            pa.field("flops", pa.int64(), nullable=False),
            pa.field("load_seconds", pa.float64(), nullable=False),
            pa.field("tokenise_seconds", pa.float64(), nullable=False),
            pa.field("prefill_seconds", pa.float64(), nullable=False),
            pa.field("decode_seconds", pa.float64(), nullable=False),
        ]
    ),
    "provenance": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("key", pa.string(), nullable=False),
            pa.field("value", pa.string(), nullable=False),
        ]
    ),
}

# One row an act of acceptance: the truth is Parquet here, too.
BASELINES = pa.schema(
    [
        pa.field("baseline_id", pa.string(), nullable=False),
        pa.field("collection", pa.string(), nullable=False),
        pa.field("arm", pa.string()),  # null: every arm
        pa.field("run_date", pa.date32(), nullable=False),
        pa.field("as_of", pa.date32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("accepted_at", pa.timestamp("us"), nullable=False),  # UTC
    ]
)

# One row a decision on which checkpoint nights use, for good: the registry's, not the warehouse's.
PROMOTIONS = pa.schema(
    [
        pa.field("promotion_id", pa.string(), nullable=False),
        pa.field("act", pa.string(), nullable=False),  # promote | withdraw
        pa.field("checkpoint", pa.string(), nullable=False),  # a reference, or a shipped name
        pa.field("checkpoint_hash", pa.string(), nullable=False),
        pa.field("as_of", pa.date32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("evaluation", pa.string()),  # what it rests on; null: a person's word
        pa.field("decided_at", pa.timestamp("us"), nullable=False),  # UTC
    ]
)

DERIVED_TABLES: dict[str, pa.Schema] = {
    # What a result was held against, measure by measure, paired by query.
    "comparisons": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("measure", pa.string(), nullable=False),
            pa.field("against_kind", pa.string(), nullable=False),
            pa.field("against_date", pa.date32(), nullable=False),
            pa.field("against_arm", pa.string(), nullable=False),
            pa.field("against_arm_hash", pa.string(), nullable=False),
            pa.field("queries", pa.int32(), nullable=False),  # that both have
            pa.field("value", pa.float64(), nullable=False),
            pa.field("against_value", pa.float64(), nullable=False),
            pa.field("delta", pa.float64(), nullable=False),
            pa.field("ci_low", pa.float64(), nullable=False),
            pa.field("ci_high", pa.float64(), nullable=False),
            pa.field("better", pa.int32(), nullable=False),
            pa.field("worse", pa.int32(), nullable=False),
            pa.field("p", pa.float64()),  # null: not tested
            pa.field("p_holm", pa.float64()),
            pa.field("tests", pa.int32(), nullable=False),
            pa.field("family", pa.string(), nullable=False),
        ]
    ),
    "verdicts": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("measure", pa.string(), nullable=False),
            pa.field("verdict", pa.string(), nullable=False),
            pa.field("reason", pa.string()),
            # With the key they name a row of `comparisons`.
            pa.field("against_date", pa.date32()),
            pa.field("against_arm_hash", pa.string()),
            pa.field("band_low", pa.float64()),
            pa.field("band_high", pa.float64()),
            pa.field("nights", pa.int32(), nullable=False),
            pa.field("trend_p", pa.float64()),
        ]
    ),
    "cost_verdicts": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("quantity", pa.string(), nullable=False),
            pa.field("verdict", pa.string(), nullable=False),
            pa.field("device", pa.string(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
            pa.field("band_low", pa.float64()),
            pa.field("band_high", pa.float64()),
            pa.field("nights", pa.int32(), nullable=False),
        ]
    ),
    "drift": pa.schema(
        [
            *_RESULT_KEY,
            pa.field("query_id", pa.string(), nullable=False),
            pa.field("against_date", pa.date32(), nullable=False),
            pa.field("against_arm_hash", pa.string(), nullable=False),
            pa.field("changed_top_10", pa.bool_(), nullable=False),
            pa.field("overlap_10", pa.float64(), nullable=False),
            pa.field("rbo", pa.float64(), nullable=False),
            pa.field("kendall_tau", pa.float64()),
            pa.field("largest_move", pa.int32(), nullable=False),
            pa.field("largest_move_passage", pa.string()),
            pa.field("score_shift", pa.float64(), nullable=False),
        ]
    ),
}


# What only an experiment has; its results are rows of the tables above, with its name as series.
EXPERIMENT_TABLES: dict[str, pa.Schema] = {
    "experiments": pa.schema(
        [
            pa.field("series", pa.string(), nullable=False),
            pa.field("run_date", pa.date32(), nullable=False),
            pa.field("question", pa.string(), nullable=False),
            pa.field("baseline", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
            pa.field("config", pa.string(), nullable=False),  # JSON of the experiment
            pa.field("concluded_at", pa.timestamp("us"), nullable=False),  # UTC
        ]
    ),
    "experiment_cells": pa.schema(
        [
            pa.field("series", pa.string(), nullable=False),
            pa.field("run_date", pa.date32(), nullable=False),
            pa.field("collection", pa.string(), nullable=False),
            pa.field("arm", pa.string(), nullable=False),
            pa.field("arm_hash", pa.string()),  # null: it has no results
            pa.field("variant", pa.string(), nullable=False),
            pa.field("place", pa.int32(), nullable=False),  # in the grid
            pa.field("reason", pa.string()),  # why it has no results
            pa.field("ranked_at", pa.timestamp("us")),  # UTC
        ]
    ),
    "comparisons": DERIVED_TABLES["comparisons"],
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
