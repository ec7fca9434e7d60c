"""Evaluate: the measures of every arm, and all rows of the night, as Parquet.

In: the night's rankings; snapshot, candidates and embeddings are found through their
manifests. Out: the artifact `results/<collection>/<key>` with exactly the rows that the
warehouse will hold (`schemas.RESULT_TABLES`), and the queries and judgements that they were
measured by: loading is copying, and the warehouse can be made again from these files alone.
They are held against `sql/checks/` before they count.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.artifacts.store import Artifact, Manifest, Store, artifact_key
from perank_tasks.collections.odd import in_words
from perank_tasks.config import Arm, Night
from perank_tasks.models.vectors import Transform
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import read_qrels, read_queries, snapshot_date
from perank_tasks.night.symptoms import mark_twins, symptom_rows
from perank_tasks.regression.measures import MEASURES, evaluate_run
from perank_tasks.schemas import RESULT_CONTENTS, RESULT_TABLES, keyed_table
from perank_tasks.warehouse.quality import check_night


def evaluate(
    night: Night,
    site: Site,
    rankings: dict[str, str],
    measured: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Measure every arm's ranking and publish the night's rows; returns the reference.

    Args:
        rankings: {`Arm.hash`: reference}.
        measured: {`Arm.hash`: ids of the queries that it is measured by}; of an arm that is not in
            it, all judged ones.

    Raises:
        QualityError: the rows contradict themselves; `sql/checks/` says what is checked.
    """
    store = site.store
    key = artifact_key(
        series=night.series,
        date=night.run_date,
        fingerprint=night.fingerprint_hash,
        rankings=rankings,
        arms=[(arm.name, arm.expect) for arm in night.arms],
        measured=measured,
        measures=MEASURES,
        max_unranked=night.options.max_unranked,
    )
    results = store.artifact("results", night.collection_name, key)
    if results.is_published:
        return results.reference

    opened = {arm.hash: store.open(rankings[arm.hash]) for arm in night.arms}
    by_arm = [
        arm_tables(night, arm, store, opened[arm.hash], (measured or {}).get(arm.hash))
        for arm in night.arms
    ]
    mark_twins(by_arm)
    tables = {table: pa.concat_tables(of[table] for of in by_arm) for table in RESULT_TABLES}
    inputs = [artifact.manifest.inputs for artifact in opened.values()]
    embeddings = sorted({i["embeddings"] for i in inputs if "embeddings" in i})
    check_night(tables, _candidates(night, store, opened), map(store.open, embeddings))
    schemas = RESULT_TABLES | RESULT_CONTENTS
    tables |= _contents_of(night, store, tables["runs"])
    for table, schema in schemas.items():
        results.write_part(table, tables[table], schema)
    return results.publish(
        expected=dict.fromkeys(schemas, 1),
        inputs={f"rankings {arm}": reference for arm, reference in rankings.items()},
        config={"measures": MEASURES},
        counts={table: len(rows) for table, rows in tables.items()},
        provenance=night.fingerprint,
    )


def _contents_of(night: Night, store: Store, runs: pa.Table) -> dict[str, pa.Table]:
    """The tables of `schemas.RESULT_CONTENTS`, of the snapshot that the night's arms ranked."""
    (reference,) = runs["snapshot"].unique().to_pylist()
    key = {"collection": night.collection_name, "snapshot": reference}
    names = {"queries": "queries", "judgements": "qrels"}
    snapshot = store.open(reference)
    return {
        table: keyed_table(key, snapshot.read(names[table]), schema)
        for table, schema in RESULT_CONTENTS.items()
    }


def _candidates(night: Night, store: Store, rankings: Mapping[str, Artifact]) -> pa.Table:
    """What each arm was to rank: arm_hash, query_id, passage_id."""
    tables = []
    for arm in night.arms:
        candidates = store.open(rankings[arm.hash].manifest.inputs["candidates"])
        columns = ["query_id", "passage_id"]
        table = candidates.read("candidates", columns, pc.field("rank") <= arm.depth)
        tables.append(
            table.append_column("arm_hash", pa.array([arm.hash] * len(table), pa.string()))
        )
    return pa.concat_tables(tables)


