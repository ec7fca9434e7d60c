"""What goes into the engine and what comes out: requests, results, and counters of its work."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perank_tasks.perank.decode import Work


@dataclass(frozen=True, eq=False)
class RerankRequest:
    """One query and its candidates, best first by the first stage.

    `embeddings` is (n, d), row i of `passage_ids[i]`, made by the checkpoint's encoder and
    L2-normalised; `texts` are the passages' texts. Which of them are needed `RankingOptions.
    passages` says. `query_embedding` is (d,), needed where `PERank.needs_query_embedding`.
    `scores` is (n,), the first stage's, for a checkpoint that reads them (`PERank.reads_scores`);
    to one that is given none, no passage is ahead of another.
    """

    query_id: str
    query: str
    passage_ids: Sequence[str]
    embeddings: np.ndarray | None = None
    query_embedding: np.ndarray | None = None
    texts: Sequence[str] | None = None
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class RerankResult:
    """One query's ranking: `order` is a permutation of 0..n-1, best first.

    With `unranked_reason` the query could not be ranked and keeps its given order.
    `query_was_cut`: it was longer than 256 LLM tokens. `markers_defused`: special tokens and
    chat markers, in it and in passages' texts, that were broken by a space. `windows`,
    `tokens_in` (prompt tokens, without padding) and `decode_steps` (passages or tokens put out)
    are what it cost. `numbers_missing` and `numbers_repeated` count what free decoding had to
    repair.
    """

    query_id: str
    order: list[int]
    unranked_reason: str | None
    query_was_cut: bool
    markers_defused: int
    windows: int
    tokens_in: int
    decode_steps: int
    numbers_missing: int = 0
    numbers_repeated: int = 0


@dataclass
class Counters(Work):
    """What an engine has done since it was made, or since `reset`.

    Beside the work: queries and windows ranked; seconds it took to load, to make prompts, and in
    all of `rerank_many` but the reading of requests (`rank_seconds`).
    """

    queries: int = 0
    windows: int = 0
    load_seconds: float = 0.0
    tokenise_seconds: float = 0.0
    rank_seconds: float = 0.0

    def reset(self) -> None:
        """Set everything but `load_seconds` to zero."""
        for fresh in dataclasses.fields(self):
            if fresh.name != "load_seconds":
                setattr(self, fresh.name, fresh.default)

    def as_dict(self) -> dict[str, int | float]:
        return dataclasses.asdict(self)
