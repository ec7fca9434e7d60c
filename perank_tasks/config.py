"""What is run: the options of a night and the arms they make, validated and hashed.

`NightOptions` is what a person sets; its field descriptions are also the help of the
command line and of the Airflow form. `Arm` is one full
configuration whose results stand side by side; its hash is its name in every table. `Night` is
a planned run: options, date, arms and the fingerprint of what will compute it; it travels
between tasks as JSON.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from perank_tasks.errors import ConfigError
from perank_tasks.models.vectors import Transform
from perank_tasks.perank.options import (
    DECODING_HELP,
    ORDER_HELP,
    PASSAGES_HELP,
    Decoding,
    InitialOrder,
    PassageForm,
    RankingOptions,
)

ArmName = Literal["bm25", "cosine", "fusion", "perank", "llm-off"]
ARM_NAMES: tuple[ArmName, ...] = get_args(ArmName)
LLM_OFF: ArmName = "llm-off"
CHECKPOINT_ARMS: frozenset[ArmName] = frozenset({"perank", LLM_OFF})
"""Arms that rank by a checkpoint."""
ARM_HELP = {
    "bm25": "the first stage's own order",
    "cosine": "cosine similarity of query and passage embeddings",
    "fusion": "cosine + fusion_weight x first-stage score",
    "perank": "PE-Rank: listwise reranking by an LLM that sees one embedding a passage",
    "llm-off": "the same checkpoint with its LLM switched off: its residual alone, if it has one",
}

FirstStage = Literal["bm25", "given", "dense", "hybrid"]
FIRST_STAGE_HELP = {
    "bm25": "over the whole collection",
    "given": "the run file of the collection",
    "dense": "exact search by the embedder's cosine over the whole collection",
    "hybrid": "reciprocal-rank fusion of bm25 and dense, each to the depth of the list",
}
INDEXED: frozenset[FirstStage] = frozenset({"bm25", "hybrid"})
"""First stages that search a BM25 index."""
DENSE: frozenset[FirstStage] = frozenset({"dense", "hybrid"})
"""First stages that search embeddings."""

DEFAULT_EMBEDDER = "all-minilm-l6-v2"
DEFAULT_CHECKPOINT = "smollm2-minilm"
CHAMPION = "champion"
"""What stands for the checkpoint promoted as of a night's date (`warehouse.registry`)."""


def stable_hash(value: Any) -> str:
    """Sixteen hex digits of a JSON-able value, the same in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_hash(fingerprint: Mapping[str, str]) -> str:
    """Of all but the commit: a commit that leaves the code as it was changes nothing."""
    return stable_hash({k: v for k, v in fingerprint.items() if k != "commit"})


def _choices(help_texts: dict[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in help_texts.items()) + "."


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Options(_Frozen):
    """What a person may choose: checked where it is made, with errors that name the option."""

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate values from a command line, a form or a file.

        Raises:
            ConfigError: names each field, the value it got and what it accepts.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            items = error.errors()
            # A list that has lost its wrong items is then found to be too short, too.
            lists = {item["loc"][:-1] for item in items}
            lines = [
                _explained(item, list(cls.model_fields))
                for item in items
                if item["loc"] not in lists - {()}
            ]
            raise ConfigError("These options are not valid:\n" + "\n".join(lines)) from None


def split_words(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and value of NAME=VALUE words of a command line.

    Raises:
        ConfigError: a word that is none.
    """
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} sets nothing: write it as NAME=VALUE.")
        yield name.strip(), value.strip()


