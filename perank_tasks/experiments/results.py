"""Results: in, what became of every cell; out, the experiment's tables as Parquet.

The artifact `experiments/<experiment>/<key>` holds exactly the rows that the warehouse will
(`schemas.EXPERIMENT_TABLES`). A variant's value of a query is the mean over its cells; every
variant is held against the baseline on the same collection by a paired randomisation test, with
Holm's correction over all that the experiment tests, an interval and an effect size.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.errors import ExperimentError
from perank_tasks.experiments.cells import Outcome, length_measures
from perank_tasks.experiments.plan import Cell, ExperimentPlan
from perank_tasks.regression.statistics import effect_size
from perank_tasks.schemas import EXPERIMENT_TABLES, rows_to_table
from perank_tasks.settings import Settings
from perank_tasks.warehouse.comparison import Side, compare
from perank_tasks.warehouse.database import load_experiment

log = logging.getLogger(__name__)

KIND = "experiments"
FORMAT = 1

Values = dict[str, dict[str, float]]
"""{measure: {query id: value}}"""
Rows = dict[str, list[tuple]]
"""{table: rows in the order of its columns}"""

NEVER_SAID = "its task ended without a word"


def conclude(plan: ExperimentPlan, outcomes: Iterable[Outcome | None] | None) -> str:
    """Put all cells' rows together, test them and publish; returns the reference.

    Args:
        outcomes: of the cells, in any order; a cell that has none is missing, too.
    """
    store = Store(Settings.from_environment().root)
    said = {outcome["cell"]: outcome for outcome in outcomes or () if outcome}
    found = {
        cell.hash: said.get(cell.hash) or Outcome(cell=cell.hash, result=None, reason=NEVER_SAID)
        for cell in plan.cells
    }
    key = artifact_key(
        version=FORMAT,
        experiment=plan.experiment.hash,
        run_date=plan.run_date,
        cells=found,
        fingerprint=plan.fingerprint_hash,
    )
    artifact = store.artifact(KIND, plan.experiment.filed_as, key)
    if artifact.is_published:
        return artifact.reference
    rows = _rows(plan, found, store)
    for table, schema in EXPERIMENT_TABLES.items():
        artifact.write_part(table, rows_to_table(rows[table], schema), schema)
    return artifact.publish(
        expected=dict.fromkeys(EXPERIMENT_TABLES, 1),
        inputs={f"cell {c}": o["result"] for c, o in found.items() if o["result"]},
        config={"run_date": plan.run_date.isoformat()},
        counts={table: len(rows[table]) for table in EXPERIMENT_TABLES},
        provenance=plan.fingerprint,
    )


def load(plan: ExperimentPlan, results: str) -> dict[str, int]:
    """Load an experiment's results into the warehouse; returns {table: rows}.

    Raises:
        WarehouseError: another process holds the loader's file for over a minute.
    """
    settings = Settings.from_environment()
    return load_experiment(settings.warehouse, Store(settings.root).open(results))


def check_complete(plan: ExperimentPlan, results: str) -> None:
    """Say that cells are missing, where some are.

    Raises:
        ExperimentError: names how many.
    """
    artifact = Store(Settings.from_environment().root).open(results)
    missing = artifact.read("experiments").to_pylist()[0]["missing_cells"]
    if missing:
        raise ExperimentError(
            f"{missing} of {len(plan.cells)} cells have no results; the page says why, and has all "
            "others. Run again, the experiment computes these alone."
        )


def _rows(plan: ExperimentPlan, outcomes: Mapping[str, Outcome], store: Store) -> Rows:
    experiment = plan.experiment
    key = (experiment.filed_as, plan.run_date)
    rows: Rows = defaultdict(list)
    values: dict[str, Values] = {}
    missing = 0
    for cell in plan.cells:
        outcome = outcomes[cell.hash]
        if outcome["result"] is None:
            rows["experiment_cells"].append(_missing(key, cell, outcome["reason"]))
            missing += 1
            continue
        artifact = store.open(outcome["result"])
        rows["experiment_cells"].append(_cell(key, cell, artifact))
        cell_key = (*key, cell.hash)
        rows["experiment_measures"] += [
            (*cell_key, row["measure"], row["value"], row["queries"])
            for row in artifact.read("measures").to_pylist()
        ]
        measured: Values = defaultdict(dict)
        for row in artifact.read("query_measures").to_pylist():
            measured[row["measure"]][row["query_id"]] = row["value"]
            rows["experiment_query_measures"].append(
                (*cell_key, row["query_id"], row["measure"], row["value"])
            )
        values[cell.hash] = measured
        names = ("query_id", "passage_id", "rank", "score", "first_stage_rank")
        rows["experiment_rankings"] += [
            (*cell_key, *(row[name] for name in names))
            for row in artifact.read("rankings").to_pylist()
        ]
    rows["experiment_tests"] = _tests(plan, values)
    rows["experiment_provenance"] = [(*key, *fact) for fact in plan.fingerprint.items()]
    rows["experiments"] = [
        (
            *key,
            "incomplete" if missing else "complete",
            experiment.question,
            experiment.baseline,
            len(plan.cells),
            missing,
            plan.fingerprint_hash,
            json.dumps(experiment.model_dump(mode="json"), sort_keys=True),
            datetime.now(UTC).replace(tzinfo=None),
        )
    ]
    return rows


def _about(key: tuple[Any, ...], cell: Cell) -> tuple:
    return (*key, cell.hash, cell.collection_name, cell.label, cell.variant, cell.arm)


def _options(cell: Cell) -> str:
    options = {**cell.options, **({"training": cell.training} if cell.training else {})}
    return json.dumps(options, sort_keys=True)


def _missing(key: tuple[Any, ...], cell: Cell, reason: str | None) -> tuple:
    row = (*_about(key, cell), "missing", reason or NEVER_SAID, _options(cell))
    return row + (None,) * (len(EXPERIMENT_TABLES["experiment_cells"]) - len(row))


def _cell(key: tuple[Any, ...], cell: Cell, artifact: Artifact) -> tuple:
    (run,) = artifact.read("runs").to_pylist()
    status = artifact.read("status").to_pylist()
    counts = artifact.manifest.counts
    stats = counts["stats"]
    return (
        *_about(key, cell),
        run["status"],
        None,
        _options(cell),
        run["arm_hash"],
        run["config"],
        run["ranking_hash"],
        run["snapshot"],
        run["passages"],
        run["queries"],
        run["judged_queries"],
        run["unranked_queries"],
        sum(bool(row["numbers_missing"] or row["numbers_repeated"]) for row in status),
        counts["bits_a_passage"],
        stats["device"],
        stats["seconds"],
        stats["load_seconds"],
        stats["tokens_in"],
        stats["decode_steps"],
        int(stats["forward_passes"]),
        int(stats["flops"]),
        stats["numbers_repaired"],
        stats["peak_memory_bytes"],
    )


def mean_over(cells: Iterable[Values]) -> Values:
    """The mean of several cells, query by query, over the cells that have the query: cells of
    different seeds have all of them, folds of a cross-validation one each."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        for measure, by_query in cell.items():
            for query, value in by_query.items():
                values[measure][query].append(value)
    return {
        measure: {query: float(np.mean(by_query[query])) for query in sorted(by_query)}
        for measure, by_query in values.items()
    }


