"""What training data is made of: the options of `perank train data`, validated in one place.

A teacher is a weighted sum of scorers, written as a person would: `cosine + 0.03*bm25`.
"""

import re
from datetime import date
from difflib import get_close_matches
from typing import Literal

from pydantic import Field, model_validator

from perank_tasks.config import DEFAULT_EMBEDDER, Options
from perank_tasks.errors import ConfigError
from perank_tasks.models.find import LLM

SCORERS = {
    "cosine": "of query and passage embeddings",
    "bm25": "over all passages",
    "run": "scores of the TREC run in run_file",
    "cross-encoder": "the sentence-transformers CrossEncoder named by cross_encoder",
    "query-likelihood": "mean log-probability of the query's tokens given the passage, by the LLM "
    "named by likelihood_llm (UPR)",
}
FIRST_STAGE = ("cosine", "bm25", "run")
"""Scorers that score every passage, so that hard candidates can come from them."""

FUSION = "cosine + 0.03*bm25"
"""What was best of six weights on DL 2021."""

Weights = dict[str, float]


def parse_scorers(formula: str) -> Weights:
    """The weights in `cosine + 0.03*bm25`, by scorer; `none` has none.

    Raises:
        ConfigError: a term is malformed, unknown (close names are offered) or there twice.
    """
    if formula.strip() == "none":
        return {}
    weights: Weights = {}
    for term in formula.split("+"):
        found = re.fullmatch(r"(?:([\d.]+)\s*\*?\s*)?([a-z][a-z0-9-]*)", term.strip())
        if not found or not _is_weight(found[1] or "1"):
            raise ConfigError(
                f"{formula!r}: expected scorers with weights, as in {FUSION!r}; found "
                f"{term.strip()!r}"
            )
        weight, name = float(found[1] or 1), found[2]
        if name not in SCORERS:
            close = get_close_matches(name, SCORERS)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise ConfigError(
                f"{formula!r}: there is no scorer {name!r}; there are {', '.join(SCORERS)}.{hint}"
            )
        if name in weights:
            raise ConfigError(f"{formula!r}: {name} is there twice")
        weights[name] = weight
    return weights


