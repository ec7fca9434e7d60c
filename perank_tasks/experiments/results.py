"""Results: in, what became of every cell; out, the experiment's rows as Parquet and in the tables.

A collection's cells are evaluated together, as the arms of a night are; their rows are those of
every night, with the experiment's name as their series. What only an experiment has is in the
artifact `experiments/<series>/<key>`: its own row, its cells, and its rows of `comparisons`. A
variant's value of a query is the mean over its cells; every variant is compared with the baseline
on the same collection, with Holm's correction over all that the experiment tests.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.config import Arm, Night, fingerprint_hash, stable_hash
from perank_tasks.errors import ExperimentError
from perank_tasks.experiments.cells import Outcome
from perank_tasks.experiments.lengths import length_measures, length_values
from perank_tasks.experiments.plan import Cell, ExperimentPlan
from perank_tasks.night.evaluate import evaluate
from perank_tasks.night.site import Site
from perank_tasks.regression.paired import Pair, compare_family
from perank_tasks.schemas import EXPERIMENT_TABLES, keyed_table
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.plan_run import plan_training
from perank_tasks.training.stages.rank import queries_left_out
from perank_tasks.warehouse.database import load_experiment, load_results

log = logging.getLogger(__name__)

KIND = "experiments"

BASELINE, ONE_CELL = "baseline", "baseline of one of several cells"
"""What the other side of a comparison is to a variant, and to a cell of one that has several."""

Values = dict[str, dict[str, float]]
"""{measure: {query id: value}}"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Ranked:
    """A cell with its rankings."""

    cell: Cell
    rankings: Artifact
    arm: Arm

    @classmethod
    def of(cls, cell: Cell, rankings: Artifact) -> "Ranked":
        # Who asked for the same before may have called it otherwise.
        arm = Arm.model_validate(rankings.manifest.config).model_copy(update={"name": cell.label})
        return cls(cell, rankings, arm)

    def queries_left_out(self, plan: ExperimentPlan, site: Site) -> list[str] | None:
        """Of a cell whose training left a fold out, the ids of the fold's queries: it is measured
        by what it has not seen."""
        if not (self.cell.training and self.cell.training.get("folds")):
            return None
        store = site.store
        training = plan_training(self.cell.training, plan.run_date, site)
        texts = queries_left_out(training, make_data(training), store)
        candidates = store.open(self.rankings.manifest.inputs["candidates"])
        queries = store.open(candidates.manifest.inputs["snapshot"]).read("queries").to_pylist()
        return [query["query_id"] for query in queries if query["text"] in texts]


def conclude(plan: ExperimentPlan, site: Site, outcomes: Iterable[Outcome | None] | None) -> str:
    """Evaluate the cells that were ranked, compare them and publish; returns the reference.

    Args:
        outcomes: of the cells, in any order; a cell that has none is missing, too.
    """
    by_cell = {outcome["cell"]: outcome for outcome in outcomes or () if outcome}
    key = artifact_key(
        plan=plan.model_dump(mode="json", exclude={"fingerprint"}),
        outcomes=by_cell,
        fingerprint=fingerprint_hash(plan.fingerprint),
    )
    artifact = site.store.artifact(KIND, plan.series, key)
    if artifact.is_published:
        return artifact.reference
    ranked = {
        cell.name: Ranked.of(cell, site.store.open(rankings))
        for cell in plan.cells
        if cell.name in by_cell and (rankings := by_cell[cell.name]["rankings"])
    }
    results, comparisons = {}, []
    for collection in dict.fromkeys(r.cell.collection_name for r in ranked.values()):
        here = [r for r in ranked.values() if r.cell.collection_name == collection]
        results[collection] = _evaluate(plan, site, here)
        comparisons += _pairs(plan, here, _values(plan, site, results[collection], here))
    compared = compare_family([pair for _, pair in comparisons])
    rows: dict[str, list[Row]] = {
        "experiments": [
            {
                "question": plan.experiment.question,
                "baseline": plan.experiment.baseline,
                "fingerprint": fingerprint_hash(plan.fingerprint),
                "config": plan.experiment.model_dump_json(),
                "concluded_at": datetime.now(UTC).replace(tzinfo=None),
            }
        ],
        "experiment_cells": _cell_rows(plan, by_cell, ranked),
        "comparisons": [
            row | asdict(its) for (row, _), its in zip(comparisons, compared, strict=True) if its
        ],
    }
    run = {"series": plan.series, "run_date": plan.run_date}
    for table, schema in EXPERIMENT_TABLES.items():
        artifact.write_part(table, keyed_table(run, rows[table], schema), schema)
    return artifact.publish(
        expected=dict.fromkeys(EXPERIMENT_TABLES, 1),
        inputs=results,
        config={"run_date": plan.run_date.isoformat()},
        counts={table: len(rows[table]) for table in EXPERIMENT_TABLES},
        provenance=plan.fingerprint,
    )


def load(plan: ExperimentPlan, site: Site, results: str) -> dict[str, int]:
    """Load an experiment's results into the warehouse; returns {table: rows} of its own tables.

    Raises:
        WarehouseError: another process holds the loader's file for over a minute.
    """
    artifact, warehouse = site.store.open(results), site.settings.warehouse
    for reference in artifact.manifest.inputs.values():
        load_results(warehouse, site.store.open(reference))
    return load_experiment(warehouse, artifact)


