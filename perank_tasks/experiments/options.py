"""An experiment's file: a file of arms with a question, a grid and a budget.

    name = "window"                     what its results are filed under: their series
    question = "How long …?"
    baseline = "window 20"              the variant that all others are compared with
    collections = ["pydocs"]            specs; the command line may name others
    budget = { cells = 8, hours = 1.0 }

    first-stage = "bm25"                as in every file of arms (`night/arms.py`)
    [first-stages.bm25]
    kind = "bm25"
    [arms.perank]
    ranker = "perank"

    [axes]                              a cell is an arm and one choice of each axis
    window = [10, 20]                   values of one setting, or

    [[axes.order]]                      several settings that go together, with a name
    label = "shuffled, seed 1"
    variant = "shuffled"                cells of one variant are averaged query by query; "": the
                                        axis names none
    initial-order = "random"            a setting of every arm
    perank.order-seed = 1               a setting of one arm
    training.rank_seed = 1              an option of the training

    [training]                          arms that need a checkpoint and name none are trained for:
    preset = "tiny"                     options of `perank train run`
    [smoke]                             on top of all others for a run of minutes: query-limit,
    query-limit = 3                     settings of every cell, and training.NAME

A choice that names another `ranker` keeps the arm's first stage and depth, and nothing else of it.
Without axes the arms are the cells. Keys may be written with hyphens or underscores.
"""

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from perank_tasks.config import Options
from perank_tasks.errors import ConfigError
from perank_tasks.night.arms import ArmsFile
from perank_tasks.regression.measures import MEASURES

PREPARED = Path(__file__).parent / "prepared"

KEPT_OF_AN_ARM = {"first_stage", "depth"}
"""Settings that stay when a choice names another ranker."""

NO_SETTINGS = {"label", "variant", "training", "query_limit"}
"""Keys of a choice, or of the smoke size, that are no setting of an arm."""

SMOKE_HOURS = 0.25

Table = dict[str, Any]


class Budget(Options):
    """What a run may take at most."""

    cells: int = Field(ge=1)
    """Cells of each collection; more are refused."""
    hours: float = Field(gt=0)
    """After so many, no further cell is begun."""


