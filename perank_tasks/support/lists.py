"""The two forms of a list inside reranking: `CandidateList` in, `RankedList` out.

A ranker takes candidate lists and gives ranked ones; so do the engine and its Python API.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NOT_FINITE = "its scores are not finite"
"""How the reason begins of a list that was left unranked for its scores."""


@dataclass(frozen=True, eq=False)
class CandidateList:
    """One query and its n candidates, best first by the first stage.

    Attributes:
        query_id: as the collection has it.
        query: its text.
        passage_ids: n identifiers: texts, or what a caller in Python knows passages by.
        scores: (n,) float64, the first stage's; None where there are none.
        vectors: (N, d) float32, L2-normalised: the embeddings of the candidates of many lists,
            shared between these. None where the ranker reads none.
        rows: (n,) the row of `vectors` of each candidate; None: row i is candidate i's.
        query_embedding: (d,) float32, L2-normalised.
        texts: n passages' contents, where the ranker reads texts.
        grades: n judgements, 0 where nobody judged, for an oracle's order.
        problem: why the list cannot be ranked, found before any ranker saw it.
    """

    query_id: str
    query: str
    passage_ids: Sequence[Any]
    scores: np.ndarray | None = None
    vectors: np.ndarray | None = None
    rows: np.ndarray | None = None
    query_embedding: np.ndarray | None = None
    texts: Sequence[str] | None = None
    grades: Sequence[int] | None = None
    problem: str | None = None

    def __len__(self) -> int:
        return len(self.passage_ids)

    @property
    def embeddings(self) -> np.ndarray | None:
        """(n, d), the candidates' own rows of `vectors`."""
        if self.vectors is None or self.rows is None:
            return self.vectors
        return self.vectors[self.rows]


@dataclass(frozen=True)
class RankedList:
    """One query's ranking.

    Attributes:
        query_id, passage_ids, texts: the candidate list's, in its order.
        order: a permutation of 0..n-1, best first.
        scores: n, best first, never rising; reciprocal ranks where a ranker has no scores.
        unranked_reason: why the list keeps its given order; None: it was ranked.
        query_was_cut: the query was longer than 256 LLM tokens.
        markers_defused: special tokens and chat markers in texts that were broken by a space.
        windows, tokens_in, decode_steps: what it took: windows ranked, prompt tokens without
            padding, passages or tokens put out.
        numbers_missing, numbers_repeated: what free decoding had to repair.
        logits_checksum: CRC-32 of the logits that led to the order, 0 where there were none: equal
            where they were the same to the last bit.
        texts_cut: passages of which a model read a part only.
        is_malformed: it is unranked because what the ranker was answered cannot be read.
        is_outage: it is unranked because a model, file or service was not there: another attempt
            may rank it.
    """

    query_id: str
    passage_ids: Sequence[Any]
    order: list[int]
    scores: list[float] = field(default_factory=list)
    texts: Sequence[str] | None = None
    unranked_reason: str | None = None
    query_was_cut: bool = False
    markers_defused: int = 0
    windows: int = 0
    tokens_in: int = 0
    decode_steps: int = 0
    numbers_missing: int = 0
    numbers_repeated: int = 0
    logits_checksum: int = 0
    texts_cut: int = 0
    is_malformed: bool = False
    is_outage: bool = False

    def __post_init__(self) -> None:
        if not self.scores:
            object.__setattr__(self, "scores", reciprocal_ranks(len(self.order)))

    def top(self, k: int | None = None) -> list[tuple[Any, float]]:
        """(id, score) of the best k passages, or of all, best first."""
        ids = (self.passage_ids[place] for place in self.order[:k])
        return list(zip(ids, self.scores, strict=False))


def reciprocal_ranks(n: int) -> list[float]:
    """1, 1/2, 1/3, …: scores that say no more than the order."""
    return [1 / rank for rank in range(1, n + 1)]


def unranked(candidates: CandidateList, reason: str, **flags: bool) -> RankedList:
    """The list in its given order, and why; `flags` are fields of `RankedList`."""
    order = list(range(len(candidates)))
    ids = candidates.passage_ids
    return RankedList(candidates.query_id, ids, order, unranked_reason=reason, **flags)  # type: ignore[arg-type]