class NightOptions(Options):
    """What a person may choose for a night."""

    collection: str | None = Field(
        None,
        description="Collection spec: pydocs; files:/folder or files:s3://bucket/folder (BEIR or "
        "TREC layout; options as in files:/folder?name=dl19&run=bm25.trec&relevance_level=2); or "
        "ir_datasets:beir/scifact/test, any id of that library. "
        "Empty: the deployment's own, PERANK_COLLECTION.",
    )
    run_date: date | None = Field(
        None,
        description="The date the results are filed under, and as of which the collection is read. "
        "Empty: the run's logical date, or today in UTC.",
    )
    arms: tuple[ArmName, ...] = Field(
        ARM_NAMES,
        min_length=1,
        description="What to compare: " + _choices(ARM_HELP),
    )
    first_stage: FirstStage = Field(
        "bm25", description="Where candidates come from: " + _choices(FIRST_STAGE_HELP)
    )
    depth: int = Field(100, ge=1, le=1000, description="Candidates a query.")
    rrf_k: int = Field(
        60,
        ge=1,
        description="hybrid: what is added to a rank before its reciprocal is taken (60 as Cormack "
        "et al., SIGIR 2009).",
    )
    k1: float = Field(0.9, ge=0, le=10, description="BM25's term saturation (0.9 as Anserini).")
    b: float = Field(0.4, ge=0, le=1, description="BM25's length normalisation (0.4 as Anserini).")
    embedder: str = Field(
        DEFAULT_EMBEDDER,
        description="Embedder of the cosine and fusion arms, and of dense and hybrid first "
        "stages: an embedded name, a folder or a hub id. PE-Rank uses its checkpoint's own.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that an embedder's or an encoder's repository brings (as "
        "JinaBERT's does), with all your rights: only if you trust its author.",
    )
    embedding_precision: Literal["float32", "float16"] = Field(
        "float32", description="How embeddings are kept: float16 takes half the space."
    )
    embedding_transform: str | None = Field(
        None,
        description="What passages' vectors are put through before they are searched or ranked, "
        "to see what smaller ones would do: dims:128, float16, int8, binary or noise:0.5, joined "
        "by +. Empty: nothing.",
    )
    fusion_weight: float = Field(
        0.03, ge=0, description="Weight of the first-stage score beside the cosine in fusion."
    )
    checkpoint: str = Field(
        CHAMPION,
        description="PE-Rank checkpoint. champion: the one promoted as of the night's date, or "
        f"{DEFAULT_CHECKPOINT} where none was. Otherwise the name of a shipped or a registered "
        "one, or a folder in the published or in our own layout.",
    )
    window: int = Field(20, ge=2, le=100, description="Passages the LLM ranks at once.")
    step: int = Field(10, ge=1, le=100, description="How far the window moves; at most the window.")
    decoding: Decoding = Field(
        "constrained",
        description="How PE-Rank puts out a window's order: " + _choices(DECODING_HELP),
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Only so many first places need to be exact: constrained decoding then stops "
        "a window early (10 is about twice as fast to decode). Empty: all.",
    )
    passages: PassageForm = Field(
        "embeddings", description="What PE-Rank reads of a passage: " + _choices(PASSAGES_HELP)
    )
    passes: int = Field(
        1, ge=1, le=10, description="How often the window goes over the whole list."
    )
    initial_order: InitialOrder = Field(
        "given", description="The order that PE-Rank starts from: " + _choices(ORDER_HELP)
    )
    order_seed: int = Field(0, ge=0, description="Seed of a random initial order.")
    orders: int = Field(
        1,
        ge=1,
        le=64,
        description="Initial orders that PE-Rank ranks from, the one above and shuffled ones, to "
        "sort by the mean rank over all of them; that many times the work.",
    )
    shards: int = Field(
        2, ge=1, le=512, description="Parts that embedding, retrieval and reranking are split into."
    )
    query_limit: int | None = Field(
        None, ge=1, description="Only the first so many queries, for a smoke run. Empty: all."
    )
    max_unranked: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of queries that may keep their first-stage order because they could not "
        "be ranked, before the night is marked incomplete.",
    )
    baseline: str = Field(
        "accepted",
        pattern=r"^(accepted|previous|\d{4}-\d{2}-\d{2})$",
        description="What the verdict compares with: accepted, the night accepted as of this one's "
        "date; previous, the night before; or a date as YYYY-MM-DD. The tables always hold the "
        "verdict against the accepted night.",
    )
    accept: str | None = Field(
        None,
        min_length=1,
        description="Accept this night as the baseline of later ones, and the reason. "
        "Empty: do not.",
    )
    accept_name: str | None = Field(
        None, min_length=1, description="Who accepts, where accept gives a reason."
    )

    @property
    def transform(self) -> Transform | None:
        """What passages' vectors are put through; ConfigError where it is malformed."""
        return Transform.parse(self.embedding_transform) if self.embedding_transform else None

    @property
    def ranking(self) -> RankingOptions:
        """What of these options is PE-Rank's; ConfigError where they exclude each other."""
        return RankingOptions(
            window=self.window,
            step=self.step,
            decoding=self.decoding,
            top_k=self.top_k,
            passages=self.passages,
            passes=self.passes,
            initial_order=self.initial_order,
            seed=self.order_seed,
        )

    @model_validator(mode="after")
    def _options_fit_together(self) -> "NightOptions":
        try:
            _ = self.ranking, self.transform
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if len(set(self.arms)) != len(self.arms):
            raise ValueError(f"arms names one twice: {', '.join(self.arms)}")
        if self.baseline not in ("accepted", "previous"):
            date.fromisoformat(self.baseline)
        if bool(self.accept) != bool(self.accept_name):
            raise ValueError(
                "accept is the reason and accept_name the person; give both, or neither"
            )
        return self