def arm_tables(
    night: Night,
    arm: Arm,
    store: Store,
    rankings: Artifact,
    measured: Sequence[str] | None = None,
) -> dict[str, pa.Table]:
    """The rows of one arm, by result table.

    Args:
        measured: ids of the queries that it is measured by; None: all judged ones.
    """
    candidates = store.open(rankings.manifest.inputs["candidates"])
    snapshot = store.open(candidates.manifest.inputs["snapshot"])
    table = rankings.read("rankings")
    ranking = table.to_pylist()
    status_table = rankings.read("queries")
    status = status_table.to_pylist()
    queries = dict(read_queries(night, snapshot))
    wanted = queries if measured is None else measured
    qrels = {query: grades for query, grades in read_qrels(snapshot).items() if query in wanted}
    values = _measured(ranking, qrels, snapshot)
    facts = _facts(night, arm, store, rankings, snapshot, status)
    stages = _stages(store, rankings, candidates, snapshot)
    rows: dict[str, pa.Table | list[dict[str, Any]]] = {
        "runs": [
            {
                **_counted(night, snapshot, status),
                **_count_unjudged(ranking, qrels),
                "ranking_hash": _ranking_hash(ranking),
                "snapshot": snapshot.reference,
                "snapshot_date": snapshot_date(snapshot),
                "fingerprint": night.fingerprint_hash,
                "queries": len(queries),
                "collection_queries": snapshot.manifest.counts["queries"],
                "judged_queries": len(qrels),
                "config": json.dumps(arm.settings(), sort_keys=True),
                "evaluated_at": datetime.now(UTC).replace(tzinfo=None),
            }
        ],
        "measures": [
            {"measure": measure, "value": sum(of.values()) / len(of), "queries": len(of)}
            for measure, of in values.items()
            if of
        ],
        "query_measures": [
            {"query_id": query_id, "measure": measure, "value": value}
            for measure, by_query in values.items()
            for query_id, value in by_query.items()
        ],
        "rankings": table,
        "efficiency": [{"stage": stage, **_efficiency(m)} for stage, m in stages.items()],
        "provenance": [{"key": name, "value": str(fact)} for name, fact in facts.items()],
        "symptoms": symptom_rows(table, status_table, arm.expect),
    }
    key = {
        "series": night.series,
        "run_date": night.run_date,
        "collection": night.collection_name,
        "arm": arm.name,
        "arm_hash": arm.hash,
    }
    return {t: keyed_table(key, rows[t], schema) for t, schema in RESULT_TABLES.items()}


def _measured(
    ranking: list[dict[str, Any]], qrels: dict[str, dict[str, int]], snapshot: Artifact
) -> Mapping[str, Mapping[str, float]]:
    run: dict[str, dict[str, float]] = defaultdict(dict)
    for row in ranking:
        # Ranks, not scores: what is measured is the order that the table shows, ties included.
        run[row["query_id"]][row["passage_id"]] = -row["rank"]
    return evaluate_run(run, qrels, snapshot.manifest.config["relevance_level"])