def _is_weight(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


class DataOptions(Options):
    """What a person may choose for training data."""

    stage: Literal["ranking", "alignment"] = Field(
        "ranking",
        description="What it is for. ranking: lists of candidates with a golden ranking, for "
        "stage 2; alignment: passages with their embeddings, for stage 1.",
    )
    collections: tuple[str, ...] = Field(
        (),
        description="Specs of the collections whose passages are used, as in files:/data/dl21. A "
        "text that several have is taken once. A folder needs a queries file even where its "
        "queries are not used.",
    )
    reference_jsonl: str | None = Field(
        None,
        description="Read lists from a file in the PE-Rank reference's format instead "
        "(messages_wo_content, extra_texts, ranking): no collections, and no teacher.",
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name in references. Empty: the collections' names, joined.",
    )
    as_of: date | None = Field(
        None, description="The date as of which dated collections are read. Empty: today in UTC."
    )
    embedder: str = Field(
        DEFAULT_EMBEDDER,
        description="Embedder of passages and queries: it must be that of the checkpoint to be "
        "trained. Embeddings that a night has made are taken.",
    )
    embedding_precision: Literal["float32", "float16"] = Field(
        "float32", description="How embeddings are kept: float16 takes half the space."
    )
    trust_remote_code: bool = Field(
        False,
        description="Run Python code that the embedder's repository brings, with all your rights.",
    )
    shards: int = Field(2, ge=1, le=512, description="Parts that embedding is split into.")
    seed: int = Field(0, ge=0, description="Of every draw: passages, candidates, orders.")
    terms: tuple[str, ...] = Field(
        (),
        description="Terms of use, as NAME=NOTE for a collection or queries file; kept in the "
        "provenance, from where model cards quote them.",
    )

    passages: int | None = Field(
        None, ge=1, description="alignment: so many passages, drawn at random. Empty: all."
    )
    min_words: int = Field(8, ge=1, description="alignment: leave out shorter passages.")
    max_words: int = Field(
        400, ge=1, description="alignment: leave out longer passages, which would be cut."
    )

    queries: str = Field(
        "collection",
        description="ranking: where queries come from: collection, the collections' own; cloze, "
        "a sentence of a passage (inverse cloze), for corpora without judgements; or a file "
        "(TSV of identifier and text, or JSONL).",
    )
    query_limit: int | None = Field(
        None, ge=1, description="ranking: so many queries, drawn at random. Empty: all."
    )
    cloze_drop: float = Field(
        0.9,
        ge=0,
        le=1,
        description="ranking, cloze: share of the sentences that are taken out of their passage, "
        "which is then embedded again; those that stay teach matching words.",
    )
    evaluation: tuple[str, ...] = Field(
        (),
        description="ranking: specs of further collections that are evaluated on: none of their "
        "queries may be trained on. pydocs always is one.",
    )
    drop_evaluation_queries: bool = Field(
        False,
        description="ranking: leave out queries of evaluation collections, and count them, "
        "instead of refusing.",
    )
    judgements: bool = Field(
        False,
        description="ranking: the golden ranking goes by the collections' judgements first; the "
        "teacher breaks ties. A passage that was not judged counts as grade 0.",
    )
    teacher: str = Field(
        FUSION,
        description="ranking: weighted sum of scorers, or none. Scorers: "
        + "; ".join(f"{name}, {text}" for name, text in SCORERS.items())
        + ".",
    )
    feedback: float = Field(
        0.0,
        ge=0,
        description="ranking: pseudo-relevance feedback in the teacher: so many times the mean "
        "cosine to the list's passages that it scores best is added to its scores. This is what "
        "reading a list at once can know, and scoring each passage by itself cannot.",
    )
    feedback_passages: int = Field(
        3, ge=1, description="ranking: the passages that feedback is taken from."
    )
    run_file: str | None = Field(None, description="ranking: the TREC run of the scorer run.")
    cross_encoder: str = Field(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        description="ranking: folder or hub id of the scorer cross-encoder.",
    )
    likelihood_llm: str = Field(
        LLM, description="ranking: name, folder or hub id of the scorer query-likelihood's LLM."
    )
    hard_from: str = Field(
        "auto",
        description="ranking: where hard candidates come from: a weighted sum of "
        + ", ".join(FIRST_STAGE)
        + "; judged, the query's judged passages; or auto: judged with judgements of the "
        f"collection's queries, else the teacher, or {FUSION} where it cannot score every passage.",
    )
    depth: int = Field(100, ge=1, description="ranking: hard candidates are drawn from so many.")
    hard: int = Field(16, ge=1, description="ranking: hard candidates a list.")
    random: int = Field(4, ge=0, description="ranking: random candidates a list.")
    relevant: int = Field(
        4,
        ge=0,
        description="ranking: with judgements and hard candidates of a first stage: up to so many "
        "of the hard ones are passages judged relevant.",
    )
    lists_per_query: int = Field(1, ge=1, description="ranking: lists a query.")
    order: Literal["shuffled", "first-stage"] = Field(
        "shuffled",
        description="ranking: order of the prompt: shuffled, or by BM25, as a night hands them in.",
    )
    k1: float = Field(0.9, ge=0, le=10, description="ranking: BM25's term saturation.")
    b: float = Field(0.4, ge=0, le=1, description="ranking: BM25's length normalisation.")

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
    def terms_by_name(self) -> dict[str, str]:
        return dict(term.split("=", 1) for term in self.terms)

    @model_validator(mode="after")
    def _options_fit_together(self) -> "DataOptions":
        try:
            teacher, hard = self.teacher_weights, self.hard_weights
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if bool(self.collections) == bool(self.reference_jsonl):
            raise ValueError("give collections, or reference_jsonl; one of the two")
        if self.reference_jsonl and self.stage == "alignment":
            raise ValueError("reference_jsonl holds lists for ranking; alignment takes collections")
        for term in self.terms:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*=.+", term, re.DOTALL):
                raise ValueError(f"terms: expected NAME=NOTE, as in dl21=MS MARCO; found {term!r}")
        if self.max_words < self.min_words:
            raise ValueError(f"max_words {self.max_words} is below min_words {self.min_words}")
        if hard is not None and not set(hard) <= {*FIRST_STAGE}:
            raise ValueError(
                f"hard_from: {self.hard_from} cannot score every passage; use "
                f"{', '.join(FIRST_STAGE)}, or judged"
            )
        if hard == {}:
            raise ValueError("hard_from: none finds nothing; random alone is hard=1, random=19")
        if hard is None and not self.judgements:
            raise ValueError("hard_from is judged, so judgements must be set")
        if not teacher and not self.judgements:
            raise ValueError("teacher is none; set judgements, or name one")
        if self.feedback and not teacher:
            raise ValueError("feedback is taken from what the teacher scores best; name a teacher")
        if self.judgements and self.queries not in ("collection", "cloze"):
            raise ValueError("judgements are of the collections' queries, or of cloze queries")
        if ("run" in {*teacher, *(hard or ())}) != bool(self.run_file):
            raise ValueError("the scorer run and run_file belong together; give both, or neither")
        if self.hard + self.random < 2:
            raise ValueError("a list has hard + random candidates: at least 2")
        if self.hard > self.depth and hard is not None:
            raise ValueError(f"{self.hard} hard candidates cannot come from depth {self.depth}")
        return self
