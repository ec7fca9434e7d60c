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

    ranked = [_Ranked(night, arm, store, rankings[arm.hash]) for arm in night.arms]
    by_arm = [of.tables((measured or {}).get(of.arm.hash)) for of in ranked]
    mark_twins(by_arm)
    tables = {table: pa.concat_tables(of[table] for of in by_arm) for table in RESULT_TABLES}
    embeddings = sorted({of.inputs["embeddings"] for of in ranked if "embeddings" in of.inputs})
    check_night(tables, pa.concat_tables(of.asked() for of in ranked), map(store.open, embeddings))
    snapshot = ranked[0].snapshot
    contents = {"queries": snapshot.read("queries"), "judgements": snapshot.read("qrels")}
    whose = {"collection": night.collection_name, "snapshot": snapshot.reference}
    schemas = RESULT_TABLES | RESULT_CONTENTS
    tables |= {t: keyed_table(whose, contents[t], schema) for t, schema in RESULT_CONTENTS.items()}
    for table, schema in schemas.items():
        results.write_part(table, tables[table], schema)
    return results.publish(
        expected=dict.fromkeys(schemas, 1),
        inputs={f"rankings {arm}": reference for arm, reference in rankings.items()},
        config={"measures": MEASURES},
        counts={table: len(rows) for table, rows in tables.items()},
        provenance=night.fingerprint,
    )


