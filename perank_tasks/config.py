"""A night, its arms and its options: validated, hashed, and small enough to travel as JSON.

`NightOptions` is what a person sets for a night; its field descriptions are also the help of the
command line and of the Airflow form. `Arm` is one complete configuration that ranks; its hash names
it in every table. `Night` is a planned run: options, date, arms, fingerprint of what computes it.

What an arm may be set to is its ranker's business (`rankers/`) and its first stage's
(`night/arms.py`), where the file that declares arms is read.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.config import JsonDict
from pydantic_core import ErrorDetails

from perank_tasks.errors import ConfigError

NIGHTLY = "nightly"
"""The series of the nights that are judged against each other; any other is an experiment's."""

DEFAULT_EMBEDDER = "bge-small-en-v1.5?prompts=own"
DEFAULT_CHECKPOINT = "smollm2-bge"
CHAMPION = "champion"
"""What stands for the checkpoint promoted as of a night's date (`warehouse.registry`)."""

FirstStageKind = Literal["bm25", "given", "dense", "hybrid"]
Precision = Literal["float32", "float16"]
SymptomName = Literal[
    "order-unchanged", "scores-equal", "same-as-another", "answers-repaired", "texts-cut"
]


def stable_hash(value: Any) -> str:
    """Sixteen hex digits of a JSON-able value, the same in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_hash(fingerprint: Mapping[str, str]) -> str:
    """Of all but the commit: a commit that leaves the code as it was changes nothing."""
    return stable_hash({k: v for k, v in fingerprint.items() if k != "commit"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Options(_Frozen):
    """What a person may choose: checked where it is made, with errors that name the option.

    The string below a field is its help, on the command line and in forms.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "These options") -> Self:
        """Validate values from a command line, a form or a file.

        Args:
            where: whose options they are, for the message.

        Raises:
            ConfigError: names each field, the value it got and what it accepts.
        """
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where} are not valid:\n{error}") from None
        except ValidationError as error:
            raise ConfigError(f"{where} are not valid:\n{cls.explain(error)}") from None

    @classmethod
    def explain(cls, error: ValidationError) -> str:
        """What is wrong, a line an option."""
        items = error.errors()
        # A list that has lost its wrong items is then found to be too short, too.
        lists = {item["loc"][:-1] for item in items} - {()}
        known = list(cls.model_fields)
        return "\n".join(_explained(item, known) for item in items if item["loc"] not in lists)


def _explained(item: ErrorDetails, options: list[str]) -> str:
    """One line on an option that is wrong, with the names closest to it."""
    where = ".".join(str(part) for part in item["loc"]) or "options"
    is_said = item["loc"] and item["type"] != "missing"
    value = f" (found {item['input']!r})" if is_said else ""
    message = item["msg"].removeprefix("Value error, ")
    name, known = item["input"], re.findall(r"'([^']*)'", item.get("ctx", {}).get("expected", ""))
    if item["type"] == "extra_forbidden":
        message = "there is no such option"
        name, known = where, options
    return f"  {where}: {message}{value}{did_you_mean(str(name), known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the known names closest to one that is not known; empty where none is close."""
    close = get_close_matches(name.lower(), list(known))
    return f". Did you mean {' or '.join(close)}?" if close else ""


# Sections of the form. Of a text, `examples` are offered as it is typed; a list with examples could
# hold no other values, so that its description gives one.
_DATA: JsonDict = {"section": "Data"}
_ARMS: JsonDict = {"section": "Arms"}
_VERDICT: JsonDict = {"section": "Verdict"}
_ADVANCED: JsonDict = {"section": "Advanced"}


