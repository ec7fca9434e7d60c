"""Contenders: the ways to rank that are measured, each as one call over a block of queries.

plain                  the reference's way (`plain.py`): what all others are a ratio to
released, compact      the engine, by prompt: every passage put out, the top k exact, or one query
                       by itself in the shortest time
first step, free       the engine's other decodings, released prompt
full text              listwise over the passages' texts by the same LLM and engine
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from perank_tasks.bench.hardware import seconds_of
from perank_tasks.bench.options import BenchOptions
from perank_tasks.bench.plain import PlainRanker
from perank_tasks.errors import QualityError
from perank_tasks.models.find import MINILM
from perank_tasks.perank import PERank, RankingOptions
from perank_tasks.perank.prompt import COMPACT_V1, RELEASED_V1
from perank_tasks.support.lists import CandidateList, RankedList
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.start import make_start

EMBEDDING_SIZE = 384
"""Of all-MiniLM-L6-v2, which the reference's way embeds every window with again."""


@dataclass(frozen=True)
class Contender:
    """One way to rank.

    `options` are those of `RankingOptions` besides window and step. `queries` is how many of a
    block's queries it ranks, None for all: of slow ways whose time a query hardly depends on it,
    few are enough. Contenders of the first block only are measured once.
    """

    name: str
    prompt: Literal["released", "compact"]
    options: dict[str, Any] | None
    """None: the plain way."""
    queries: int | None = None
    first_block_only: bool = False

    def at_once(self, queries: int) -> int:
        """How many of so many queries it ranks together."""
        return 1 if self.options is None else self.options.get("block", queries)


def contenders(top_k: int) -> tuple[Contender, ...]:
    """All of them, in the order they are run and shown in."""
    texts, top, free = {"passages": "both"}, {"top_k": top_k}, {"decoding": "free"}
    once: dict[str, Any] = {"queries": 1, "first_block_only": True}
    return (
        Contender("plain", "released", None, queries=1),
        Contender("released", "released", {}),
        Contender(f"released, top {top_k}", "released", top),
        Contender("released, single", "released", {"block": 1}, queries=1),
        Contender("compact", "compact", {}),
        Contender(f"compact, top {top_k}", "compact", top),
        Contender("compact, single", "compact", {"block": 1}, queries=1),
        Contender("first step", "released", {"decoding": "first-step"}, 2, first_block_only=True),
        Contender("free", "released", free, **once),
        Contender("full text", "released", texts, 4, first_block_only=True),
        Contender(f"full text, top {top_k}", "released", texts | top, **once),
        Contender("full text, free", "released", {"passages": "text"} | free, **once),
    )


@dataclass
class Measurement:
    """One contender over the queries it ranked of one block."""

    contender: str
    orders: dict[str, list[int]]
    """Of each query its passages by their places in the candidate list; of equal texts, which may
    swap, the place of the first."""
    seconds: float
    tokens_in: int
    decode_steps: int

    @property
    def seconds_a_query(self) -> float:
        return self.seconds / len(self.orders)


@dataclass(frozen=True)
class Arena:
    """The loaded models."""

    engines: dict[str, PERank]
    """By prompt, `released` and perhaps `compact`."""
    plain: PlainRanker

    def measure(self, contender: Contender, lists: Sequence[CandidateList]) -> Measurement:
        """Rank `lists` as `contender` does: all in one call, but plain one by one.

        Args:
            lists: with texts and embeddings.

        Raises:
            QualityError: a query could not be ranked.
        """
        rank: Callable[[], Iterable[RankedList]]
        if contender.options is None:
            rank = partial(map, self.plain.rerank, lists)
        else:
            own = {"block": len(lists)} | contender.options
            options = self.plain.options.model_copy(update=own)
            rank = partial(self.engines[contender.prompt].rerank_many, lists, options)
        results: list[RankedList] = []
        seconds = seconds_of(lambda: results.extend(rank()), self.plain.engine.device)
        for result in results:
            if result.unranked_reason is not None:
                raise QualityError(
                    f"contender {contender.name!r}: query {result.query_id} was not ranked: "
                    f"{result.unranked_reason}"
                )
        return Measurement(
            contender=contender.name,
            orders={
                each.query_id: [each.texts.index(each.texts[place]) for place in result.order]
                for each, result in zip(lists, results, strict=True)
                if each.texts
            },
            seconds=seconds,
            tokens_in=sum(result.tokens_in for result in results),
            decode_steps=sum(result.decode_steps for result in results),
        )


def load_arena(options: BenchOptions, cache: Path) -> Arena:
    """Load the checkpoints that are named, or full-size untrained ones.

    Of a named checkpoint with the reference's prompt alone, there is no compact one.

    Raises:
        ConfigError, CheckpointError: as for `PERank.from_pretrained` and `PlainRanker`.
    """
    names = {"released": options.checkpoint, "compact": options.compact_checkpoint}
    if options.checkpoint and not options.compact_checkpoint:
        del names["compact"]
    checkpoints = {
        prompt: name or untrained_checkpoint(prompt, cache) for prompt, name in names.items()
    }
    engines = {
        prompt: PERank.from_pretrained(name, cache=cache, device=options.device)
        for prompt, name in checkpoints.items()
    }
    ranking = RankingOptions(window=options.window, step=options.step)
    plain = PlainRanker(checkpoints["released"], engines["released"], ranking, cache=cache)
    return Arena(engines, plain)


def untrained_checkpoint(prompt: str, cache: Path) -> str:
    """Make a full-size checkpoint for a prompt below `cache`; returns its folder.

    SmolLM2-135M-Instruct with all its layers and an untrained projector from all-MiniLM-L6-v2.
    Its cost is that of a trained checkpoint; its rankings mean nothing.

    Raises:
        ConfigError: the LLM's or the embedder's package is not installed.
        StorageError: the cache cannot be written.
    """
    template = {"released": RELEASED_V1, "compact": COMPACT_V1}[prompt]
    # A query token and a residual are used where the prompt has a place for them.
    has_query = template.has_query_slot
    own = {"prompt": template.name, "query_token": has_query, "residual": has_query}
    embedder = {"encoder": MINILM, "encoder_pooling": "mean"}
    recipe = RankRecipe.parse(own | embedder | {"projector_start": "orthonormal"})
    folder = cache / "bench" / f"smollm2-minilm-{prompt}"
    make_start(folder, recipe, [], EMBEDDING_SIZE, cache=cache)
    return str(folder)