class Experiment(Options):
    """A question, and how its answer is measured."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$")
    """What its results are filed under."""
    question: str = Field(min_length=10)
    """What it is to answer, in a sentence."""
    baseline: str
    """The variant that all others are compared with."""
    collections: tuple[str, ...] = Field(min_length=1)
    """Specs."""
    budget: Budget
    measures: tuple[Literal[MEASURES], ...] = Field(("nDCG@10",), min_length=1)  # type: ignore[valid-type]
    """Those that are tested, the main one first."""
    length_parts: int = Field(0, ge=0, le=10)
    """Also measure the passages in so many parts by length, each among themselves; 0: do not."""
    cost: tuple[Literal["seconds", "tokens", "flops", "bits"], ...] = ("seconds",)
    """What quality is plotted against: seconds, tokens or FLOPs a query, bits a passage."""
    query_limit: int | None = Field(None, ge=1)
    """Only the first so many queries; None: all."""
    is_smoke: bool = False

    @property
    def series(self) -> str:
        """The series of its results: a smoke run has one of its own."""
        return f"{self.name}-smoke" if self.is_smoke else self.name


class GridCell(BaseModel):
    """One cell of the grid, on any collection."""

    model_config = ConfigDict(frozen=True)

    label: str
    """What its arm is called."""
    variant: str
    """What it is one of: cells that share it are averaged query by query."""
    arm: Table
    """As a file of arms has it."""
    training: Table | None
    """The training whose checkpoint ranks; None: the arm needs none, or names its checkpoint."""


class ExperimentFile(Experiment):
    """An experiment with its arms and its grid."""

    first_stage: str | None = None
    first_stages: dict[str, Table] = Field(default_factory=dict)
    arms: dict[str, Table] = Field(min_length=1)
    axes: dict[str, tuple[Table, ...]] = Field(default_factory=dict)
    training: Table | None = None
    smoke: Table = Field(default_factory=dict)

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Read a file, or a prepared experiment by its name.

        Raises:
            ConfigError: there is no such file, it is no TOML, or it is not valid.
        """
        path = PREPARED / f"{file}.toml"
        if not path.is_file():
            path = Path(file)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"There is no file {file}, and no prepared experiment of that name: these are "
                f"{', '.join(prepared())}."
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"The experiment {path} cannot be read: {error}.") from None
        return cls.parse(tables, f"{path}: these options")

    def change(self, run: "RunOptions") -> "ExperimentFile":
        """The same as a person's options change it.

        Raises:
            ConfigError: an option does not fit it.
        """
        values = self.model_dump()
        values |= ArmsFile.of(self.tables(self.arms), self.name).change(run.set).tables
        values["collections"] = run.collections or self.collections
        if run.smoke:
            values |= {"is_smoke": True, "query_limit": self.smoke.get("query_limit")}
            values["budget"]["hours"] = SMOKE_HOURS
        values["query_limit"] = run.query_limit or values["query_limit"]
        return type(self).parse(values, f"{self.name}: these options")

    def tables(self, arms: Mapping[str, Table]) -> Table:
        """These arms with its first stages, as a file of arms has them."""
        first = {"first-stage": self.first_stage} if self.first_stage else {}
        return {**first, "first-stages": self.first_stages, "arms": dict(arms)}

    def grid(self) -> list[GridCell]:
        """The cells of one collection: by the axes, then by the arms; the last changes fastest."""
        chosen = itertools.product(*self.axes.values())
        return [self._cell(choices, name) for choices in chosen for name in self.arms]

    def _cell(self, choices: tuple[Table, ...], name: str) -> GridCell:
        arm, training = dict(self.arms[name]), dict(self.training or {})
        for choice in (*choices, self.smoke if self.is_smoke else {}):
            settings = {k: v for k, v in choice.items() if k not in NO_SETTINGS | self.arms.keys()}
            settings |= choice.get(name, {})
            if settings.get("ranker", arm.get("ranker")) != arm.get("ranker"):
                arm = {key: value for key, value in arm.items() if key in KEPT_OF_AN_ARM}
            arm |= settings
            training |= choice.get("training", {})
        own = [name] if len(self.arms) > 1 or not choices else []
        variants = [choice.get("variant", choice["label"]) for choice in choices]
        is_trained = arm.get("ranker") == "perank" and "checkpoint" not in arm
        return GridCell(
            label=", ".join([*(choice["label"] for choice in choices), *own]),
            variant=", ".join(filter(None, [*variants, *own])),
            arm=arm,
            training=training if self.training is not None and is_trained else None,
        )

    @model_validator(mode="before")
    @classmethod
    def _with_underscores(cls, values: Any) -> Any:
        return {key.replace("-", "_"): _underscored(value) for key, value in values.items()}

    @field_validator("axes", mode="before")
    @classmethod
    def _with_labels(cls, axes: Any) -> Any:
        return {
            axis: [c if isinstance(c, dict) else _single(axis, c) for c in choices]
            for axis, choices in axes.items()
        }

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        for axis, choices in self.axes.items():
            if not choices or not all(isinstance(c.get("label"), str) for c in choices):
                raise ValueError(f"axes.{axis}: a value, or a choice with a label, is missing")
            if self.training is None and any("training" in choice for choice in choices):
                raise ValueError(f"axes.{axis}: there is no table [training] that it would change")
        cells = self.grid()
        variants = dict.fromkeys(cell.variant for cell in cells)
        if len({cell.label for cell in cells}) < len(cells):
            raise ValueError("axes: two cells have one label: give each its own")
        if slashes := [c.label for c in cells if "/" in c.label + c.variant]:
            raise ValueError(f"axes: {slashes[0]!r} or its variant has a slash in it")
        if len(cells) > self.budget.cells:
            raise ValueError(
                f"budget: the grid has {len(cells)} cells, and the budget is {self.budget.cells}"
            )
        if self.baseline not in variants:
            raise ValueError(
                f"baseline: no variant is called {self.baseline!r}; there are {'; '.join(variants)}"
            )
        return self

    @model_validator(mode="after")
    def _has_arms(self) -> Self:
        cells = self.grid()
        try:
            arms = ArmsFile.of(self.tables({c.label: c.arm for c in cells}), self.name).select()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        alike = [(replace(arm, name=""), c.training) for arm, c in zip(arms, cells, strict=True)]
        for cell, arm in zip(cells, alike, strict=True):
            if (first := cells[alike.index(arm)]) is not cell:
                raise ValueError(f"axes: the cells {first.label!r} and {cell.label!r} are the same")
        return self


class Changes(Options):
    """What a person may change of an experiment for one run."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    collections: tuple[str, ...] = ()
    """Specs of collections, instead of the file's. Empty: the file's."""
    set: tuple[str, ...] = ()
    """Changes of the file's arms and first stages, as in perank.checkpoint=my-checkpoint."""
    query_limit: int | None = Field(None, ge=1)
    """Only the first so many queries. Empty: as the file says."""
    smoke: bool = False
    """The smoke size, of minutes."""
    run_date: date | None = None
    """The date the results are filed under, and as of which collections are read. Empty: the run's
    logical date, or today in UTC."""


class RunOptions(Changes):
    """One run of an experiment."""

    experiment: str = "window"
    """A prepared experiment's name, or the path of a TOML file that every worker can read.
    Prepared: ablation, compression, crossvalidation, decoding, embedders, order, precision,
    window."""

    def file(self) -> ExperimentFile:
        """The experiment as these options change it.

        Raises:
            ConfigError: there is none of that name, or an option does not fit it.
        """
        return ExperimentFile.read(self.experiment).change(self)


def prepared() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(path.stem for path in PREPARED.glob("*.toml"))


def _underscored(value: Any) -> Any:
    """The same with underscores in the keys of its tables, but for those of further tables, which
    are names of arms."""
    if isinstance(value, Mapping):
        return {
            k if isinstance(v, Mapping) else k.replace("-", "_"): _underscored(v)
            for k, v in value.items()
        }
    return [_underscored(each) for each in value] if isinstance(value, list | tuple) else value


def _single(axis: str, value: Any) -> Table:
    # Of a path or a hub id the last part: a slash in `SERIES/ARM` means something.
    shown = str(value).rstrip("/").rpartition("/")[2]
    return {axis: value, "label": f"{axis.replace('_', ' ')} {shown}"}