def _counted(night: Night, snapshot: Artifact, status: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run's row counts, and whether enough of its queries were ranked."""
    unranked = sum(row["unranked_reason"] is not None for row in status)
    reasons = Counter(filter(None, (row["unranked_reason"] for row in status))).most_common(1)
    incomplete = unranked > night.options.max_unranked * len(status)
    counts = snapshot.manifest.counts
    return {
        "status": "incomplete" if incomplete else "complete",
        "passages": counts["passages"],
        "unranked_queries": unranked,
        "unranked_reason": reasons[0][0] if reasons else None,
        "cut_queries": sum(row["query_was_cut"] for row in status),
        "stale_judgements": counts["stale_judgements"],
        "unknown_judgements": counts["unknown_judgements"],
    }


def _count_unjudged(
    ranking: list[dict[str, Any]], qrels: dict[str, dict[str, int]]
) -> dict[str, int]:
    """How many results are in the first ten of judged queries, and how many nobody judged."""
    top = [row for row in ranking if row["rank"] <= 10 and row["query_id"] in qrels]
    unjudged = sum(row["passage_id"] not in qrels[row["query_id"]] for row in top)
    return {"top_10_results": len(top), "top_10_unjudged": unjudged}


def _facts(
    night: Night,
    arm: Arm,
    store: Store,
    rankings: Artifact,
    snapshot: Artifact,
    status: list[dict[str, Any]],
) -> dict[str, Any]:
    """What is recorded of how an arm's results came about."""
    inputs = rankings.manifest.inputs
    return {
        **night.fingerprint,
        **{f"artifact.{name}": reference for name, reference in inputs.items()},
        "artifact.rankings": rankings.reference,
        "artifact.snapshot": snapshot.reference,
        "collection.spec": night.collection,
        "queries.markers_defused": sum(row["markers_defused"] for row in status),
        "collection.relevance_level": snapshot.manifest.config["relevance_level"],
        **_contents(snapshot),
        **_odd(arm, snapshot, status),
        **_embedder(store, arm, inputs),
        **_promotion(night, arm),
        **({"run.content": run} if (run := arm.first_stage.run_content) else {}),
        **{f"model.{name}": value for name, value in rankings.manifest.counts["model"].items()},
    }


def _stages(
    store: Store, rankings: Artifact, candidates: Artifact, snapshot: Artifact
) -> dict[str, Manifest]:
    """The manifests of everything this arm's ranking took, in order."""
    used = {"snapshot": snapshot.manifest}
    inputs = (rankings.manifest.inputs, candidates.manifest.inputs)
    # Of the arm, else of the first stage alone.
    if embeddings := next((i["embeddings"] for i in inputs if "embeddings" in i), None):
        used["embed"] = store.open(embeddings).manifest
    if index := candidates.manifest.inputs.get("index"):
        used["index"] = store.open(index).manifest
    return used | {"retrieve": candidates.manifest, "rerank": rankings.manifest}


def _efficiency(manifest: Manifest) -> dict[str, Any]:
    stats = manifest.counts["stats"]
    speed = stats["items"] / stats["seconds"] if stats["seconds"] else None
    return stats | {"items_per_second": speed}


def _embedder(store: Store, arm: Arm, inputs: dict[str, str]) -> dict[str, Any]:
    if "embeddings" not in inputs:
        return {}
    embeddings = store.open(inputs["embeddings"])
    identity = embeddings.manifest.config["embedder"]
    column = embeddings.dataset("passages").schema.field("embedding").type
    bits = column.list_size * column.value_type.bit_width
    if transform := arm.options.get("transform"):
        bits = Transform.parse(transform).bits(column.list_size)
    named = {f"embedder.{name}": value for name, value in identity.items()}
    counts = embeddings.manifest.counts
    if counts["cut_passages"]:
        rows = embeddings.dataset("passages").count_rows()
        named["odd.long_passages"] = (
            f"passages longer than the {counts['max_length']} tokens that {identity['name']} "
            "reads, embedded by their beginning alone (split them into passages): "
            f"{counts['cut_passages']:,} of {rows:,}"
        )
    return {**named, "embeddings.bits_a_passage": bits}


def _odd(arm: Arm, snapshot: Artifact, status: list[dict[str, Any]]) -> dict[str, str]:
    """What is odd in the collection, and how many queries have no candidates."""
    counts = snapshot.manifest.counts["odd"]
    sentences = {f"odd.{kind}": in_words(kind, count) for kind, count in counts.items()}
    if empty := [row["query_id"] for row in status if not row["candidates"]]:
        remedy = f" (its analyzer is {arm.first_stage.analyzer})" if arm.first_stage.bm25 else ""
        sentences["odd.nothing_found"] = (
            f"queries for which the first stage {arm.first_stage.name} found no passage{remedy}: "
            f"{len(empty):,} of {len(status):,} ({empty[0]} the first)"
        )
    return sentences


def _promotion(night: Night, arm: Arm) -> dict[str, str]:
    """Who made the arm's checkpoint champion, since when and why."""
    if night.promotion is None or night.promotion.checkpoint != arm.options.get("checkpoint"):
        return {}
    act = night.promotion.model_dump(mode="json", exclude={"checkpoint"})
    return {f"promotion.{name.removeprefix('promotion_')}": value for name, value in act.items()}


def _contents(snapshot: Artifact) -> dict[str, str]:
    """How many passages, queries and judgements there are, and a hash of each in order."""
    contents = {}
    for table, columns in (
        ("passages", ["passage_id", "text_hash"]),
        ("queries", ["query_id", "text"]),
        ("qrels", ["query_id", "passage_id", "relevance"]),
    ):
        digest = hashlib.sha256()
        rows = 0
        for batch in snapshot.dataset(table).to_batches(columns=columns, batch_size=65_536):
            digest.update(json.dumps(batch.to_pydict()).encode())
            rows += batch.num_rows
        contents[f"collection.{table}"] = str(rows)
        contents[f"collection.{table}_hash"] = digest.hexdigest()[:16]
    return contents


def _ranking_hash(ranking: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in ranking:
        digest.update(f"{row['query_id']}\t{row['rank']}\t{row['passage_id']}\n".encode())
    return digest.hexdigest()[:16]
