"""What training data is made of: the options of `perank train data`, validated in one place.

The docstring below a field is its description on the command line and in the Airflow form. A
teacher is a weighted sum of scorers, written as a person would: `cosine + 0.008*bm25`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from perank_tasks.config import DEFAULT_EMBEDDER, Options, did_you_mean
from perank_tasks.errors import ConfigError

FIRST_STAGE = ("cosine", "bm25")
"""Scorers that score every passage, so that hard candidates can come from them."""

CROSS_ENCODER = "cross-encoder"
"""A scorer that reads a list's texts."""

SCORERS = (*FIRST_STAGE, CROSS_ENCODER)
"""What a teacher may be made of; see `DataOptions.teacher`."""

FUSION = "cosine + 0.008*bm25"
"""What was best of six weights on DL 2021."""

Weights = dict[str, float]

_TERM = re.compile(r"(?:(\d+\.?\d*|\.\d+)\s*\*?\s*)?([a-z][a-z0-9-]*)")


def parse_scorers(formula: str) -> Weights:
    """The weights in `cosine + 0.008*bm25`, by scorer; `none` has none.

    Raises:
        ConfigError: a term is malformed, unknown (close names are offered) or there twice.
    """
    if formula.strip() == "none":
        return {}
    weights: Weights = {}
    for term in map(str.strip, formula.split("+")):
        match = _TERM.fullmatch(term)
        weight = float(match[1] or 1) if match else 0.0
        if not match or not weight:
            raise ConfigError(
                f"{formula!r}: expected scorers with weights, as in {FUSION!r}; found {term!r}"
            )
        name = match[2]
        if name not in SCORERS:
            raise ConfigError(
                f"{formula!r}: there is no scorer {name!r}; there are {', '.join(SCORERS)}"
                f"{did_you_mean(name, SCORERS)}"
            )
        if name in weights:
            raise ConfigError(f"{formula!r}: {name} is there twice")
        weights[name] = weight
    return weights


