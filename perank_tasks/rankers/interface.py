"""What a ranker is: options that say what it needs, and a thing that ranks lists.

A ranker's module has two classes. Its *options* are what an arm may set: they are parsed from the
file of arms, and `describe` says by content what they mean here: whose embeddings are read, whether
texts are, which model ranks. Its *ranker* is made by `load` where lists are ranked.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import field_validator

from perank_tasks.config import DEFAULT_EMBEDDER, Options, Precision, SymptomName
from perank_tasks.errors import ConfigError
from perank_tasks.models.find import content_hash, find_model
from perank_tasks.models.vectors import Transform
from perank_tasks.support.lists import NOT_FINITE, CandidateList, RankedList, unranked


@dataclass(frozen=True)
class Models:
    """Where models are on this machine.

    Attributes:
        cache: the folder for models that have to be unpacked.
        local: the folder of a checkpoint that is known by a name; other names are handed back.
        threads: that one task may use.
        run_date: the night's, for what is another one every night.
    """

    cache: Path
    local: Callable[[str], str]
    threads: int
    run_date: date = date.min


@dataclass(frozen=True)
class Description:
    """What an arm's ranker is and reads, by content.

    Attributes:
        embedder: whose vectors of passages and query it reads; None: it reads none.
        texts: whether it reads passages' texts.
        grades: whether it reads judgements, as an oracle does.
        identity: what names the content of its models, for the arm's hash. `NAME_hash` is of the
            files of the setting NAME: where these change under one name, the verdict says so.
        impossible: why there can be no such arm here; None: there can.
        missing: why its model or file is not there tonight; None: it is. The arm is incomplete for
            that reason, the others are whole.
        run: fields of a `FirstStage` of kind `run`, where its candidates come from in place of the
            declared one's; empty: from that.
    """

    embedder: str | None = None
    texts: bool = False
    grades: bool = False
    identity: dict[str, Any] = field(default_factory=dict)
    impossible: str | None = None
    missing: str | None = None
    run: dict[str, Any] = field(default_factory=dict)


class Ranker(Protocol):
    """Something that ranks lists."""

    device: str = "cpu"
    """Where it ranks, as torch names it."""

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """One ranked list for each that is given, in order; read as results are asked for.

        A list with a `problem` is left unranked for that reason.
        """
        ...

    def description(self) -> dict[str, Any]:
        """What ranks, for provenance: JSON-ready. By default nothing is said."""
        return {}

    def work(self) -> dict[str, float]:
        """What it has done so far, by the names in `meter.WORK`: without an LLM, nothing."""
        return {}


class RankerOptions(Options):
    """What an arm may set of its ranker."""

    expect: tuple[SymptomName, ...] = ()
    """Symptoms of a ranker that does nothing which this arm is to have (`regression/symptoms.py`);
    no part of its hash."""

    def describe(self, models: Models) -> Description:
        """What these options mean on this machine; nothing is loaded. By default: the list alone
        is read, and there is no model.

        Raises:
            ConfigError, CheckpointError: there is no such model, and the night is refused. Whatever
                the ranker of another package raises costs its arm alone.
        """
        return Description()

    @abstractmethod
    def load(self, models: Models) -> Ranker:
        """The ranker, ready to rank.

        Raises:
            RankerError, ConfigError, CheckpointError: its model or service is not there, or does
                not work: the arm is incomplete for that reason.
        """


class ModelOptions(RankerOptions):
    """What an arm may set whose model reads texts and has a name of its own."""

    model: str
    """A folder or a hub id."""
    revision: str | None = None
    """Of a hub id: a branch, tag or commit. Empty: the newest."""

    def describe(self, models: Models) -> Description:
        """The model by its content."""
        try:
            found = find_model(self.model, revision=self.revision)
        except ConfigError as error:
            return Description(texts=True, missing=str(error))
        content = found.revision or content_hash(found.folder)
        return Description(texts=True, identity={"model_hash": content})


class EmbeddingOptions(Options):
    """What an arm or a first stage that reads embeddings may set of them."""

    precision: Precision = "float32"
    """How embeddings are kept: float16 takes half the space."""
    transform: str | None = None
    """What passages' vectors are put through before they are searched or ranked, to see what
    smaller ones would do: dims:128, float16, int8, binary or noise:0.5, joined by +. Empty:
    nothing."""
    trust_remote_code: bool = False
    """Run Python code that an embedder's repository brings (as JinaBERT's does), with all your
    rights: only if you trust its author."""

    @field_validator("transform")
    @classmethod
    def _transform_parses(cls, value: str | None) -> str | None:
        try:
            if value:
                Transform.parse(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value or None


class EmbedderOptions(EmbeddingOptions):
    """What an arm may set that reads the vectors of an embedder of its choice."""

    embedder: str = DEFAULT_EMBEDDER
    """Whose vectors are read: an embedded name, a folder or a hub id."""


class ScoreRanker(Ranker):
    """A ranker that sorts by one score a passage: equal scores keep the first stage's order."""

    def __init__(
        self,
        score: Callable[[CandidateList], np.ndarray],
        *,
        device: str = "cpu",
        description: Mapping[str, Any] | None = None,
    ):
        """Args: score: a list's n scores. device, description: as `Ranker` has them."""
        self.score = score
        self.device = device
        self._description = dict(description or {})

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`; a list with scores that are not finite is left unranked."""
        for candidates in lists:
            if candidates.problem:
                yield unranked(candidates, candidates.problem)
            else:
                yield by_score(candidates, self.score(candidates))

    def description(self) -> dict[str, Any]:
        """What ranks; nothing where there is no model."""
        return self._description


def by_score(candidates: CandidateList, scores: np.ndarray, **counts: int) -> RankedList:
    """The list sorted by its scores, (n,), stably; unranked where one is not finite.

    Args:
        counts: fields of `RankedList`: what ranking it took.
    """
    if not np.isfinite(scores).all():
        return unranked(candidates, f"{NOT_FINITE}: embeddings or scores hold NaN")
    order = np.argsort(-scores, kind="stable")
    return RankedList(
        candidates.query_id,
        candidates.passage_ids,
        order.tolist(),
        scores[order].astype(float).tolist(),
        **counts,  # type: ignore[arg-type]
    )
