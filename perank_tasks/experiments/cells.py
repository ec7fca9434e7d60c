"""Cells: in, a plan and one of its cells; out, rankings and measures, kept for good.

A cell is the artifact `experiment_cells/<collection>/<key>` with the result tables of a night of
one arm, and `status`, what ranking each query took. Its key says what was ranked, by what, on
which machine, but no date and no experiment: whoever asks for the same cell again finds it, on
another day and from another file. A cell that was killed goes on from the parts that are whole.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import Night, fingerprint_hash
from perank_tasks.errors import TrainingError
from perank_tasks.experiments.plan import Cell, ExperimentPlan, night_of
from perank_tasks.models.vectors import Transform
from perank_tasks.night.evaluate import arm_tables
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.regression.measures import MEASURES, evaluate_run
from perank_tasks.schemas import QUERY_STATUS, RESULT_TABLES, keyed_table
from perank_tasks.settings import Settings
from perank_tasks.support.text import contents
from perank_tasks.warehouse.quality import check_night

log = logging.getLogger(__name__)

KIND = "experiment_cells"
FORMAT = 1
"""Raise it when the same cell would hold something else."""

OF_WHOLE_NIGHTS = ("5_some_of_the_top_is_judged",)
"""Checks that no single arm need pass: a few queries' inverted candidates may have no judged one
among the first ten."""

LENGTH_MEASURE = "nDCG@10"


class Outcome(TypedDict):
    """What became of a cell."""

    cell: str  # Cell.hash
    result: str | None  # reference; None: it failed, or was not begun
    reason: str | None  # why


def length_measures(parts: int) -> list[str]:
    """Names of the measures over passages of a length, the shortest first: nDCG@10 each."""
    return [f"length {part}/{parts}" for part in range(1, parts + 1)]


def plan_trainings(plan: ExperimentPlan) -> list[str]:
    """The trainings that cells need, each once, by their hashes."""
    return list(plan.trainings())


def plan_running(plan: ExperimentPlan) -> list[str]:
    """The cells, by their hashes."""
    return [cell.hash for cell in plan.cells]


class Trained(TypedDict):
    """A checkpoint that cells need."""

    training: str  # Cell.training_hash
    checkpoint: str  # reference


def train_checkpoint(plan: ExperimentPlan, training: str) -> Trained:
    """Train the checkpoint that cells need, or find it trained.

    Args:
        training: `Cell.training_hash`.
    """
    from perank_tasks.training.stages.align import align_projector
    from perank_tasks.training.stages.data import make_data
    from perank_tasks.training.stages.plan import plan_training
    from perank_tasks.training.stages.rank import learn_to_rank

    run = plan_training(plan.trainings()[training], plan.run_date)
    data = make_data(run)
    checkpoint = learn_to_rank(run, data, align_projector(run, data))
    return Trained(training=training, checkpoint=checkpoint)


def plan_sharing(plan: ExperimentPlan) -> list[str]:
    """A cell of each group that has candidates and embeddings in common, by its hash."""
    groups: dict[tuple[Any, ...], str] = {}
    names = (
        *("first_stage", "depth", "k1", "b", "rrf_k", "embedder", "embedding_precision"),
        *("query_limit", "shards", "checkpoint"),
    )
    for cell in plan.cells:
        shared = (cell.collection, cell.training_hash, *(cell.options[name] for name in names))
        groups.setdefault((*shared, cell.arm == "bm25"), cell.hash)
    return list(groups.values())


def share_inputs(
    plan: ExperimentPlan, cell: str, checkpoints: Iterable[Trained] | None = None
) -> str:
    """Make what the cells of a group have in common; returns the candidates' reference."""
    night = _night(plan, plan.cell(cell), checkpoints)
    return str(run_night(night, "retrieve", _snapshot(night))["retrieve"])


