"""Results as the evaluate stage publishes them, with values and rankings as a test wants them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.schemas import EXPERIMENT_TABLES, RESULT_TABLES, rows_to_table

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


def publish_experiment(root: Path, run_date: date, name: str = "orders") -> Artifact:
    """Publish one run of an experiment: a baseline, and a variant of two cells, over 10 queries."""
    key = (name, run_date)
    at = datetime(2026, 1, 1, 3, tzinfo=UTC).replace(tzinfo=None)
    tables: dict[str, list[tuple]] = {table: [] for table in EXPERIMENT_TABLES}
    question = "Does the order matter?"
    tables["experiments"] = [(*key, "complete", question, "base", 3, 0, "print", "{}", at)]
    for cell, variant, value in (("a", "base", 0.3), ("b", "seeds", 0.4), ("c", "seeds", 0.6)):
        run = ("arm", "{}", "r", "snapshots/c/s", 10, 10, 10, 0, 0, 512, "cpu", 21.0, 1.0)
        work = (1000, 100, 9, 10**9, 0, 10**9)
        about = (*key, cell, "c", cell, variant, "perank", "complete", None, "{}")
        tables["experiment_cells"].append((*about, *run, *work))
        tables["experiment_measures"].append((*key, cell, "nDCG@10", value, 10))
        tables["experiment_query_measures"] += [
            (*key, cell, f"q{i}", "nDCG@10", value) for i in range(10)
        ]
        tables["experiment_rankings"] += [(*key, cell, f"q{i}", "p", 1, 1.0, 1) for i in range(10)]
    tested = (10, 0.5, 0.3, 0.2, 0.1, 0.3, 1.2, 10, 0, 0.002, 0.002, 1)
    tables["experiment_tests"] = [(*key, "c", "seeds", "base", "nDCG@10", *tested)]
    tables["experiment_provenance"] = [(*key, "code", "abc")]
    artifact = Store(root).artifact("experiments", name, artifact_key(rows=repr(tables)))
    for table, schema in EXPERIMENT_TABLES.items():
        artifact.write_part(table, rows_to_table(tables[table], schema), schema)
    artifact.publish(
        expected=dict.fromkeys(EXPERIMENT_TABLES, 1),
        inputs={},
        config={"run_date": run_date.isoformat()},
        counts={},
        provenance={},
    )
    return artifact