class DataOptions(Options):
    """What a person may choose for training data."""

    stage: Literal["ranking", "alignment"] = "ranking"
    """What it is for. ranking: lists of candidates with a golden ranking, for stage 2; alignment:
    passages with their embeddings, for stage 1."""
    collections: tuple[str, ...] = ()
    """Specs of the collections whose passages are used, as in files:/data/dl21. A text that several
    have is taken once. A folder needs a queries file even where its queries are not used."""
    reference_jsonl: str | None = None
    """Read lists from a file in the PE-Rank reference's format instead (messages_wo_content,
    extra_texts, ranking): no collections, and no teacher."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in references. Empty: the collections' names, joined."""
    as_of: date | None = None
    """The date as of which dated collections are read. Empty: today in UTC."""
    embedder: str = DEFAULT_EMBEDDER
    """Embedder of passages and queries: it must be that of the checkpoint to be trained. Embeddings
    that a night has made are reused."""
    embedding_precision: Literal["float32", "float16"] = "float32"
    """How embeddings are kept: float16 takes half the space."""
    trust_remote_code: bool = False
    """Run Python code that the embedder's repository brings, with all your rights."""
    seed: int = Field(0, ge=0)
    """Of every draw: passages, candidates, orders."""
    terms: tuple[str, ...] = ()
    """Terms of use, as NAME=NOTE for a collection or queries file; kept in the provenance, from
    where model cards quote them."""

    passages: int | None = Field(None, ge=1)
    """alignment: so many passages, drawn at random. Empty: all."""
    min_words: int = Field(8, ge=1)
    """alignment: leave out shorter passages."""
    max_words: int = Field(400, ge=1)
    """alignment: leave out longer passages, which would be cut."""

    queries: str = "collection"
    """ranking: where queries come from. collection: the collections' own; cloze: a sentence of a
    passage (inverse cloze), for corpora without judgements; or a file (TSV of identifier and text,
    or JSONL)."""
    query_limit: int | None = Field(None, ge=1)
    """ranking: so many queries, drawn at random. Empty: all."""
    cloze_drop: float = Field(0.9, ge=0, le=1)
    """ranking, cloze: share of the sentences that are taken out of their passage, which is then
    embedded again; those that stay teach matching words."""
    evaluation: tuple[str, ...] = ()
    """ranking: specs of further collections that are evaluated on: none of their queries may be
    trained on. pydocs always is one."""
    drop_evaluation_queries: bool = False
    """ranking: leave out queries of evaluation collections, and count them, instead of
    refusing."""
    judgements: bool = False
    """ranking: the golden ranking goes by the collections' judgements first; the teacher breaks
    ties. A passage that was not judged counts as grade 0."""
    teacher: str = FUSION
    """ranking: weighted sum of scorers, or none. cosine: of query and passage embeddings; bm25:
    over all passages; cross-encoder: the sentence-transformers CrossEncoder named by cross_encoder.
    Rankings made elsewhere come by reference_jsonl."""
    feedback: float = Field(0.0, ge=0)
    """ranking: pseudo-relevance feedback in the teacher: so many times the mean cosine to the
    list's passages that it scores best is added to its scores. This is what reading a list at once
    can know, and scoring each passage by itself cannot."""
    feedback_passages: int = Field(3, ge=1)
    """ranking: the passages that feedback is taken from."""
    cross_encoder: str = "cross-encoder/ms-marco-MiniLM-L6-v2"
    """ranking: folder or hub id of the scorer cross-encoder."""
    hard_from: str = "auto"
    """ranking: where hard candidates come from: a weighted sum of cosine and bm25; judged, the
    query's judged passages; or auto: judged with judgements of the collection's queries, else the
    teacher, or cosine + 0.008*bm25 where it cannot score every passage."""
    depth: int = Field(100, ge=1)
    """ranking: hard candidates are drawn from so many."""
    hard: int = Field(16, ge=1)
    """ranking: hard candidates a list."""
    random: int = Field(4, ge=0)
    """ranking: random candidates a list."""
    relevant: int = Field(4, ge=0)
    """ranking: with judgements and hard candidates of a first stage: up to so many of the hard ones
    are passages judged relevant."""
    lists_per_query: int = Field(1, ge=1)
    """ranking: lists a query."""
    k1: float = Field(0.9, ge=0, le=10)
    """ranking: BM25's term saturation."""
    b: float = Field(0.4, ge=0, le=1)
    """ranking: BM25's length normalisation."""

    @property
    def teacher_weights(self) -> Weights:
        return parse_scorers(self.teacher)

    @property
    def hard_weights(self) -> Weights | None:
        """Weights of the first stage that hard candidates come from; None: the judged passages."""
        if self.hard_from == "judged":
            return None
        if self.hard_from != "auto":
            return parse_scorers(self.hard_from)
        if self.judgements and self.queries == "collection":
            return None
        weights = self.teacher_weights
        return weights if weights and set(weights) <= {*FIRST_STAGE} else parse_scorers(FUSION)

    @property
    def read_as_of(self) -> date:
        """The date as of which collections are read."""
        return self.as_of or datetime.now(UTC).date()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := list(self._contradictions()):
            raise ValueError("; ".join(wrong))
        return self

    def _contradictions(self) -> Iterator[str]:
        """What does not fit together."""
        if bool(self.collections) == bool(self.reference_jsonl):
            yield "give collections, or reference_jsonl; one of the two"
        if self.reference_jsonl and self.stage == "alignment":
            yield (
                "reference_jsonl holds lists for ranking and no passages for alignment: give "
                "collections, or leave alignment out (align=false in a run)"
            )
        if self.reference_jsonl and self.queries != "collection":
            yield "reference_jsonl brings its queries; leave out queries"
        for term in self.terms:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*=.+", term, re.DOTALL):
                yield f"terms: expected NAME=NOTE, as in dl21=MS MARCO; found {term!r}"
        teacher, hard = self.teacher_weights, self.hard_weights
        if hard is not None and not set(hard) <= {*FIRST_STAGE}:
            yield (
                f"hard_from: {self.hard_from} cannot score every passage; use "
                f"{', '.join(FIRST_STAGE)}, or judged"
            )
        if hard == {}:
            yield "hard_from: none finds nothing; random alone is hard=1, random=19"
        if hard is None and not self.judgements:
            yield "hard_from is judged, so judgements must be set"
        if not teacher and not self.judgements:
            yield "teacher is none; set judgements, or name one"
        if self.feedback and not teacher:
            yield "feedback is taken from what the teacher scores best; name a teacher"
        if self.judgements and self.queries not in ("collection", "cloze"):
            yield "judgements are of the collections' queries, or of cloze queries"
        if self.hard + self.random < 2:
            yield "a list has hard + random candidates: at least 2"
        if self.hard > self.depth and hard is not None:
            yield f"{self.hard} hard candidates cannot come from depth {self.depth}"