def run_cell(
    plan: ExperimentPlan, cell: str, checkpoints: Iterable[Trained] | None = None
) -> Outcome:
    """Compute a cell, or find it computed.

    Args:
        cell: its hash.
        checkpoints: what was trained; None: train here what the cell needs.

    Raises:
        TrainingError: the checkpoint that it needs is not among these.
    """
    planned = plan.cell(cell)
    night = _night(plan, planned, checkpoints)
    artifact = _artifact(plan, night)
    if not artifact.use():
        log.info("cell %s on %s", planned.label, planned.collection_name)
        _measure(night, artifact, planned, plan.experiment.length_parts)
    return Outcome(cell=cell, result=artifact.reference, reason=None)


def find_cell(plan: ExperimentPlan, cell: Cell) -> Artifact | None:
    """A cell that is there; nothing is made to know it, but a snapshot.

    One whose checkpoint is trained for it is looked for by its options, since which checkpoint that
    gives is known afterwards only.
    """
    if cell.training is None:
        artifact = _artifact(plan, _night(plan, cell, ()))
        return artifact if artifact.is_published else None
    wanted = (cell.hash, plan.experiment.length_parts, snapshot_of(plan, cell))
    store = Store(Settings.from_environment().root)
    for artifact in store.published(KIND, cell.collection_name):
        about = artifact.manifest
        has = (about.config.get("cell"), about.config["length_parts"], about.inputs["snapshot"])
        if has == wanted and fingerprint_hash(about.provenance) == plan.fingerprint_hash:
            return artifact
    return None


def snapshot_of(plan: ExperimentPlan, cell: Cell) -> str:
    """The snapshot that a cell is ranked over; it is taken where it is not there."""
    untrained = cell.model_copy(update={"arm": "bm25", "training": None})
    return _snapshot(_night(plan, untrained, ()))


def embedder_of(plan: ExperimentPlan, cell: Cell) -> str | None:
    """The embedder that a cell's arm reads the vectors of; None where it reads none."""
    if cell.training is not None:
        return str(cell.options["embedder"])
    (arm,) = _night(plan, cell, ()).arms
    return arm.embedder


def _artifact(plan: ExperimentPlan, night: Night) -> Artifact:
    key = artifact_key(
        version=FORMAT,
        snapshot=_snapshot(night),
        arm=night.arms[0].hash,
        measures=MEASURES,
        length_parts=plan.experiment.length_parts,
        fingerprint=night.fingerprint_hash,
    )
    store = Store(Settings.from_environment().root)
    return store.artifact(KIND, night.collection_name, key)


def _night(plan: ExperimentPlan, cell: Cell, checkpoints: Iterable[Trained] | None) -> Night:
    needed = cell.training_hash
    if needed is None:
        return night_of(plan, cell, None)
    if checkpoints is None:
        checkpoints = [train_checkpoint(plan, needed)]
    trained = {each["training"]: each["checkpoint"] for each in checkpoints}
    if needed not in trained:
        raise TrainingError("the checkpoint that it needs was not trained")
    return night_of(plan, cell, trained[needed])


_taken: dict[tuple[str, str, date], str] = {}


def _snapshot(night: Night) -> str:
    """The snapshot of a night's collection, read once in a process for all cells."""
    key = (str(Settings.from_environment().root), night.collection, night.run_date)
    if key not in _taken:
        _taken[key] = take_snapshot(night)
    return _taken[key]


def _measure(night: Night, artifact: Artifact, cell: Cell, parts: int) -> None:
    """Rank, measure and publish."""
    store = artifact.store
    (arm,) = night.arms
    (reference,) = run_night(night, "rerank", _snapshot(night))["rerank"].values()
    rankings = store.open(reference)
    tables = arm_tables(night, arm, store, rankings)
    candidates = store.open(rankings.manifest.inputs["candidates"])
    snapshot = store.open(candidates.manifest.inputs["snapshot"])
    used = rankings.manifest.inputs.get("embeddings")
    vectors = [store.open(used)] if used else []
    check_night(tables, candidates.read("candidates"), vectors, leave_out=OF_WHOLE_NIGHTS)
    if parts:
        _add_lengths(tables, rankings, snapshot, parts)
    for table, schema in RESULT_TABLES.items():
        artifact.write_part(table, tables[table], schema)
    artifact.write_part("status", rankings.read("queries"), QUERY_STATUS)
    artifact.publish(
        expected=dict.fromkeys([*RESULT_TABLES, "status"], 1),
        inputs={"rankings": reference, "snapshot": snapshot.reference},
        config={"cell": cell.hash, "arm": arm.model_dump(mode="json"), "length_parts": parts},
        counts={
            "stats": rankings.manifest.counts["stats"],
            "bits_a_passage": _bits(night, store, used),
        },
        provenance=night.fingerprint,
    )


