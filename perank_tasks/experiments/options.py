"""Options: an experiment as a small TOML file, frozen and checked where it is read.

name = "window"                  # what its results are filed under
question = "How long …?"
baseline = "window 20"           # the variant that all others are held against
collections = ["pydocs"]         # specs; the command line may name others
budget = { cells = 8, hours = 1.0 }

[base]                           # options of every cell: those of a night, and `arm`
depth = 100

[axes]                           # the grid is the product of all axes
window = [10, 20]                # values of one option, or

[[axes.order]]                   # several options that go together, with a name
label = "shuffled, seed 1"
variant = "shuffled"             # cells of one variant are averaged query by query
initial_order = "random"
order_seed = 1

[[axes.recipe]]
label = "with texts"
training = { rank_text_weight = 1.0 }  # on top of the table below

[training]                       # train a checkpoint for each cell: options of `train run`
[smoke]                          # options on top of all others for a run of minutes
[smoke.training]
"""

import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from perank_tasks.config import ArmName, NightOptions, Options, split_words, stable_hash
from perank_tasks.errors import ConfigError
from perank_tasks.regression.measures import MEASURES

PREPARED = Path(__file__).parent / "prepared"

TRAINING = "training"
OWN_OPTIONS = ("arm", TRAINING)
"""Options of a cell that are none of a night: the arm, and options of the training."""

NOT_FOR_CELLS = (
    *("arms", "collection", "run_date", "baseline", "accept", "accept_name"),
    "max_unranked",
)
"""Options of a night that an experiment says in another way, or has no use for."""

SEEDS = ("order_seed", "training.rank_seed", "training.data_seed", "training.fold")
"""What cells of one variant may differ in."""

LABELS = ("label", "variant")

Cost = Literal["seconds", "tokens", "flops", "bits"]

AxisValue = Mapping[str, Any]


class Budget(Options):
    """What a run may take at most."""

    cells: int = Field(ge=1, description="Cells over all collections; more are refused.")
    hours: float = Field(gt=0, description="After so many, no further cell is begun.")


