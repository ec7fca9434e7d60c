"""Results as the evaluate stage publishes them, with values and rankings as a test wants them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from perank_tasks.artifacts import Artifact, Store, artifact_key
from perank_tasks.schemas import RESULT_TABLES, rows_to_table

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
    order: Sequence[int] = range(12),
    status: str = "complete",
    configs: Mapping[str, str] | None = None,
    provenance: Mapping[str, str] | None = None,
    seconds: float = 24.0,
    hour: int = 2,
) -> Artifact:
    """Publish one night: per-query nDCG@10 of every arm, all rankings in the given order.

    Args:
        configs: {arm: first stage}, where it is not the usual one; the hash follows.
        seconds: that reranking took.
        hour: of evaluation, so that a second run of a date is another artifact.
    """
    tables: dict[str, list[tuple]] = {table: [] for table in RESULT_TABLES}
    for arm, values in arms.items():
        config = json.dumps({"name": arm, "first_stage": (configs or {}).get(arm, "bm25")})
        key = (run_date, collection, arm, artifact_key(config=config)[:10])
        queries = [f"q{i:02}" for i in range(len(values))]
        at = datetime(2026, 1, 1, hour, tzinfo=UTC).replace(tzinfo=None)
        n = len(queries)
        ranking = f"{list(order)}"
        tables["runs"].append(
            (
                *key,
                status,
                ranking,
                "snapshots/c/s",
                None,
                "print",
                10,
                n,
                n,
                0,
                0,
                0,
                0,
                config,
                at,
            )
        )
        for measure, by_query in (("nDCG@10", values), ("judged@10", np.ones(n))):
            tables["measures"].append((*key, measure, float(np.mean(by_query)), n))
            tables["query_measures"] += [
                (*key, q, measure, float(v)) for q, v in zip(queries, by_query, strict=True)
            ]
        tables["rankings"] += [
            (*key, q, f"p{p:02}", rank, 1 / rank, p + 1)
            for q in queries
            for rank, p in enumerate(order, 1)
        ]
        tables["efficiency"].append(
            (*key, "rerank", "cpu", seconds, n, n / seconds, 100 * n, 10 * n, 10**9, 0, *range(6))
        )
        facts = {"code": "abc", "commit": "c0ffee", "library.torch": "2.13", "threads": "2"}
        for name, value in {**facts, **(provenance or {})}.items():
            tables["provenance"].append((*key, name, value))
    store = Store(root)
    name = artifact_key(rows=repr(tables))
    artifact = store.artifact("results", collection, name)
    for table, schema in RESULT_TABLES.items():
        artifact.write_part(table, rows_to_table(tables[table], schema), schema)
    artifact.publish(
        expected=dict.fromkeys(RESULT_TABLES, 1), inputs={}, config={}, counts={}, provenance={}
    )
    return artifact
