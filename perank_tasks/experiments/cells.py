"""Cells: in, a plan and one of its cells; out, the cell's rankings.

A cell is a night of one arm that is filed under no date. It shares snapshots, embeddings, indexes
and candidates with every other one, and is reused by whoever asks for the same, on another day and
from another file. A cell that was killed resumes from the parts that are whole.
"""

import json
import logging
import time
from collections.abc import Iterable
from datetime import date
from typing import TypedDict

from perank_tasks.config import Night
from perank_tasks.errors import (
    DeviceMemoryError,
    ExperimentError,
    PerankError,
    StorageError,
    TrainingError,
    WarehouseError,
)
from perank_tasks.experiments.plan import Cell, ExperimentPlan
from perank_tasks.night.pipeline import run_night
from perank_tasks.night.site import Site
from perank_tasks.night.snapshot import take_snapshot
from perank_tasks.rankers.interface import Models
from perank_tasks.training.stages.align import align_projector
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.plan_run import plan_training
from perank_tasks.training.stages.rank import learn_to_rank

log = logging.getLogger(__name__)

OUT_OF_TIME = "not begun: the budget's hours were used up"

SHARED = ("first_stage", "embedder", "checkpoint", "precision", "trust_remote_code")
"""Settings of an arm that say what it needs before it can rank."""


class _LateSite(Site):
    """A site without models, where what was embedded and ranked before is reused."""

    def models(self, run_date: date) -> Models:
        raise ExperimentError(OUT_OF_TIME)


class Outcome(TypedDict):
    """What became of a cell."""

    cell: str  # Cell.name
    rankings: str | None  # reference; None: it failed, or was not begun
    reason: str | None  # why


class Trained(TypedDict):
    """A checkpoint that cells need."""

    training: str  # Cell.training_hash
    checkpoint: str  # reference


def plan_trainings(plan: ExperimentPlan) -> list[str]:
    """The trainings that cells need, each once, by their hashes."""
    return list(plan.trainings())


def plan_running(plan: ExperimentPlan) -> list[str]:
    """The cells, by their names."""
    return [cell.name for cell in plan.cells]


def plan_sharing(plan: ExperimentPlan) -> list[str]:
    """A cell of each group that has candidates and embeddings in common, by its name."""
    groups: dict[str, str] = {}
    for cell in plan.cells:
        reads_vectors = cell.arm["ranker"] != "first-stage"
        needs = [cell.arm.get(name) for name in SHARED]
        group = [cell.collection, cell.training_hash, reads_vectors, *needs]
        groups.setdefault(json.dumps(group), cell.name)
    return list(groups.values())


def train_checkpoint(plan: ExperimentPlan, site: Site, training: str) -> Trained:
    """Train a checkpoint that cells need; one that is trained is reused.

    Args:
        training: `Cell.training_hash`.
    """
    run = plan_training(plan.trainings()[training], plan.run_date, site)
    data = make_data(run)
    checkpoint = learn_to_rank(run, site, data, align_projector(run, site, data))
    return Trained(training=training, checkpoint=checkpoint)


def share_inputs(
    plan: ExperimentPlan, site: Site, cell: str, checkpoints: Iterable[Trained] | None = None
) -> dict[str, str]:
    """Make what the cells of a group have in common; returns the candidates."""
    night = _night(plan, site, plan.cell(cell), checkpoints)
    return dict(run_night(night, site, "retrieve", _snapshot(night, site))["retrieve"])


def try_cell(
    plan: ExperimentPlan,
    site: Site,
    cell: str,
    checkpoints: Iterable[Trained] | None = None,
    begun: float | None = None,
) -> Outcome:
    """Rank a cell; where that fails, or there is no time left for it, say why.

    After the budget's hours a cell that was ranked before is reused, and no other one is begun.

    Errors of the machine are raised: they say nothing of the cell, and are worth a retry.

    Args:
        cell: its name.
        checkpoints: what was trained; None: train here what the cell needs.
        begun: when the run began, in seconds since 1970; None: there is time.
    """
    is_late = begun is not None and time.time() - begun > 3600 * plan.experiment.budget.hours
    its = plan.cell(cell)
    try:
        if is_late and its.training and checkpoints is None:
            raise ExperimentError(OUT_OF_TIME)
        night = _night(plan, site, its, checkpoints)
        place = _LateSite(site.store, site.settings) if is_late else site
        (rankings,) = run_night(night, place, "rerank", _snapshot(night, site))["rerank"].values()
        return Outcome(cell=cell, rankings=rankings, reason=None)
    except (StorageError, WarehouseError, DeviceMemoryError, OSError, MemoryError):
        raise
    except Exception as error:
        return failed(cell, error)


def failed(cell: str, error: Exception) -> Outcome:
    """The outcome of a cell that an error ended; a bug spoils its own cell alone."""
    if isinstance(error, PerankError):
        log.warning("%s: %s", cell, error)
        return Outcome(cell=cell, rankings=None, reason=str(error))
    log.error("cell %s", cell, exc_info=error)
    return Outcome(cell=cell, rankings=None, reason=repr(error))


def _night(
    plan: ExperimentPlan, site: Site, cell: Cell, checkpoints: Iterable[Trained] | None
) -> Night:
    checkpoint = None
    if needed := cell.training_hash:
        if checkpoints is None:
            checkpoints = [train_checkpoint(plan, site, needed)]
        trained = {each["training"]: each["checkpoint"] for each in checkpoints}
        if needed not in trained:
            raise TrainingError("the checkpoint that it needs was not trained")
        checkpoint = trained[needed]
    return plan.night(cell, cell.arms(checkpoint), site)


_taken: dict[tuple[str, str, date], str] = {}


def _snapshot(night: Night, site: Site) -> str:
    """The snapshot of a night's collection, read once in a process for all cells."""
    key = (str(site.store.root), night.collection, night.run_date)
    if key not in _taken:
        _taken[key] = take_snapshot(night, site)
    return _taken[key]
