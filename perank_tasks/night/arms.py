"""The file that declares first stages and arms: in, TOML; out, options that are checked.

    first-stage = "bm25"              the first stage of arms that name none

    [first-stages.NAME]
    kind = "bm25"                     bm25, given, dense or hybrid, and what that reads

    [arms.NAME]
    ranker = "perank"                 a name in `rankers.RANKERS`
    first-stage = "bm25"
    depth = 50                        only the first so many candidates are ranked
    expect = ["order-unchanged"]      symptoms of doing nothing that this arm is to have
    window = 20                       whatever that ranker may be set to

Keys may be written with hyphens or underscores. `arms.toml` beside this file is the built-in one.
What the names in it mean on this machine is for `plan` to say.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from perank_tasks.config import FirstStageKind, NightOptions, did_you_mean
from perank_tasks.errors import ConfigError
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import EmbedderOptions, RankerOptions
from perank_tasks.support.analysis import ANALYZERS, ENGLISH
from perank_tasks.support.words import split_words

BUILT_IN = Path(__file__).with_name("arms.toml")

FIRST_STAGES = "first-stages"
FIRST_STAGE = "first-stage"
ARMS = "arms"

READ_BY = {
    "bm25": {"k1", "b", "analyzer"},
    "given": set[str](),
    "dense": set(EmbedderOptions.model_fields),
    "hybrid": {"k1", "b", "analyzer", "rrf_k", *EmbedderOptions.model_fields},
}
"""What each kind of first stage reads beside its depth."""


class FirstStageOptions(EmbedderOptions):
    """What a first stage may be set to."""

    kind: FirstStageKind
    """Where candidates come from: bm25: over the whole collection; given: the run file of the
    collection; dense: exact search by an embedder's cosine over the whole collection; hybrid:
    reciprocal-rank fusion of bm25 and dense, each to the depth of the list."""
    depth: int = Field(100, ge=1, le=10_000)
    """Candidates a query."""
    k1: float = Field(0.9, ge=0, le=10)
    """BM25's term saturation (0.9 as Anserini)."""
    b: float = Field(0.4, ge=0, le=1)
    """BM25's length normalisation (0.4 as Anserini)."""
    analyzer: str = ENGLISH
    """What makes terms of texts: english (as Lucene's); another language, by PyStemmer's name for
    it; words: without stemming; bigrams: of characters, for scripts without spaces (Chinese,
    Japanese, Thai, …)."""
    rrf_k: int = Field(60, ge=1)
    """hybrid: what is added to a rank before its reciprocal is taken (60 as Cormack et al., SIGIR
    2009)."""

    @field_validator("analyzer")
    @classmethod
    def _analyzer_is_known(cls, value: str) -> str:
        if value not in ANALYZERS:
            raise ValueError(f"expected {', '.join(ANALYZERS)}{did_you_mean(value, ANALYZERS)}")
        return value

    @model_validator(mode="after")
    def _reads_what_is_set(self) -> Self:
        unread = self.model_fields_set - {"kind", "depth"} - READ_BY[self.kind]
        if unread:
            raise ValueError(
                f"a first stage of kind {self.kind} reads no {', '.join(sorted(unread))}"
            )
        return self


@dataclass(frozen=True)
class DeclaredArm:
    """An arm as the file declares it.

    Attributes:
        name: what tables call it.
        first_stage: the name of a declared first stage.
        ranker: a name in `RANKERS`.
        depth: how many of its candidates are ranked; None: all.
        options: what its ranker is set to.
    """

    name: str
    first_stage: str
    ranker: str
    depth: int | None
    options: RankerOptions


