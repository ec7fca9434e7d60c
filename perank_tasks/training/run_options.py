"""What a training run is: its options, and its plan.

`TrainingOptions` are a run's own; data and both stages bring theirs: `DataOptions`, `AlignRecipe`,
`RankRecipe`. Those are given flat, by names with a prefix (`data_queries`, `align_learning_rate`,
`rank_kl_weight`), by `set` or in an experiment's table; a recipe's that is not given has the
preset's value. `Training` is a planned run and travels between tasks as JSON.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from functools import cached_property
from typing import Any, Literal, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perank_tasks.config import Options, stable_hash
from perank_tasks.errors import ConfigError
from perank_tasks.support.words import split_words
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.recipe import AlignRecipe, Preset, RankRecipe


class TrainingOptions(Options):
    """What a person may choose for a training run, beside data and recipes."""

    preset: Preset = "tiny"
    """Where the recipes begin. paper: 7B models on GPUs, as published; tiny: SmolLM2-135M on two
    cores; feedback: the same with the start, prompt and order that the checkpoint that ships has,
    for lists of a feedback teacher (data_feedback) and without alignment (align=false). Every
    option of a stage that is empty has its value."""
    name: str = Field("trained", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the checkpoint is called in the registry."""
    run_date: date | None = None
    """The date as of which collections are read, the champion is looked up and a promotion holds.
    Empty: the run's logical date, or today in UTC."""
    start: str | None = None
    """The checkpoint to begin with: champion, a name, a folder or a hub id. Empty: the recipe's
    base model with a new projector."""
    align: bool = True
    """Whether stage 1 is run before stage 2."""
    stop_share: float = Field(0.1, ge=0, lt=1)
    """Share of the training queries that is held out, to choose the best step and to stop early
    by. 0: the last step is taken."""
    folds: int | None = Field(None, ge=2)
    """Cross-validation: the training queries are cut into so many folds, queries in the same words
    together, and those of `fold` are left out. Collections that are trained on may then be
    evaluation collections, too: measure the checkpoint on the fold's queries. Empty: do not."""
    fold: int = Field(1, ge=1)
    """The fold whose queries are left out, from 1."""
    development: str | None = None
    """Spec of the judged collection that decides on promotion; none of its queries may be trained
    on. Empty: the deployment's own, PERANK_COLLECTION."""
    first_stage: Literal["bm25", "given"] = "bm25"
    """Where its candidates come from: bm25, or the run it brings."""
    depth: int = Field(100, ge=1, le=1000)
    """Candidates a query."""
    window: int = Field(20, ge=2, le=100)
    """Passages the LLM ranks at once."""
    step: int = Field(10, ge=1, le=100)
    """How far the window moves."""
    promotion: Literal["not-worse", "better", "never"] = "not-worse"
    """When the new checkpoint becomes champion. By nDCG@10 on the development collection, against
    the champion. not-worse: unless its mean is lower and either the paired test is significant or
    the loss is max_loss or more; better: only if its mean is higher and the paired test is
    significant; never: it is registered and no more."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Below which p a paired difference is significant."""
    max_loss: float = Field(0.02, ge=0)
    """not-worse: a loss of the mean that is never taken, significant or not."""
    set: tuple[str, ...] = ()
    """NAME=VALUE of data and stages, as in data_collections=files:/data/dl21, align_max_steps=500,
    rank_kl_weight=0.2; NAME= empties it, semicolons stand between a list's items. `perank train run
    --help` explains all."""

    @model_validator(mode="after")
    def _has_that_fold(self) -> Self:
        if self.folds and self.fold > self.folds:
            raise ValueError(f"fold is {self.fold}, and there are {self.folds} folds")
        return self


DATA, ALIGN, RANK = "data", "align", "rank"
PARTS: dict[str, type[Options]] = {DATA: DataOptions, ALIGN: AlignRecipe, RANK: RankRecipe}
"""Prefix of an option: what it belongs to."""
IMPLIED = {f"data_{name}" for name in ("stage", "name", "as_of", "embedder")}
"""Options that follow from the run's own, and from its recipe."""


class Training(BaseModel):
    """A planned run: everything a stage needs beside its input artifacts."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    options: TrainingOptions
    ranking_data: DataOptions
    alignment_data: DataOptions | None
    """None where stage 1 is left out."""
    align: AlignRecipe
    rank: RankRecipe
    start: str | None
    """The checkpoint to begin with, resolved; None: the base model."""
    start_hash: str | None
    """Of its content."""
    development: str
    """Spec, resolved."""
    champion: str
    """The checkpoint to beat: champion as of the date, whatever this very run promotes."""
    fingerprint: dict[str, str]

    @property
    def subject(self) -> dict[str, str]:
        """What log lines and metrics say it is about."""
        return {"training": self.options.name}

    @cached_property
    def hash(self) -> str:
        """Of what was asked for: the machine, and whom it has to beat, aside."""
        return stable_hash(self.model_dump(mode="json", exclude={"champion", "fingerprint"}))

    def to_json(self) -> dict[str, Any]:
        """A JSON object, fit for XCom; `Training.from_json` reads it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Training":
        return cls.model_validate(value)


def parse_options(values: Mapping[str, Any]) -> tuple[TrainingOptions, dict[str, dict[str, Any]]]:
    """A run's own options, and what is given for each part, from flat values.

    The words of `set` count as values. Those of a part that are None are left out; "" means that
    what the preset sets is to be empty.

    Raises:
        ConfigError: names the options that are not valid.
    """
    given = {**values, **_values(values.get("set", ()))}
    given.pop("set", None)
    own: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in given.items():
        part, dash, rest = name.partition("_")
        if name in IMPLIED:
            raise ConfigError(f"{name} follows from the run's other options: leave it out.")
        if part not in PARTS or not dash:  # `align` is the run's own
            own[name] = value
        elif value is not None:
            parts[part][rest] = None if value == "" else value
    return TrainingOptions.parse(own), parts


def _values(words: Iterable[str]) -> dict[str, Any]:
    """Options from NAME=VALUE words."""
    values: dict[str, Any] = {}
    for key, value in split_words(words):
        part, _, rest = key.partition("_")
        field = PARTS[part].model_fields.get(rest) if part in PARTS else None
        is_list = field is not None and get_origin(field.annotation) is tuple
        items = [item.strip() for item in value.split(";") if item.strip()]
        values[key] = items if is_list else value
    return values
