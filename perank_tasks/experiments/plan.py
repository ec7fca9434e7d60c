"""Plan: from an experiment's file to its cells on every collection, each of which is a night.

A plan is small and travels between tasks as JSON; each task makes the night of its cell from it.
"""

from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from perank_tasks.collections.spec import absolute_spec, open_collection
from perank_tasks.config import Night, NightOptions, stable_hash
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.experiments.options import Experiment, ExperimentFile, GridCell, Table
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.provenance import fingerprint
from perank_tasks.night.site import Site
from perank_tasks.training.stages.plan_run import plan_training


class Cell(GridCell):
    """One arm on one collection."""

    collection: str
    """Spec, resolved."""
    collection_name: str
    first_stages: Table
    """The first stages, as a file of arms has them."""

    @property
    def name(self) -> str:
        """Names it within its experiment."""
        return f"{self.collection_name}/{self.label}"

    @property
    def training_hash(self) -> str:
        """Which training it needs, empty for none: cells that need the same one share it."""
        return stable_hash(self.training)[:10] if self.training is not None else ""

    def arms(self, checkpoint: str | None = None) -> ArmsFile:
        """Its arm.

        Args:
            checkpoint: what its training made.
        """
        arm = self.arm | ({"checkpoint": checkpoint} if checkpoint else {})
        return ArmsFile.of(self.first_stages | {"arms": {self.label: arm}}, "the experiment")


class ExperimentPlan(BaseModel):
    """An experiment and its cells as of a date."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    experiment: Experiment
    cells: tuple[Cell, ...]
    fingerprint: dict[str, str]

    @property
    def series(self) -> str:
        """The series of its results."""
        return self.experiment.series

    @property
    def subject(self) -> dict[str, str]:
        """What log lines and metrics say it is about."""
        return {"experiment": self.series}

    def cell(self, name: str) -> Cell:
        """The cell of that name; KeyError where there is none."""
        return {cell.name: cell for cell in self.cells}[name]

    def trainings(self) -> dict[str, Table]:
        """The training runs that cells need, each once: {hash: options}."""
        return {cell.training_hash: cell.training for cell in self.cells if cell.training}

    def night(self, cell: Cell, arms: ArmsFile, site: Site) -> Night:
        """The night of a cell, which has one arm.

        Raises:
            ConfigError, CheckpointError: there can be no such arm here.
        """
        options = self.options(cell)
        night = plan_night(options, self.run_date, site, arms=arms, series=self.series)
        return night.model_copy(update={"fingerprint": self.fingerprint})

    def options(self, cell: Cell) -> NightOptions:
        """What that night is run with."""
        limit = self.experiment.query_limit
        return NightOptions.parse({"collection": cell.collection, "query_limit": limit})

    def to_json(self) -> dict[str, Any]:
        """A small JSON object, fit for XCom; `ExperimentPlan.from_json` reads it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ExperimentPlan":
        return cls.model_validate(value)


def plan_experiment(file: ExperimentFile, run_date: date, site: Site) -> ExperimentPlan:
    """Resolve an experiment into its cells.

    Of a collection that brings a run, the run takes the place of BM25: its passages may be no more
    than what that run found. What is wrong with a single cell is that cell's own failure.

    Args:
        run_date: as of which collections are read and the champion is looked up.

    Raises:
        ConfigError: a collection or a training is not valid.
        CollectionError: a collection is not there, or has no judgements.
    """
    cells: dict[str, list[Cell]] = {}
    for spec in map(absolute_spec, file.collections):
        collection = open_collection(spec)
        name = collection.name
        if not collection.load(run_date).judgements:
            raise CollectionError(
                f"The collection {name} has no judgements: no cell could be measured by it."
            )
        if name in cells:
            raise ConfigError(
                f"Two collections are called {name}, {spec} the second: give one a name of its "
                "own, as in files:/folder?name=dl19."
            )
        first_stages = file.tables({})
        if collection.run:
            first_stages["first-stages"] = {
                stage: _given(table) if table.get("kind") == "bm25" else table
                for stage, table in file.first_stages.items()
            }
        cells[name] = [
            Cell(
                **cell.model_dump(exclude={"training"}),
                training=_training(file, cell.training),
                collection=spec,
                collection_name=name,
                first_stages=first_stages,
            )
            for cell in file.grid()
        ]
    plan = ExperimentPlan(
        run_date=run_date,
        experiment=Experiment(**{name: getattr(file, name) for name in Experiment.model_fields}),
        cells=tuple(cell for of_collection in cells.values() for cell in of_collection),
        fingerprint=fingerprint(site.settings.of_a_piece.threads),
    )
    for training in plan.trainings().values():
        plan_training(training, run_date, site)  # refuses a typo before any work
    return plan


def _given(bm25: Table) -> Table:
    """The first stage of a collection's own run, as deep as BM25 was to search."""
    return {"kind": "given"} | {k: v for k, v in bm25.items() if k == "depth"}


def _training(file: ExperimentFile, options: Table | None) -> Table | None:
    """A cell's training. One checkpoint ranks all collections, and has seen no query that it is
    measured by."""
    if options is None:
        return None
    collections = list(file.collections)
    implied = {"align": False, "promotion": "never", "name": "experiment"}
    implied |= {"development": collections[0], "data_evaluation": collections}
    # By fold, a collection's own queries are trained on.
    own = {"data_collections": collections} if options.get("folds") else {}
    return implied | own | options