class Experiment(Options):
    """One question and the cells that answer it."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9._-]*$", description="What its results are filed under."
    )
    question: str = Field(min_length=10, description="What it is to answer, in a sentence.")
    baseline: str = Field(description="The variant that all others are held against.")
    collections: tuple[str, ...] = Field(min_length=1, description="Specs of the collections.")
    budget: Budget
    measures: tuple[str, ...] = Field(
        ("nDCG@10",), min_length=1, description="Measures that are tested, the main one first."
    )
    length_parts: int = Field(
        0,
        ge=0,
        le=10,
        description="Also measure the passages in so many parts by length, each among themselves. "
        "0: do not.",
    )
    cost: tuple[Cost, ...] = Field(
        ("seconds",),
        min_length=1,
        description="What quality is plotted against, one or several: seconds, tokens or flops a "
        "query, bits a passage.",
    )
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    training: dict[str, Any] | None = None
    smoke: dict[str, Any] = Field(default_factory=dict)
    is_smoke: bool = Field(False, description="Whether this is the smoke size.")

    @classmethod
    def read(cls, file: str | Path) -> "Experiment":
        """Read a file, or a prepared experiment by its name.

        Raises:
            ConfigError: there is no such file, it is no TOML, or says something that cannot be.
        """
        path = PREPARED / f"{file}.toml"
        if not path.is_file():
            path = Path(file)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"There is no file {file}, and no prepared experiment of that name: these are "
                f"{', '.join(prepared())}."
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"The experiment {path} cannot be read: {error}.") from None
        try:
            return cls.parse(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @property
    def hash(self) -> str:
        """Sixteen hex digits that name what is asked for."""
        return stable_hash(self.model_dump(mode="json"))

    @property
    def filed_as(self) -> str:
        """The name in tables: that of a smoke run says so."""
        return f"{self.name}-smoke" if self.is_smoke else self.name

    def to_smoke(self) -> "Experiment":
        """The same in minutes: every cell, each with the options of `smoke` on top."""
        smoke = dict(self.smoke)
        training = smoke.pop("training", {})
        more = {"training": {**self.training, **training}} if self.training is not None else {}
        budget = Budget(cells=self.budget.cells, hours=0.25)
        # What is on top of an axis wins over it: kept apart until cells are made.
        return self.model_copy(update={"is_smoke": True, "smoke": smoke, "budget": budget, **more})

    def with_options(
        self, options: Mapping[str, Any], collections: tuple[str, ...] = ()
    ) -> "Experiment":
        """With other options for every cell, and over other collections.

        A budget of cells grows with the number of collections.
        """
        values = self.model_dump()
        values["base"] |= options
        if collections:
            each = -(-self.budget.cells // len(self.collections))
            values["collections"] = collections
            values["budget"]["cells"] = max(self.budget.cells, each * len(collections))
        return type(self).parse(values)

    def grid(self) -> list["GridCell"]:
        """The cells of one collection, in the order of the axes, the last one changing fastest."""
        over = self.smoke if self.is_smoke else {}
        found = []
        for chosen in itertools.product(*(self._values(axis) for axis in self.axes)):
            options = dict(self.base)
            training: dict[str, Any] = {}
            for value in chosen:
                options |= {k: v for k, v in value.items() if k not in (*LABELS, TRAINING)}
                training |= value.get(TRAINING, {})
            if training:
                options[TRAINING] = training
            labels, variants = (
                ", ".join(str(value[name]) for value in chosen if value[name]) for name in LABELS
            )
            found.append(GridCell(label=labels, variant=variants, options=options | over))
        return found

    def _values(self, axis: str) -> list[AxisValue]:
        values: list[AxisValue] = []
        for value in self.axes[axis]:
            if isinstance(value, Mapping):
                label = value["label"]
                values.append({**value, "variant": value.get("variant", label)})
            else:
                # Of a path or a hub id the last part: a slash in `EXPERIMENT/CELL` means something.
                label = f"{axis.replace('_', ' ')} {str(value).rstrip('/').rpartition('/')[2]}"
                values.append({axis: value, "label": label, "variant": label})
        return values

    @field_validator("cost", mode="before")
    @classmethod
    def _of_one(cls, cost: Any) -> Any:
        return (cost,) if isinstance(cost, str) else cost

    @field_validator("axes", mode="before")
    @classmethod
    def _from_pairs(cls, axes: Any) -> Any:
        return dict(axes) if isinstance(axes, list | tuple) else axes

    @field_serializer("axes")
    def _to_pairs(self, axes: dict[str, tuple[Any, ...]]) -> list[tuple[str, tuple[Any, ...]]]:
        # As pairs: databases that keep JSON for a plan or a table may sort an object's keys, and
        # cells are called by their axes in order.
        return list(axes.items())

    @model_validator(mode="after")
    def _is_a_grid(self) -> "Experiment":
        if unknown := [m for m in self.measures if m not in MEASURES]:
            raise ValueError(f"measures: there is no {unknown[0]}; there are {', '.join(MEASURES)}")
        if not self.axes:
            raise ValueError("axes: name at least one, with its values")
        for axis, values in self.axes.items():
            if not values:
                raise ValueError(f"axes.{axis} has no values")
            for value in values:
                if isinstance(value, Mapping) and not isinstance(value.get("label"), str):
                    raise ValueError(f"axes.{axis}: a value of several options needs a label")
                for name in LABELS if isinstance(value, Mapping) else ():
                    if "/" in str(value.get(name)):
                        raise ValueError(f"axes.{axis}: {name} {value[name]!r} has a slash in it")
        cells = self.grid()
        for cell in cells:
            cell.night_options()
            if cell.training and self.training is None:
                raise ValueError(
                    f"cell {cell.label!r}: there is no table [training] that it would change"
                )
        if self.smoke and not self.is_smoke:
            if not isinstance(self.smoke.get("training", {}), Mapping):
                raise ValueError("smoke.training: expected a table of options")
            if "training" in self.smoke and self.training is None:
                raise ValueError(
                    "smoke.training: there is no table [training] that it would change"
                )
            try:
                for cell in self.to_smoke().grid():
                    cell.night_options()
            except ValueError as error:
                raise ValueError(f"smoke: {error}") from None
        labels = [cell.label for cell in cells]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"axes: two cells are called {twice[0]!r}: give each a label")
        variants = list(dict.fromkeys(cell.variant for cell in cells))
        if self.baseline not in variants:
            raise ValueError(
                f"baseline: no variant is called {self.baseline!r}; there are {'; '.join(variants)}"
            )
        for variant in variants:
            first, *others = (cell.flat() for cell in cells if cell.variant == variant)
            for other in others:
                differ = {k for k in first | other if first.get(k) != other.get(k)} - {*SEEDS}
                if differ:
                    raise ValueError(
                        f"axes: cells of the variant {variant!r} differ in {min(differ)}, and "
                        f"would be averaged: they may differ in {' and '.join(SEEDS)} alone"
                    )
        count = len(cells) * len(self.collections)
        if count > self.budget.cells:
            raise ValueError(
                f"budget: the grid has {count} cells, and the budget is {self.budget.cells}"
            )
        return self


class GridCell(BaseModel):
    """One cell of the grid, on any collection."""

    model_config = ConfigDict(frozen=True)

    label: str
    """Of this cell alone."""
    variant: str
    """What it is one of: cells that differ in a seed share it."""
    options: dict[str, Any]
    """Of a night, and those in `OWN_OPTIONS`."""

    @property
    def arm(self) -> ArmName:
        """The arm that ranks."""
        return self.options.get("arm", "perank")

    @property
    def training(self) -> dict[str, Any]:
        """Options of its training, on top of the experiment's."""
        return dict(self.options.get(TRAINING, {}))

    def flat(self) -> dict[str, Any]:
        """All of its options by name, those of the training as `training.NAME`."""
        own = {name: value for name, value in self.options.items() if name != TRAINING}
        return own | {f"{TRAINING}.{name}": value for name, value in self.training.items()}

    def night_options(self) -> NightOptions:
        """The cell's options as those of a night.

        Raises:
            ValueError: one is not valid; names the cell.
        """
        own = {k: v for k, v in self.options.items() if k not in OWN_OPTIONS}
        try:
            if wrong := [name for name in NOT_FOR_CELLS if name in own]:
                raise ConfigError(f"{wrong[0]} is no option of a cell")
            # One shard: a model is loaded once for each.
            return NightOptions.parse({"shards": 1, **own, "arms": (self.arm,)})
        except ConfigError as error:
            said = str(error).removeprefix("These options are not valid:\n").strip()
            raise ValueError(f"cell {self.label!r}: {said}") from None