class NightOptions(Options):
    """What a person may choose for a night; how an arm ranks is in the file of arms."""

    collection: str | None = Field(
        None,
        examples=["pydocs", "files:/data/scifact", "ir_datasets:beir/scifact/test"],
        json_schema_extra=_DATA,
    )
    """Collection spec: pydocs; files:/folder or files:s3://bucket/folder (BEIR or TREC layout;
    options as in files:/folder?name=dl19&run=bm25.trec&relevance_level=2); or
    ir_datasets:beir/scifact/test, any id of that library. Empty: the deployment's own,
    PERANK_COLLECTION."""
    run_date: date | None = Field(None, title="Date", json_schema_extra=_DATA)
    """The date the results are filed under, and as of which the collection is read. Empty: the
    run's logical date, or today in UTC."""
    query_limit: int | None = Field(None, ge=1, title="Query limit", json_schema_extra=_DATA)
    """Only the first so many queries, for a smoke run. Empty: all."""
    arms_file: str | None = Field(None, examples=["/data/arms.toml"], json_schema_extra=_ARMS)
    """TOML file that declares first stages and arms. Empty: the deployment's own, PERANK_ARMS, or
    the one that comes with the package."""
    arms: tuple[str, ...] = Field((), json_schema_extra=_ARMS)
    """Which of the declared arms to run, as bm25. Empty: all."""
    set: tuple[str, ...] = Field((), title="Changes", json_schema_extra=_ARMS)
    """Changes of what the file declares: perank.window=50, first-stage=given,
    first-stages.bm25.k1=1.2."""
    baseline: str = Field(
        "accepted",
        pattern=r"^(accepted|previous|\d{4}-\d{2}-\d{2})$",
        examples=["accepted", "previous", "2026-01-31"],
        json_schema_extra=_VERDICT,
    )
    """What the verdict compares with: accepted, the night accepted as of this one's date; previous,
    the night before; or a date as YYYY-MM-DD. The tables always hold the verdict against the
    accepted night."""
    accept: str | None = Field(
        None,
        min_length=1,
        title="Accept it, for the reason",
        examples=["new corpus"],
        json_schema_extra=_VERDICT,
    )
    """Accept this night as the baseline of later ones, and the reason. Empty: do not."""
    accept_name: str | None = Field(
        None, min_length=1, title="Accepted by", examples=["Ada"], json_schema_extra=_VERDICT
    )
    """Who accepts, where accept gives a reason."""
    shards: int | None = Field(None, ge=1, le=512, json_schema_extra=_ADVANCED)
    """Parts that embedding, retrieval and reranking are split into; they change no result. Empty:
    one where there is a GPU, elsewhere one a core, fewer of little work."""
    max_unranked: float = Field(0.02, ge=0, le=1, json_schema_extra=_ADVANCED)
    """Share of queries that may keep their first-stage order because they could not be ranked,
    before the night is marked incomplete."""

    @model_validator(mode="after")
    def _arms_once(self) -> Self:
        if len(set(self.arms)) != len(self.arms):
            raise ValueError(f"arms names one twice: {', '.join(self.arms)}")
        return self

    @model_validator(mode="after")
    def _baseline_is_a_date(self) -> Self:
        if self.baseline not in ("accepted", "previous"):
            date.fromisoformat(self.baseline)
        return self

    @model_validator(mode="after")
    def _accept_has_a_name(self) -> Self:
        if bool(self.accept) != bool(self.accept_name):
            raise ValueError(
                "accept is the reason and accept_name the person; give both, or neither"
            )
        return self


class RetentionOptions(Options):
    """Which artifacts are kept."""

    keep_days: int = Field(30, ge=1)
    """Days that an artifact stays after it was last used. What a running night stands on is younger
    than a day."""
    keep_last: int = Field(3, ge=1)
    """Nights of each collection that stay with all that they were made from, and snapshots,
    embeddings and indexes of each configuration, however old."""


class Embedding(_Frozen):
    """Whose vectors of passages and queries are read, and how they are kept."""

    identity: dict[str, str | int]
    """What the embedder is by name and content (`embedders.identify`); part of artifacts' keys."""
    precision: Precision = "float32"
    trust_remote_code: bool = False

    @property
    def name(self) -> str:
        """The embedder's name."""
        return str(self.identity["name"])

    @property
    def hash(self) -> str:
        """Sixteen hex digits over the embedder's content and the precision."""
        return stable_hash({**self.identity, "precision": self.precision})

    def settings(self) -> dict[str, str]:
        """What it is, in the settings of whatever reads it."""
        return {"embedder": self.name, "embedder_hash": self.hash}


class FirstStage(_Frozen):
    """Where candidates come from, resolved. Fields that its kind does not read are None."""

    name: str
    kind: FirstStageKind | Literal["run"]
    """`run`: a file that an arm of that ranker names."""
    depth: int
    """Candidates a query, at most."""
    k1: float | None = None
    b: float | None = None
    analyzer: str | None = None
    rrf_k: int | None = None
    run: str | None = None
    """The name of the collection's run, or of the arm's, where that is the first stage."""
    run_content: str | None = None
    """Of an arm's run: what names its lines; None: it cannot be read, and there are none."""
    drop_unknown: bool | None = None
    """Of an arm's run: whether passages that the collection does not have are left out."""
    embedding: Embedding | None = None
    transform: str | None = None
    """What passages' vectors are put through before they are searched; None: nothing."""

    @property
    def bm25(self) -> str | None:
        """Names the BM25 index it searches; None where it searches none."""
        if self.k1 is None:
            return None
        return f"bm25 k1={self.k1:g} b={self.b:g} {self.analyzer}"

    @property
    def hash(self) -> str:
        """Ten hex digits over everything but the name."""
        return stable_hash(self.model_dump(mode="json", exclude={"name"}))[:10]

    def settings(self) -> dict[str, Any]:
        """What it is set to, flat; what its kind does not read is left out, and a run's lines:
        every night has other ones."""
        unsaid = {"name", "embedding", "run_content"}
        values = self.model_dump(mode="json", exclude=unsaid, exclude_none=True)
        return values | (self.embedding.settings() if self.embedding else {})