class RetentionOptions(Options):
    """Which artifacts are kept."""

    keep_days: int = Field(
        30,
        ge=1,
        description="Days that an artifact stays after it was last used. What a running night "
        "stands on is younger than a day.",
    )
    keep_last: int = Field(
        3,
        ge=1,
        description="Nights of each collection that stay with all that they were made from, and "
        "snapshots, embeddings and indexes of each configuration, however old.",
    )


def _explained(item: ErrorDetails, options: list[str]) -> str:
    """One line on an option that is wrong, with the names closest to it."""
    where = ".".join(str(part) for part in item["loc"]) or "options"
    found = f" (found {item['input']!r})" if item["loc"] else ""
    said = item["msg"].removeprefix("Value error, ")
    name, known = item["input"], re.findall(r"'([^']*)'", item.get("ctx", {}).get("expected", ""))
    if item["type"] == "extra_forbidden":
        said = "there is no such option"
        name, known = where, options
    close = get_close_matches(str(name), known)
    hint = f". Did you mean {' or '.join(close)}?" if close else ""
    return f"  {where}: {said}{found}{hint}"


def first_stage_name(
    options: NightOptions, run: str | None, embedder_hash: str | None = None
) -> str:
    """The first stage with its parameters, in one line.

    Args:
        run: the name of the collection's run, where that is asked for.
        embedder_hash: of the embedder that is searched by, where one is.
    """
    bm25 = f"bm25 k1={options.k1:g} b={options.b:g}"
    dense = f"dense {options.embedder} {embedder_hash}"
    if options.embedding_transform:
        dense += f" {options.embedding_transform}"
    return {
        "given": f"given {run}",
        "bm25": bm25,
        "dense": dense,
        "hybrid": f"rrf k={options.rrf_k} of {bm25} and {dense}",
    }[options.first_stage]


class Arm(_Frozen):
    """One full configuration. Fields that do not apply to its kind are None."""

    name: ArmName
    first_stage: str
    """`bm25 k1=0.9 b=0.4`, or `given bm25.trec`."""
    depth: int
    query_limit: int | None = None
    embedder: str | None = None
    embedder_hash: str | None = None
    """Of the embedder's files and the precision its vectors are kept in."""
    fusion_weight: float | None = None
    checkpoint: str | None = None
    checkpoint_hash: str | None = None
    prompt: str | None = None
    ranking: RankingOptions | None = None
    transform: str | None = None
    """What the passages' vectors are put through; None: nothing."""
    orders: int | None = None
    """Initial orders that are averaged over; None: one."""

    @property
    def hash(self) -> str:
        """Ten hex digits that name this configuration in every table."""
        # Fields that came later are left out where they say nothing: names stay what they were.
        later = {name for name in ("transform", "orders") if getattr(self, name) is None}
        return stable_hash(self.model_dump(mode="json", exclude=later))[:10]


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
    collection: str
    """Spec, resolved: never empty, and a folder by its absolute path."""
    collection_name: str
    options: NightOptions
    arms: tuple[Arm, ...]
    fingerprint: dict[str, str]
    """Code, libraries and hardware that compute this night (`provenance.fingerprint`)."""
    promotion: Promotion | None = None
    """What made its checkpoint champion; None where none was promoted or another was asked for."""

    @property
    def subject(self) -> dict[str, str]:
        """What log lines and metrics say it is about."""
        return {"collection": self.collection_name}

    @property
    def fingerprint_hash(self) -> str:
        """See `fingerprint_hash`."""
        return fingerprint_hash(self.fingerprint)

    @property
    def first_stage(self) -> str:
        """The first stage in one line, the same for every arm."""
        return self.arms[0].first_stage

    @property
    def searched_by(self) -> str | None:
        """The embedder whose vectors the first stage searches; None where it searches none."""
        return self.options.embedder if self.options.first_stage in DENSE else None

    @property
    def embedders(self) -> tuple[str, ...]:
        """Every embedder that the first stage or an arm of this night needs, once."""
        needed = (self.searched_by, *(arm.embedder for arm in self.arms))
        return tuple(dict.fromkeys(name for name in needed if name))

    def arm(self, arm_hash: str) -> Arm:
        """The arm of this night with that hash; KeyError where there is none."""
        return {arm.hash: arm for arm in self.arms}[arm_hash]

    def to_json(self) -> dict[str, Any]:
        """A small JSON object, fit for XCom; `Night.from_json` reads it."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Night":
        return cls.model_validate(value)
