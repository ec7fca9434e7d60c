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

from perank_tasks.config import CHAMPION, DEFAULT_CHECKPOINT, choices
from perank_tasks.errors import ConfigError
from perank_tasks.perank.checkpoint_config import summarize_checkpoint
from perank_tasks.perank.embedders import CHECKPOINT_PREFIX
from perank_tasks.perank.options import (
    DECODING_HELP,
    ORDER_HELP,
    PASSAGES_HELP,
    Decoding,
    InitialOrder,
    PassageForm,
    RankingOptions,
)
from perank_tasks.rankers.interface import Description, EmbeddingOptions, Models, RankerOptions
from perank_tasks.support.lists import CandidateList, RankedList
from perank_tasks.support.meter import WORK

LISTS_A_TURN = 64
"""Lists that are ranked from every initial order before the next ones are read."""


class PERankOptions(EmbeddingOptions, RankerOptions):
    """What a `perank` arm may set."""

    checkpoint: str = Field(
        CHAMPION,
        description="champion: the checkpoint promoted as of the night's date, or "
        f"{DEFAULT_CHECKPOINT} where none was. Otherwise the name of a shipped or a registered "
        "one, or a folder in the published or in our own layout.",
    )
    window: int = Field(20, ge=2, le=100, description="Passages the LLM ranks at once.")
    step: int = Field(10, ge=1, le=100, description="How far the window moves; at most the window.")
    decoding: Decoding = Field(
        "constrained", description="How a window's order is put out: " + choices(DECODING_HELP)
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Only so many first places need to be exact: constrained decoding then stops "
        "a window early (10 is about twice as fast to decode). Empty: all.",
    )
    passages: PassageForm = Field(
        "embeddings", description="What is read of a passage: " + choices(PASSAGES_HELP)
    )
    passes: int = Field(
        1, ge=1, le=10, description="How often the window goes over the whole list."
    )
    initial_order: InitialOrder = Field(
        "given", description="The order that ranking starts from: " + choices(ORDER_HELP)
    )
    order_seed: int = Field(0, ge=0, description="Seed of a random initial order.")
    orders: int = Field(
        1,
        ge=1,
        le=64,
        description="Initial orders to rank from, the one above and shuffled ones, to sort by the "
        "mean rank over all of them; that many times the work.",
    )

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        try:
            _ = self.ranking
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if self.orders > 1 and not self.ranking.reads_a_prompt:
            raise ValueError(f"orders average an LLM's rankings, and {self.decoding} has no LLM")
        return self

    @property
    def ranking(self) -> RankingOptions:
        """The method's own options; ConfigError where they exclude each other."""
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
        prompt = {"prompt": summary.prompt} if self.ranking.reads_a_prompt else {}
        return Description(
            embedder=embedder if self.passages != "text" else None,
            texts=self.passages != "embeddings",
            grades=self.initial_order == "oracle",
            identity={"checkpoint_hash": summary.hash, **prompt},
            impossible=impossible,
        )

    def load(self, models: Models) -> "PERankRanker":
        """As `RankerOptions.load`."""
        return PERankRanker(self, models)


class PERankRanker:
    """A checkpoint that ranks lists by an arm's options."""

    def __init__(self, options: PERankOptions, models: Models):
        import torch

        from perank_tasks.perank import PERank

        torch.set_num_threads(models.threads)
        self.options = options
        self.engine = PERank.from_pretrained(models.local(options.checkpoint), cache=models.cache)
        self.device = str(self.engine.device)
        self.embedding_size = self.engine.embedding_size

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
        said = self.engine.description(self.options.ranking)
        return said | {"checkpoint": self.options.checkpoint}

    def work(self) -> dict[str, float]:
        """What the LLM did so far, by the names in `meter.WORK`."""
        counted = self.engine.counters.as_dict()
        return {name: counted[name] for name in WORK}

    def _turns(self) -> list[RankingOptions]:
        """How to rank each time: from the arm's own initial order, then from shuffled ones."""
        ranking = self.options.ranking
        return [ranking] + [
            replace(ranking, initial_order="random", seed=ranking.seed + turn)
            for turn in range(1, self.options.orders)
        ]


def _averaged(results: Sequence[RankedList]) -> RankedList:
    """One ranking of several, by mean rank; equal ones go as the first stage has them."""
    first = results[0]
    order = list(first.order)
    reason = next((r.unranked_reason for r in results if r.unranked_reason), None)
    if reason:
        order = list(range(len(order)))
    elif len(results) > 1:
        ranks = np.sum([np.argsort(result.order) for result in results], axis=0)
        order = np.argsort(ranks, kind="stable").tolist()
    return replace(
        first,
        order=order,
        unranked_reason=reason,
        windows=sum(r.windows for r in results),
        tokens_in=sum(r.tokens_in for r in results),
        decode_steps=sum(r.decode_steps for r in results),
        numbers_missing=sum(r.numbers_missing for r in results),
        numbers_repeated=sum(r.numbers_repeated for r in results),
    )