class Arm(_Frozen):
    """One complete configuration that ranks: first stage, ranker, the ranker's own options."""

    name: str
    ranker: str
    first_stage: FirstStage
    depth: int
    """Candidates of a list that are ranked, the first ones."""
    options: dict[str, Any]
    """The ranker's own, resolved; `rankers.RANKERS[ranker]` parses them."""
    identity: dict[str, Any] = Field(default_factory=dict)
    """What names the content of the ranker's models: a checkpoint's hash, say."""
    embedding: Embedding | None = None
    """Whose vectors it reads; None: it reads none."""
    query_limit: int | None = None
    expect: tuple[str, ...] = ()
    """Symptoms that it is to have; no part of its hash."""
    missing: str | None = None
    """Why its model or file is not there tonight; None: it is."""

    @property
    def hash(self) -> str:
        """Ten hex digits that name this configuration in every table, whatever it is called."""
        return stable_hash(self.settings())[:10]

    def settings(self) -> dict[str, Any]:
        """Everything that makes its rankings what they are, flat, by short names."""
        embedder = self.embedding.settings() if self.embedding else {}
        first_stage = {f"first_stage.{k}": v for k, v in self.first_stage.settings().items()}
        own = {"ranker": self.ranker, "depth": self.depth, "query_limit": self.query_limit}
        return {**own, **self.options, **embedder, **self.identity, **first_stage}


class Promotion(_Frozen):
    """The decision that made a checkpoint champion."""

    promotion_id: str
    checkpoint: str
    as_of: date
    name: str
    reason: str


class Night(_Frozen):
    """A planned run: everything a stage needs to know beside its input artifacts."""

    run_date: date
    series: str = NIGHTLY
    """What its results belong to."""
    collection: str
    """Spec, resolved: never empty, and a folder by its absolute path."""
    collection_name: str
    options: NightOptions
    arms: tuple[Arm, ...]
    fingerprint: dict[str, str]
    """Code, libraries and hardware that compute this night (`provenance.fingerprint`)."""
    side_by_side: int = 1
    """Pieces of work that are done at once where it was planned (`Settings.side_by_side`)."""
    promotion: Promotion | None = None
    """What made a checkpoint of its arms champion; None where no arm asks for the champion, or
    none was promoted."""

    @property
    def subject(self) -> dict[str, str]:
        """What log lines and metrics say it is about."""
        return {"collection": self.collection_name}

    @property
    def fingerprint_hash(self) -> str:
        """See `fingerprint_hash`."""
        return fingerprint_hash(self.fingerprint)

    @property
    def filed_under(self) -> date | None:
        """The date in its artifacts' keys: what an experiment computed is reused on any date."""
        return self.run_date if self.series == NIGHTLY else None

    @property
    def first_stages(self) -> dict[str, FirstStage]:
        """Every first stage that an arm starts from, once, by its hash."""
        return {arm.first_stage.hash: arm.first_stage for arm in self.arms}

    @property
    def indexes(self) -> dict[str, FirstStage]:
        """A first stage of every BM25 index that any searches, by `FirstStage.bm25`."""
        return {stage.bm25: stage for stage in self.first_stages.values() if stage.bm25}

    @property
    def embeddings(self) -> dict[str, Embedding]:
        """Every embedding that a first stage or an arm reads, once, by its hash."""
        read = [stage.embedding for stage in self.first_stages.values()]
        read += [arm.embedding for arm in self.arms]
        return {embedding.hash: embedding for embedding in read if embedding}

    def shards(self, rows: int, least: int) -> int:
        """How many parts so many rows are split into: the option, or else as many as are done at
        once, of `least` rows or more each."""
        return self.options.shards or max(1, min(self.side_by_side, rows // least))

    def arm(self, arm_hash: str) -> Arm:
        """The arm of this night with that hash; KeyError where there is none."""
        return {arm.hash: arm for arm in self.arms}[arm_hash]

    def to_json(self) -> dict[str, Any]:
        """A small JSON object, fit for XCom; `Night.from_json` reads it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Night":
        return cls.model_validate(value)
