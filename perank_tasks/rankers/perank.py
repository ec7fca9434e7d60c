"""`perank`: the paper's method, listwise reranking by an LLM that sees one embedding a passage.

With `decoding = "residual"` the same checkpoint ranks with its LLM switched off: what its residual
alone makes of the lists.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from perank_tasks.config import CHAMPION, DEFAULT_CHECKPOINT
from perank_tasks.perank.checkpoint_config import summarize_checkpoint
from perank_tasks.perank.embedders import CHECKPOINT_PREFIX
from perank_tasks.perank.options import RankingOptions
from perank_tasks.rankers.interface import Description, EmbeddingOptions, Models, RankerOptions
from perank_tasks.support.lists import CandidateList, RankedList
from perank_tasks.support.meter import WORK

LISTS_A_TURN = 64
"""Lists that are ranked from every initial order before the next ones are read."""

COUNTS = ("windows", "tokens_in", "decode_steps", "numbers_missing", "numbers_repeated")
"""What each ranking of a list took."""


class ListwiseOptions(RankingOptions, RankerOptions):
    """What an arm may set whose ranker is the engine, whatever LLM is in it."""

    orders: int = Field(1, ge=1, le=64)
    """Initial orders to rank from, the one above and shuffled ones, to sort by the mean rank over
    all of them; that many times the work."""

    @model_validator(mode="after")
    def _orders_have_an_llm(self) -> Self:
        if self.orders > 1 and not self.reads_a_prompt:
            raise ValueError(f"orders average an LLM's rankings, and {self.decoding} has no LLM")
        return self


class PERankOptions(ListwiseOptions, EmbeddingOptions):
    """What a `perank` arm may set."""

    checkpoint: str = Field(
        CHAMPION,
        description="champion: the checkpoint promoted as of the night's date, or "
        f"{DEFAULT_CHECKPOINT} where none was. Otherwise the name of a shipped or a registered "
        "one, or a folder in the published or in our own layout.",
    )

    def describe(self, models: Models) -> Description:
        """The checkpoint by its content, and its own embedder."""
        checkpoint = models.local(self.checkpoint)
        summary = summarize_checkpoint(checkpoint, cache=models.cache)
        if summary.layout == "published":
            # Its encoder's pooling, maximum length and place are the checkpoint's to say.
            embedder = CHECKPOINT_PREFIX + self.checkpoint
        else:
            embedder = str(summary.encoder.folder or summary.encoder.name)
        impossible = None
        if self.decoding == "residual" and not summary.has_residual:
            impossible = (
                f"checkpoint {self.checkpoint} has no residual, so without its LLM nothing is left "
                "to rank by"
            )
        prompt = {"prompt": summary.prompt} if self.reads_a_prompt else {}
        return Description(
            embedder=embedder if self.passages != "text" else None,
            texts=self.passages != "embeddings",
            grades=self.initial_order == "oracle",
            identity={"checkpoint_hash": summary.hash, **prompt},
            impossible=impossible,
        )

    def load(self, models: Models) -> "ListwiseRanker":
        """As `RankerOptions.load`."""
        return ListwiseRanker(self, self.checkpoint, models)


class ListwiseRanker:
    """An engine that ranks lists by an arm's options.

    Args:
        name: of its checkpoint or LLM, as the arm has it.
        llm: how a plain LLM is loaded: `revision` and `llm_prompt` of `PERank.from_pretrained`.
    """

    def __init__(self, options: ListwiseOptions, name: str, models: Models, **llm: str | None):
        import torch

        from perank_tasks.perank import PERank

        torch.set_num_threads(models.threads)
        self.options, self.name = options, name
        self.engine = PERank.from_pretrained(models.local(name), cache=models.cache, **llm)  # type: ignore[arg-type]
        self.device = str(self.engine.device)

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`."""
        turns = self._turns()
        if len(turns) == 1:
            yield from self.engine.rerank_many(lists, turns[0])
            return
        stream = iter(lists)
        while some := list(islice(stream, LISTS_A_TURN)):
            results = (self.engine.rerank_many(some, turn) for turn in turns)
            yield from map(_averaged, zip(*results, strict=True))

    def description(self) -> dict[str, Any]:
        """What ranks: checkpoint, prompt, precision."""
        description = self.engine.description(self.options)
        return description | {"checkpoint": self.name}

    def work(self) -> dict[str, float]:
        """What the LLM did so far, by the names in `meter.WORK`."""
        return {name: getattr(self.engine.counters, name) for name in WORK}

    def _turns(self) -> list[ListwiseOptions]:
        """How to rank each time: from the arm's own initial order, then from shuffled ones."""
        shuffled = (
            {"initial_order": "random", "order_seed": self.options.order_seed + turn}
            for turn in range(1, self.options.orders)
        )
        return [self.options, *(self.options.model_copy(update=order) for order in shuffled)]


def _averaged(results: Sequence[RankedList]) -> RankedList:
    """One ranking of several, by mean rank; equal ones go as the first stage has them."""
    first = results[0]
    reason = next((r.unranked_reason for r in results if r.unranked_reason), None)
    ranks = np.sum([np.argsort(result.order) for result in results], axis=0)
    order = np.argsort(ranks, kind="stable").tolist()
    return replace(
        first,
        order=list(range(len(order))) if reason else order,
        unranked_reason=reason,
        **{name: sum(getattr(result, name) for result in results) for name in COUNTS},
    )