class RunOptions(Options):
    """What a person may choose for one run of an experiment."""

    experiment: str = Field(
        "window",
        description="A prepared experiment's name, or the path of a TOML file that every worker "
        "can read. Prepared: ablation, compression, crossvalidation, decoding, embedders, order, "
        "precision, window.",
    )
    collections: tuple[str, ...] = Field(
        (), description="Specs of collections, instead of the file's. Empty: the file's."
    )
    set: tuple[str, ...] = Field(
        (), description="Options of every cell, as NAME=VALUE, as in checkpoint=my-checkpoint."
    )
    smoke: bool = Field(False, description="The smoke size, of minutes.")
    run_date: date | None = Field(
        None,
        description="The date the results are filed under, and as of which collections are read. "
        "Empty: the run's logical date, or the day it was due.",
    )

    def experiment_asked(self) -> Experiment:
        """The experiment as these options change it.

        Raises:
            ConfigError: there is none of that name, or an option does not fit it.
        """
        asked = Experiment.read(self.experiment)
        if self.collections or self.set:
            asked = asked.with_options(words_to_options(self.set), self.collections)
        return asked.to_smoke() if self.smoke else asked


def words_to_options(words: Iterable[str]) -> dict[str, Any]:
    """Options from NAME=VALUE words: numbers and true or false where they read as such.

    Raises:
        ConfigError: a word that is none.
    """
    options: dict[str, Any] = {}
    for name, value in split_words(words):
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def prepared() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(path.stem for path in PREPARED.glob("*.toml"))