class _Ranked:
    """An arm's rankings, and what they were made of."""

    def __init__(self, night: Night, arm: Arm, store: Store, reference: str):
        self.night, self.arm, self.store = night, arm, store
        self.rankings = store.open(reference)
        self.inputs = self.rankings.manifest.inputs
        self.candidates = store.open(self.inputs["candidates"])
        self.snapshot = store.open(self.candidates.manifest.inputs["snapshot"])
        self.status_table = self.rankings.read("queries")
        self.status: list[dict[str, Any]] = self.status_table.to_pylist()

    def asked(self) -> pa.Table:
        """What was to be ranked: query_id, passage_id, arm_hash."""
        columns, is_ranked = ["query_id", "passage_id"], pc.field("rank") <= self.arm.depth
        table = self.candidates.read("candidates", columns, is_ranked)
        return table.append_column("arm_hash", pa.repeat(self.arm.hash, len(table)))

    def tables(self, measured: Sequence[str] | None = None) -> dict[str, pa.Table]:
        """The arm's rows, by result table.

        Args:
            measured: ids of the queries that it is measured by; None: all judged ones.
        """
        night, arm, snapshot = self.night, self.arm, self.snapshot
        table = self.rankings.read("rankings")
        ranking = table.to_pylist()
        queries = dict(read_queries(night, snapshot))
        wanted = queries if measured is None else measured
        qrels = {query: of for query, of in read_qrels(snapshot).items() if query in wanted}
        run: dict[str, dict[str, float]] = defaultdict(dict)
        for row in ranking:
            # Ranks, not scores: what is measured is the order that the table shows, ties included.
            run[row["query_id"]][row["passage_id"]] = -row["rank"]
        values = evaluate_run(run, qrels, snapshot.manifest.config["relevance_level"])
        rows: dict[str, pa.Table | list[dict[str, Any]]] = {
            "runs": [
                {
                    **self._counted(),
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
            "efficiency": [{"stage": name, **_efficiency(m)} for name, m in self._stages().items()],
            "provenance": [{"key": k, "value": str(fact)} for k, fact in self._facts().items()],
            "symptoms": symptom_rows(table, self.status_table, arm.expect),
        }
        key = {
            "series": night.series,
            "run_date": night.run_date,
            "collection": night.collection_name,
            "arm": arm.name,
            "arm_hash": arm.hash,
        }
        return {t: keyed_table(key, rows[t], schema) for t, schema in RESULT_TABLES.items()}

    def _counted(self) -> dict[str, Any]:
        """What a run's row counts, and whether enough of its queries were ranked."""
        reasons = [row["unranked_reason"] for row in self.status if row["unranked_reason"]]
        incomplete = len(reasons) > self.night.options.max_unranked * len(self.status)
        counts = self.snapshot.manifest.counts
        return {
            "status": "incomplete" if incomplete else "complete",
            "passages": counts["passages"],
            "unranked_queries": len(reasons),
            "unranked_reason": Counter(reasons).most_common(1)[0][0] if reasons else None,
            "cut_queries": sum(row["query_was_cut"] for row in self.status),
            "stale_judgements": counts["stale_judgements"],
            "unknown_judgements": counts["unknown_judgements"],
        }

    def _facts(self) -> dict[str, Any]:
        """What is recorded of how the results came about."""
        night, snapshot = self.night, self.snapshot
        return {
            **night.fingerprint,
            **{f"artifact.{name}": reference for name, reference in self.inputs.items()},
            "artifact.rankings": self.rankings.reference,
            "artifact.snapshot": snapshot.reference,
            "collection.spec": night.collection,
            "queries.markers_defused": sum(row["markers_defused"] for row in self.status),
            "collection.relevance_level": snapshot.manifest.config["relevance_level"],
            **_contents(snapshot),
            **self._odd(),
            **self._embedder(),
            **_promotion(night, self.arm),
            **({"run.content": run} if (run := self.arm.first_stage.run_content) else {}),
            **{f"model.{k}": value for k, value in self.rankings.manifest.counts["model"].items()},
        }

    def _stages(self) -> dict[str, Manifest]:
        """The manifests of everything that the ranking took, in order."""
        used = {"snapshot": self.snapshot.manifest}
        below = self.candidates.manifest.inputs
        # Embeddings of the arm, else of the first stage alone.
        inputs = {"embed": (below | self.inputs).get("embeddings"), "index": below.get("index")}
        used |= {
            stage: self.store.open(reference).manifest
            for stage, reference in inputs.items()
            if reference
        }
        return used | {"retrieve": self.candidates.manifest, "rerank": self.rankings.manifest}

    def _embedder(self) -> dict[str, Any]:
        if "embeddings" not in self.inputs:
            return {}
        embeddings = self.store.open(self.inputs["embeddings"])
        identity, counts = embeddings.manifest.config["embedder"], embeddings.manifest.counts
        passages = embeddings.dataset("passages")
        column = passages.schema.field("embedding").type
        bits = column.list_size * column.value_type.bit_width
        if transform := self.arm.options.get("transform"):
            bits = Transform.parse(transform).bits(column.list_size)
        facts = {f"embedder.{name}": value for name, value in identity.items()}
        if counts["cut_passages"]:
            facts["odd.long_passages"] = (
                f"passages longer than the {counts['max_length']} tokens that {identity['name']} "
                "reads, embedded by their beginning alone (split them into passages): "
                f"{counts['cut_passages']:,} of {passages.count_rows():,}"
            )
        return {**facts, "embeddings.bits_a_passage": bits}

    def _odd(self) -> dict[str, str]:
        """What is odd in the collection, and how many queries have no candidates."""
        counts, stage = self.snapshot.manifest.counts["odd"], self.arm.first_stage
        sentences = {f"odd.{kind}": in_words(kind, count) for kind, count in counts.items()}
        if empty := [row["query_id"] for row in self.status if not row["candidates"]]:
            remedy = f" (its analyzer is {stage.analyzer})" if stage.bm25 else ""
            sentences["odd.nothing_found"] = (
                f"queries for which the first stage {stage.name} found no passage{remedy}: "
                f"{len(empty):,} of {len(self.status):,} ({empty[0]} the first)"
            )
        return sentences


def _count_unjudged(
    ranking: list[dict[str, Any]], qrels: dict[str, dict[str, int]]
) -> dict[str, int]:
    """How many results are in the first ten of judged queries, and how many nobody judged."""
    top = [row for row in ranking if row["rank"] <= 10 and row["query_id"] in qrels]
    unjudged = sum(row["passage_id"] not in qrels[row["query_id"]] for row in top)
    return {"top_10_results": len(top), "top_10_unjudged": unjudged}


def _efficiency(manifest: Manifest) -> dict[str, Any]:
    stats = manifest.counts["stats"]
    speed = stats["items"] / stats["seconds"] if stats["seconds"] else None
    return stats | {"items_per_second": speed}


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