def check_complete(plan: ExperimentPlan, site: Site, results: str) -> None:
    """Refuse results in which cells are missing.

    Raises:
        ExperimentError: names how many.
    """
    cells = site.store.open(results).read("experiment_cells", ["arm_hash"])
    if missing := cells["arm_hash"].null_count:
        raise ExperimentError(
            f"{missing} of {len(plan.cells)} cells have no results; the page says why, and has all "
            "others. Run again, the experiment computes these alone."
        )


def _evaluate(plan: ExperimentPlan, site: Site, ranked: Sequence[Ranked]) -> str:
    """Measure a collection's cells as the arms of one night; returns the results' reference."""
    cell = ranked[0].cell
    night = Night(
        run_date=plan.run_date,
        series=plan.series,
        collection=cell.collection,
        collection_name=cell.collection_name,
        options=plan.options(cell),
        arms=tuple(r.arm for r in ranked),
        fingerprint=plan.fingerprint,
    )
    folds = {r.arm.hash: r.queries_left_out(plan, site) for r in ranked}
    measured = {arm_hash: queries for arm_hash, queries in folds.items() if queries is not None}
    rankings = {r.arm.hash: r.rankings.reference for r in ranked}
    return evaluate(night, site, rankings, measured)


def _values(
    plan: ExperimentPlan, site: Site, results: str, ranked: Sequence[Ranked]
) -> dict[str, Values]:
    """The values by query of each cell, those by length included: {Arm.hash: values}."""
    values: dict[str, Values] = {r.arm.hash: defaultdict(dict) for r in ranked}
    for row in site.store.open(results).read("query_measures").to_pylist():
        values[row["arm_hash"]][row["measure"]][row["query_id"]] = row["value"]
    if parts := plan.experiment.length_parts:
        for r in ranked:
            values[r.arm.hash] |= length_values(site.store, r.rankings, parts)
    return values


def _pairs(
    plan: ExperimentPlan, ranked: Sequence[Ranked], values: dict[str, Values]
) -> list[tuple[Row, Pair]]:
    """Every variant of a collection against the baseline, measure by measure: its row of
    `comparisons`, and the values. Cells of a variant that has several follow it, untested.
    """
    variants: dict[str, list[Ranked]] = defaultdict(list)
    for r in ranked:
        variants[r.cell.variant].append(r)
    if plan.experiment.baseline not in variants:
        log.warning("the baseline is missing, so nothing can be compared")
        return []
    baseline_hash, baseline = _mean(variants.pop(plan.experiment.baseline), values)
    sides = []
    for variant, its in variants.items():
        sides.append((variant, *_mean(its, values), BASELINE))
        sides += [
            (r.arm.name, r.arm.hash, values[r.arm.hash], ONE_CELL) for r in its if len(its) > 1
        ]
    tested = {*plan.experiment.measures, *length_measures(plan.experiment.length_parts)}
    shared = {
        "collection": ranked[0].cell.collection_name,
        "against_date": plan.run_date,
        "against_arm": plan.experiment.baseline,
        "against_arm_hash": baseline_hash,
        "family": plan.series,
    }
    pairs = []
    for name, arm_hash, of_arm, kind in sides:
        arm = {"arm": name, "arm_hash": arm_hash, "against_kind": kind}
        for measure in of_arm.keys() & baseline.keys():
            is_tested = kind == BASELINE and measure in tested
            pair = Pair.by_query(of_arm[measure], baseline[measure], is_tested=is_tested)
            pairs.append((shared | arm | {"measure": measure}, pair))
    return pairs


def _mean(cells: Sequence[Ranked], values: dict[str, Values]) -> tuple[str, Values]:
    """What names a variant in `comparisons`, and its values: a query's is the mean over the cells
    that have the query."""
    hashes = [r.arm.hash for r in cells]
    if len(cells) == 1:
        return hashes[0], values[hashes[0]]
    mean: Values = {}
    for measure in values[hashes[0]]:
        by_query: dict[str, list[float]] = defaultdict(list)
        for arm_hash in hashes:
            for query, value in values[arm_hash].get(measure, {}).items():
                by_query[query].append(value)
        mean[measure] = {query: float(np.mean(its)) for query, its in sorted(by_query.items())}
    return stable_hash(sorted(hashes))[:10], mean


def _cell_rows(
    plan: ExperimentPlan, outcomes: dict[str, Outcome], ranked: dict[str, Ranked]
) -> list[Row]:
    rows = []
    for place, cell in enumerate(plan.cells):
        its, outcome = ranked.get(cell.name), outcomes.get(cell.name)
        moment = datetime.fromisoformat(its.rankings.manifest.created_at) if its else None
        rows.append(
            {
                "collection": cell.collection_name,
                "arm": cell.label,
                "arm_hash": its and its.arm.hash,
                "variant": cell.variant,
                "place": place,
                "reason": outcome["reason"] if outcome else "its task ended without an outcome",
                "ranked_at": moment and moment.astimezone(UTC).replace(tzinfo=None),
            }
        )
    return rows