def _bits(night: Night, store: Store, embeddings: str | None) -> int | None:
    """Bits of a passage's vector; None where the arm reads none."""
    if embeddings is None:
        return None
    column = store.open(embeddings).dataset("passages").schema.field("embedding").type
    (arm,) = night.arms
    if arm.transform:
        return Transform.parse(arm.transform).bits(column.list_size)
    return int(column.list_size * column.value_type.bit_width)


def _add_lengths(
    tables: dict[str, pa.Table], rankings: Artifact, snapshot: Artifact, parts: int
) -> None:
    """Add the measures over passages of each length, ranked among themselves.

    A part holds as many of the collection's passages as any other, by their words; passages of
    equal length are in one. A query takes part where a relevant passage of that length is judged.
    """
    names = ("series", "run_date", "collection", "arm", "arm_hash")
    key = {name: tables["runs"][name][0].as_py() for name in names}
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for row in snapshot.read("qrels").to_pylist():
        qrels[row["query_id"]][row["passage_id"]] = row["relevance"]
    ranking = rankings.read("rankings").to_pylist()
    judged = {row["query_id"] for row in rankings.read("queries").to_pylist()} & qrels.keys()
    named = {p for grades in qrels.values() for p in grades} | {r["passage_id"] for r in ranking}
    words = _words(snapshot, named)
    borders = np.quantile(words.all, np.arange(1, parts) / parts)
    part_of = {p: int(np.searchsorted(borders, n, side="left")) for p, n in words.of.items()}
    level = snapshot.manifest.config["relevance_level"]
    for part, measure in enumerate(length_measures(parts)):
        run: dict[str, dict[str, float]] = defaultdict(dict)
        for row in ranking:
            if part_of.get(row["passage_id"]) == part:
                run[row["query_id"]][row["passage_id"]] = -row["rank"]
        grades = {
            query: {p: grade for p, grade in qrels[query].items() if part_of.get(p) == part}
            for query in sorted(judged)
        }
        grades = {query: of for query, of in grades.items() if any(g > 0 for g in of.values())}
        if not grades:
            continue
        values = evaluate_run(run, grades, level)[LENGTH_MEASURE]
        mean = float(np.mean(list(values.values())))
        new = {
            "measures": [{"measure": measure, "value": mean, "queries": len(values)}],
            "query_measures": [
                {"query_id": query, "measure": measure, "value": value}
                for query, value in values.items()
            ],
        }
        for table, rows in new.items():
            added = keyed_table(key, rows, RESULT_TABLES[table])
            tables[table] = pa.concat_tables([tables[table], added])


@dataclass(frozen=True)
class _Words:
    all: np.ndarray
    """(passages,) of every passage."""
    of: dict[str, int]
    """Of those that were asked for."""


def _words(snapshot: Artifact, wanted: set[str]) -> _Words:
    """How many words passages have, title included."""
    counts: list[np.ndarray] = []
    of: dict[str, int] = {}

    def rows() -> Iterator[tuple[list[str], list[int]]]:
        columns = ["passage_id", "title", "text"]
        for batch in snapshot.batches("passages", columns):
            ids, titles, texts = (batch[name].to_pylist() for name in columns)
            pairs = zip(titles, texts, strict=True)
            yield ids, [len(contents(title, text).split()) for title, text in pairs]

    for ids, numbers in rows():
        counts.append(np.array(numbers))
        of.update((p, n) for p, n in zip(ids, numbers, strict=True) if p in wanted)
    return _Words(np.concatenate(counts), of)