def _tests(plan: ExperimentPlan, values: Mapping[str, Values]) -> list[tuple]:
    """Rows of `experiment_tests`: every variant against the baseline, collection by collection."""
    experiment = plan.experiment
    tested = (*experiment.measures, *length_measures(experiment.length_parts))
    pairs: list[tuple[Side, Side]] = []
    about: list[tuple[str, str]] = []
    for collection in dict.fromkeys(cell.collection_name for cell in plan.cells):
        variants: dict[str, list[Values]] = defaultdict(list)
        for cell in plan.cells:
            if cell.collection_name == collection and cell.hash in values:
                variants[cell.variant].append(values[cell.hash])
        if experiment.baseline not in variants:
            log.warning("%s: the baseline is missing, so nothing can be tested", collection)
            continue
        sides = {
            name: Side(
                name,
                {m: v for m, v in mean_over(cells).items() if m in tested},
                {},
            )
            for name, cells in variants.items()
        }
        for name, side in sides.items():
            if name != experiment.baseline:
                pairs.append((sides[experiment.baseline], side))
                about.append((collection, name))
    if not pairs:
        return []
    key = (experiment.filed_as, plan.run_date)
    compared = compare(pairs, experiment.measures[0])
    tests = max(row.tests for found in compared for row in found.measures)
    return [
        (
            *(*key, collection, name, experiment.baseline, row.measure, row.queries),
            *(row.b, row.a, row.delta, row.interval.low, row.interval.high),
            effect_size(row.delta, row.interval, row.queries),
            *(row.better, row.worse, row.p, row.p_holm, tests),
        )
        for (collection, name), found in zip(about, compared, strict=True)
        for row in found.measures
        if row.p is not None
    ]