@dataclass(frozen=True)
class ArmsFile:
    """A file of arms, not yet checked: tables as TOML has them, settings with underscores."""

    source: str
    """Where it is from, for messages."""
    tables: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path | None = None) -> "ArmsFile":
        """Read a file; None: the built-in one.

        Raises:
            ConfigError: there is no such file, or it is no TOML.
        """
        path = BUILT_IN if path is None else Path(path).expanduser()
        try:
            file = cls.of(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The file of arms {path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"The file of arms {path} is no TOML: {error}") from error
        for group in (FIRST_STAGES, ARMS):
            for name in file.tables[group]:
                # An experiment's arms are called by their labels, and make no names of files.
                if not re.fullmatch(r"[^\s/,]+", name):
                    raise ConfigError(
                        f"{path}: {group} names one {name!r}; names of files and runs are made "
                        "of it, so write it without white space, / and ,"
                    )
        return file

    @classmethod
    def of_night(cls, options: NightOptions, deployments: str | None) -> "ArmsFile":
        """The file that a night's options name, with their changes.

        Args:
            deployments: the file where the options name none; None: the built-in one.
        """
        return cls.read(options.arms_file or deployments).change(options.set)

    @classmethod
    def of(cls, tables: Mapping[str, Any], source: str = "the arms given") -> "ArmsFile":
        """Arms from tables that are read already.

        Raises:
            ConfigError: a table that is none of a file of arms, or that is no table.
        """
        known = (FIRST_STAGE, FIRST_STAGES, ARMS)
        tables = {key.replace("_", "-"): value for key, value in tables.items()}
        for key in tables:
            if key not in known:
                raise ConfigError(
                    f"{source}: {key!r} is no part of a file of arms; expected "
                    f"{', '.join(known)}{did_you_mean(key, known)}"
                )
        for group in (FIRST_STAGES, ARMS):
            declared = tables.get(group, {})
            if not isinstance(declared, dict) or not all(
                isinstance(table, dict) for table in declared.values()
            ):
                raise ConfigError(f"{source}: {group} holds tables, written as [{group}.NAME]")
            tables[group] = {name: _underscored(table) for name, table in declared.items()}
        return cls(source, tables)

    @property
    def names(self) -> list[str]:
        """The arms that it declares, in order."""
        return list(self.tables[ARMS])

    def change(self, words: Iterable[str]) -> "ArmsFile":
        """The same with other settings.

        Args:
            words: `ARM.KEY=VALUE`, `first-stages.NAME.KEY=VALUE` or `first-stage=NAME`; a value is
                read as TOML where it is some, as text where it is none. An empty value takes the
                setting out, so that its default holds.

        Raises:
            ConfigError: a word that sets nothing, or the name of no arm and no first stage.
        """
        tables = deepcopy(dict(self.tables))
        for target, text in split_words(words):
            name, _, key = target.rpartition(".")
            key, group, what = key.replace("-", "_"), ARMS, "arm"
            if not name and key == "first_stage":
                tables[FIRST_STAGE] = _toml_value(text)
                continue
            head, _, rest = name.partition(".")
            if rest and head.replace("_", "-") == FIRST_STAGES:
                group, what, name = FIRST_STAGES, "first stage", rest
            if name not in tables[group]:
                known = tables[group] if name else [FIRST_STAGE, *tables[ARMS]]
                raise ConfigError(
                    f"{target}={text} sets nothing: {self.source} declares no {what} "
                    f"{name or target!r}{did_you_mean(name or target, known)}. Write "
                    "ARM.KEY=VALUE, first-stages.NAME.KEY=VALUE or first-stage=NAME."
                )
            tables[group][name].pop(key, None)
            if text:
                tables[group][name][key] = _toml_value(text)
        return replace(self, tables=tables)

    def first_stage(self, name: str, *, of: str) -> FirstStageOptions:
        """A declared first stage, checked.

        Args:
            of: whose it is, for the message.

        Raises:
            ConfigError: names file, first stage and key.
        """
        declared = self.tables[FIRST_STAGES]
        if name not in declared:
            raise ConfigError(
                f"{self.source}, {of}: there is no first stage {name!r}; declared are "
                f"{', '.join(declared) or 'none'}{did_you_mean(name, declared)}"
            )
        where = f"{self.source}: the settings of first stage {name}"
        return FirstStageOptions.parse(declared[name], where)

    def select(self, names: Iterable[str] = ()) -> list[DeclaredArm]:
        """The arms of these names, or all, checked.

        Raises:
            ConfigError: an arm that is not declared, or that is not valid: names file, arm and key.
        """
        declared = self.tables[ARMS]
        if not declared:
            raise ConfigError(f"{self.source} declares no arms; write them as [arms.NAME]")
        for name in (chosen := list(names) or list(declared)):
            if name not in declared:
                raise ConfigError(
                    f"There is no arm {name!r} in {self.source}; declared are "
                    f"{', '.join(declared)}{did_you_mean(name, declared)}"
                )
        return [self._arm(name, dict(declared[name])) for name in chosen]

    def _arm(self, name: str, settings: dict[str, Any]) -> DeclaredArm:
        where = f"{self.source}, arm {name}"
        ranker = settings.pop("ranker", None)
        if str(ranker) not in RANKERS:
            raise ConfigError(
                f"{where}: ranker is {ranker!r}; expected {', '.join(RANKERS)}"
                f"{did_you_mean(str(ranker), RANKERS)}"
            )
        depth = settings.pop("depth", None)
        if depth is not None and (type(depth) is not int or depth < 1):
            raise ConfigError(f"{where}: depth is {depth!r}; expected a whole number of 1 or more")
        first_stage = settings.pop("first_stage", self.tables.get(FIRST_STAGE))
        if first_stage is None:
            raise ConfigError(
                f"{where} names no first stage, and the file has no first-stage for all"
            )
        options = RANKERS[ranker].parse(settings, f"{where}: the settings of ranker {ranker}")
        return DeclaredArm(name, str(first_stage), ranker, depth, options)


def _underscored(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


def _toml_value(text: str) -> Any:
    """What TOML reads there; the text itself where that is no TOML, as a bare word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
