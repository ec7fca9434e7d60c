"""Plan: from an experiment to the cells that have to be computed, each fully resolved.

Everything that can be refused is refused here, before any work. A plan is small and travels
between tasks as JSON; each task makes the night of its cell from it.
"""

import logging
from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from perank_tasks.artifacts.store import Store
from perank_tasks.collections.spec import absolute_spec, open_collection
from perank_tasks.config import (
    CHECKPOINT_ARMS,
    Night,
    NightOptions,
    fingerprint_hash,
    stable_hash,
)
from perank_tasks.errors import CollectionError, ConfigError, PerankError
from perank_tasks.experiments.options import NOT_FOR_CELLS, Experiment, GridCell
from perank_tasks.night.provenance import fingerprint
from perank_tasks.settings import Settings

log = logging.getLogger(__name__)


class Cell(BaseModel):
    """One configuration on one collection."""

    model_config = ConfigDict(frozen=True)

    label: str
    variant: str
    arm: str
    collection: str
    """Spec, resolved."""
    collection_name: str
    options: dict[str, Any]
    """Of a night, all of them; the checkpoint is resolved, or that of `training`."""
    training: dict[str, Any] | None = None
    """Options of the training run whose checkpoint ranks; None: `options` name it."""

    @property
    def hash(self) -> str:
        """Ten hex digits that name this configuration on this collection."""
        content = self.model_dump(mode="json", exclude={"label", "variant", "collection"})
        return stable_hash(content)[:10]

    @property
    def training_hash(self) -> str | None:
        """Which training it needs: cells that need the same one share it."""
        return stable_hash(self.training)[:10] if self.training is not None else None


class ExperimentPlan(BaseModel):
    """An experiment and its cells as of a date."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    experiment: Experiment
    cells: tuple[Cell, ...]
    fingerprint: dict[str, str]

    @property
    def subject(self) -> dict[str, str]:
        """What log lines and metrics say it is about."""
        return {"experiment": self.experiment.filed_as}

    @property
    def fingerprint_hash(self) -> str:
        """See `config.fingerprint_hash`."""
        return fingerprint_hash(self.fingerprint)

    def cell(self, cell_hash: str) -> Cell:
        """The cell of that hash; KeyError where there is none."""
        return {cell.hash: cell for cell in self.cells}[cell_hash]

    def trainings(self) -> dict[str, dict[str, Any]]:
        """The training runs that cells need, each once: {hash: options}."""
        return {
            cell.training_hash: cell.training
            for cell in self.cells
            if cell.training is not None and cell.training_hash is not None
        }

    def to_json(self) -> dict[str, Any]:
        """A small JSON object, fit for XCom; `ExperimentPlan.from_json` reads it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ExperimentPlan":
        return cls.model_validate(value)


def plan_experiment(experiment: Experiment, run_date: date) -> ExperimentPlan:
    """Resolve an experiment into its cells.

    A collection that brings a run has it take the place of BM25: its passages may be no more than
    what that run found.

    Args:
        run_date: as of which collections are read and the champion is looked up.

    Raises:
        ConfigError: a name is unknown, two cells are the same for what their arm reads, or more
            than the budget.
        CollectionError: a collection is not there, or has no judgements.
    """
    settings = Settings.from_environment()
    Store(settings.root).check()
    names: dict[str, str] = {}
    cells: list[Cell] = []
    for spec in map(absolute_spec, experiment.collections):
        collection = open_collection(spec)
        data = collection.load(run_date)
        if not data.judgements:
            raise CollectionError(
                f"The collection {data.name} has no judgements: no cell could be measured by it."
            )
        if data.name in names:
            raise ConfigError(
                f"{names[data.name]} and {spec} are both called {data.name}: give one a name of "
                "its own, as in files:/folder?name=dl19."
            )
        names[data.name] = spec
        for cell in experiment.grid():
            options = _options(cell, collection.run, run_date)
            training = _training(experiment, cell, options)
            if training is not None:
                options["checkpoint"] = ""
            cells.append(
                Cell(
                    label=cell.label,
                    variant=cell.variant,
                    arm=cell.arm,
                    collection=spec,
                    collection_name=data.name,
                    options=options,
                    training=training,
                )
            )
    plan = ExperimentPlan(
        run_date=run_date,
        experiment=experiment,
        cells=tuple(cells),
        fingerprint=fingerprint(settings.threads),
    )
    _check_trainings(plan)
    _check_twins(plan)
    return plan


def _check_trainings(plan: ExperimentPlan) -> None:
    from perank_tasks.training.stages.plan_run import plan_training

    smoke = plan.experiment.smoke.get("training", {})
    for training in plan.trainings().values():
        places = {"training": training}
        if smoke:
            places["smoke.training"] = training | smoke
        for place, values in places.items():
            try:
                plan_training(values, plan.run_date)
            except ConfigError as error:
                raise ConfigError(f"{place}: {error}") from None


def _check_twins(plan: ExperimentPlan) -> None:
    """Refuse cells that differ in nothing that their arm reads: they would be tested as if they
    were two. What is wrong with a cell beside its options is the cell's own failure."""
    first: dict[tuple[str, str], Cell] = {}
    for cell in plan.cells:
        try:
            ranked = cell.hash if cell.training else night_of(plan, cell, None).arms[0].hash
        except ConfigError as error:
            raise ConfigError(f"cell {cell.label!r}: {error}") from None
        except PerankError:
            continue
        other = first.setdefault((cell.collection, ranked), cell)
        if other is not cell:
            names = sorted(k for k, v in cell.options.items() if other.options[k] != v)
            why = f": arm {cell.arm} does not read {' or '.join(names)}" if names else ""
            raise ConfigError(
                f"The cells {other.label!r} and {cell.label!r} are the same on "
                f"{cell.collection_name}{why}. Leave one out."
            )


def night_of(plan: ExperimentPlan, cell: Cell, checkpoint: str | None) -> Night:
    """The night that computes a cell.

    Args:
        checkpoint: what its training made; None where it needs none.
    """
    from perank_tasks.night.plan import plan_night

    options = {**cell.options, **({"checkpoint": checkpoint} if checkpoint else {})}
    night = plan_night(
        NightOptions.parse({**options, "collection": cell.collection, "arms": (cell.arm,)}),
        plan.run_date,
    )
    return night.model_copy(update={"fingerprint": plan.fingerprint})


def _options(cell: GridCell, run: str | None, run_date: date) -> dict[str, Any]:
    from perank_tasks.warehouse.registry import resolve

    parsed = cell.night_options()
    changes: dict[str, Any] = {}
    if parsed.first_stage == "bm25" and run is not None:
        changes["first_stage"] = "given"
    if cell.arm in CHECKPOINT_ARMS:
        changes["checkpoint"] = resolve(parsed.checkpoint, run_date)[0]
    return parsed.model_copy(update=changes).model_dump(mode="json", exclude=set(NOT_FOR_CELLS))


def _training(
    experiment: Experiment, cell: GridCell, options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The training run of a cell: the experiment's, for the cell's embedder and its axes. One
    checkpoint ranks all collections, and has seen no query that it is measured by."""
    if experiment.training is None or cell.arm not in CHECKPOINT_ARMS:
        return None
    asked = {**experiment.training, **cell.training}
    # By fold, a collection's own queries are trained on.
    own = {"data_collections": list(experiment.collections)} if asked.get("folds") else {}
    return {
        "align": False,
        "promotion": "never",
        "name": "experiment",
        "development": experiment.collections[0],
        "data_evaluation": list(experiment.collections),
        "rank_encoder": options["embedder"],
        **own,
        **asked,
    }
