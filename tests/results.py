"""Results as the evaluate stage publishes them, with values and rankings as a test wants them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import NIGHTLY
from perank_tasks.schemas import (
    EXPERIMENT_TABLES,
    PASSAGES,
    RESULT_CONTENTS,
    RESULT_TABLES,
    dicts_to_table,
    keyed_table,
)
from perank_tasks.support.meter import WORK

RANKERS = {"bm25": "first-stage", "llm-off": "perank"}
"""Of arms that are not called by their ranker's name."""

DERIVED = ("comparisons", "verdicts", "cost_verdicts", "drift", "rescored")
"""Tables of what nights are judged to be."""

CONTENTS = (*RESULT_CONTENTS, "passages")
"""Tables of what results are of."""

QUERIES = 24
BASE = np.random.default_rng(4).uniform(0.3, 0.8, QUERIES)
JITTER = np.random.default_rng(5).normal(0, 0.05, QUERIES)
JITTER -= JITTER.mean()


def drop(delta: float) -> np.ndarray:
    """The base values, lower by `delta` in the mean and by more or less for each query."""
    return np.clip(BASE + JITTER - delta, 0, 1)


def publish_results(
    root: Path,
    run_date: date,
    arms: Mapping[str, np.ndarray],
    *,
    collection: str = "c",
    series: str = NIGHTLY,
    order: Sequence[int] = range(12),
    status: str = "complete",
    configs: Mapping[str, str] | None = None,
    provenance: Mapping[str, str] | None = None,
    symptoms: Mapping[str, Mapping[str, int]] | None = None,
    expected: Sequence[str] = (),
    seconds: float = 24.0,
    hour: int = 2,
) -> Artifact:
    """Publish one night: per-query nDCG@10 of every arm, all rankings in the given order.

    Args:
        configs: {arm: first stage}, where it is not the usual one; the hash follows.
        symptoms: {arm: {symptom: lists that show it}}.
        expected: symptoms that the arms are to have.
        seconds: that reranking took.
        hour: of evaluation, so that a second run of a date is another artifact.
    """
    by_arm = []
    for arm, values in arms.items():
        ranker = RANKERS.get(arm, arm)
        settings = {"ranker": ranker, "first_stage.kind": (configs or {}).get(arm, "bm25")}
        if arm == "llm-off":
            settings["decoding"] = "residual"
        config = json.dumps(settings)
        key = {
            "series": series,
            "run_date": run_date,
            "collection": collection,
            "arm": arm,
            "arm_hash": artifact_key(config=config)[:10],
        }
        queries = [f"q{i:02}" for i in range(len(values))]
        n = len(queries)
        facts = {
            "collection.qrels_hash": "j",
            "code": "abc",
            "commit": "c0ffee",
            "library.torch": "2.13",
            "threads": "2",
        }
        by_measure = {"nDCG@10": values, "judged@10": np.ones(n)}
        run = {
            "status": status,
            "ranking_hash": f"{list(order)}",
            "snapshot": f"snapshots/{collection}/s",
            "snapshot_date": None,
            "fingerprint": "print",
            "passages": 10,
            "queries": n,
            "collection_queries": n,
            "judged_queries": n,
            **dict.fromkeys(("unranked_queries", "cut_queries"), 0),
            "unranked_reason": "its model is gone" if status == "incomplete" else None,
            **dict.fromkeys(("stale_judgements", "unknown_judgements"), 0),
            **{"top_10_results": 10 * n, "top_10_unjudged": 0},
            "config": config,
            "evaluated_at": datetime(2026, 1, 1, hour, tzinfo=UTC).replace(tzinfo=None),
        }
        rows: dict[str, list[dict[str, Any]]] = {
            "runs": [run],
            "measures": [
                {"measure": measure, "value": float(np.mean(by_query)), "queries": n}
                for measure, by_query in by_measure.items()
            ],
            "query_measures": [
                {"query_id": q, "measure": measure, "value": float(v)}
                for measure, by_query in by_measure.items()
                for q, v in zip(queries, by_query, strict=True)
            ],
            "rankings": [
                {
                    "query_id": q,
                    "passage_id": f"p{p:02}",
                    "rank": rank,
                    "score": 1 / rank,
                    "first_stage_rank": p + 1,
                }
                for q in queries
                for rank, p in enumerate(order, 1)
            ],
            "efficiency": [efficiency(n, seconds)],
            "provenance": [
                {"key": name, "value": value}
                for name, value in {**facts, **(provenance or {})}.items()
            ],
            "symptoms": [
                {
                    "symptom": name,
                    "shown": shown,
                    "looked_at": n,
                    "expected": name in expected,
                    "other_arm": None,
                }
                for name, shown in (symptoms or {}).get(arm, {}).items()
            ],
        }
        by_arm.append({t: keyed_table(key, rows[t], s) for t, s in RESULT_TABLES.items()})
    tables = {t: pa.concat_tables(of[t] for of in by_arm) for t in RESULT_TABLES}
    return publish_tables(root, collection, tables)


def publish_snapshot(root: Path, collection: str = "c") -> None:
    """The snapshot that results are of, with the texts of its passages; the last is ranked by
    nobody."""
    passages = [
        {"passage_id": p, "title": None, "text": f"about {p}", "text_hash": p, "aliases": None}
        for p in (*(f"p{i:02}" for i in range(12)), "p99")
    ]
    artifact = Store(root).artifact("snapshots", collection, "s")
    artifact.write_part("passages", dicts_to_table(passages, PASSAGES), PASSAGES)
    artifact.publish(expected={"passages": 1}, inputs={}, config={}, counts={}, provenance={})


def contents(collection: str, snapshot: str, queries: Sequence[str]) -> dict[str, pa.Table]:
    """Of a snapshot: texts of the queries, and three passages judged relevant to each: what the
    usual order has first and tenth, and one that is ranked by nobody."""
    key = {"collection": collection, "snapshot": snapshot}
    rows: dict[str, list[dict[str, Any]]] = {
        "queries": [
            {"query_id": q, "text": f"what is {q}", "is_passage": False, "tags": []}
            for q in queries
        ],
        "judgements": [
            {"query_id": q, "passage_id": passage, "relevance": 1}
            for q in queries
            for passage in ("p00", "p09", "p99")
        ],
    }
    return {table: keyed_table(key, rows[table], s) for table, s in RESULT_CONTENTS.items()}


def efficiency(queries: int, seconds: float) -> dict[str, Any]:
    """A row of `efficiency`, without its key: what reranking took."""
    return {
        "stage": "rerank",
        "device": "cpu",
        "seconds": seconds,
        "items": queries,
        "items_per_second": queries / seconds,
        "tokens_in": 100 * queries,
        "decode_steps": 10 * queries,
        "peak_memory_bytes": 10**9,
        "numbers_repaired": 0,
        **dict.fromkeys(WORK, 1),
    }


def publish_tables(root: Path, collection: str, tables: Mapping[str, pa.Table]) -> Artifact:
    """Publish result tables as a results artifact."""
    name = artifact_key(rows=repr({table: rows.to_pylist() for table, rows in tables.items()}))
    (snapshot,) = tables["runs"]["snapshot"].unique().to_pylist()
    queries = tables["rankings"]["query_id"].unique().to_pylist()
    artifact = Store(root).artifact("results", collection, name)
    schemas = RESULT_TABLES | RESULT_CONTENTS
    for table, rows in {**contents(collection, snapshot, queries), **tables}.items():
        artifact.write_part(table, rows, schemas[table])
    artifact.publish(
        expected=dict.fromkeys(schemas, 1), inputs={}, config={}, counts={}, provenance={}
    )
    return artifact


def publish_experiment(
    root: Path, run_date: date, name: str = "orders"
) -> tuple[Artifact, Artifact]:
    """Publish one run of an experiment: a baseline, and a variant of two cells, over 10 queries.

    Returns:
        Its results, and what only an experiment has.
    """
    values = {"base": 0.3, "seed 1": 0.4, "seed 2": 0.6}
    arms = {arm: np.full(10, value) for arm, value in values.items()}
    results = publish_results(root, run_date, arms, series=name, seconds=21.0)
    hashes = {row["arm"]: row["arm_hash"] for row in results.read("runs").to_pylist()}
    key = {"series": name, "run_date": run_date}
    at = datetime(2026, 1, 1, 3, tzinfo=UTC).replace(tzinfo=None)
    question = {"question": "Does the order matter?", "baseline": "base"}
    compared = {
        **key,
        **{"collection": "c", "arm": "seeds", "arm_hash": "of-both", "measure": "nDCG@10"},
        **{"against_kind": "baseline", "against_date": run_date},
        **{"against_arm": "base", "against_arm_hash": hashes["base"], "family": name},
        **{"queries": 10, "value": 0.5, "against_value": 0.3, "delta": 0.2},
        **{"ci_low": 0.1, "ci_high": 0.3, "better": 10, "worse": 0},
        **{"p": 0.002, "p_holm": 0.002, "tests": 1},
    }
    rows: dict[str, list[dict[str, Any]]] = {
        "experiments": [
            {**key, **question, "fingerprint": "print", "config": "{}", "concluded_at": at}
        ],
        "experiment_cells": [
            {
                **key,
                "collection": "c",
                "arm": arm,
                "arm_hash": arm_hash,
                "variant": "base" if arm == "base" else "seeds",
                "place": place,
                "reason": None,
                "ranked_at": at,
            }
            for place, (arm, arm_hash) in enumerate(hashes.items())
        ],
        "comparisons": [compared],
    }
    artifact = Store(root).artifact("experiments", name, artifact_key(rows=repr(rows)))
    for table, schema in EXPERIMENT_TABLES.items():
        artifact.write_part(table, dicts_to_table(rows[table], schema), schema)
    artifact.publish(
        expected=dict.fromkeys(EXPERIMENT_TABLES, 1),
        inputs={"c": results.reference},
        config={"run_date": run_date.isoformat()},
        counts={},
        provenance={},
    )
    return results, artifact
