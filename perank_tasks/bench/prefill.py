"""Prompts a second: in, an engine and a stock LLM; out, tokens/s of both on the same shapes.

Both read token ids of real prompts' number and length, without padding. The engine shares nothing
between the prompts here, so the two do the same work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from perank_tasks.bench.contenders import Arena
from perank_tasks.bench.hardware import seconds_of
from perank_tasks.bench.workload import cut
from perank_tasks.perank.decode import PREFILL_TOKENS
from perank_tasks.perank.llm import Cache, Llm
from perank_tasks.support.lists import CandidateList


@dataclass(frozen=True)
class PrefillRates:
    """Tokens/s of reading `batch` prompts of `length` tokens, best of several turns."""

    batch: int
    length: int
    engine: float
    stock: float

    @property
    def ratio(self) -> float:
        return self.engine / self.stock


def measure_prefill(
    arena: Arena, lists: Sequence[CandidateList], *, repeats: int = 2
) -> PrefillRates:
    """Measure both in turn over one window of each query.

    Each side's best turn counts: other work on the machine can only slow a turn down.
    """
    windows = [cut(each, arena.window) for each in lists]
    prompts = arena.plain.prompts
    built = [prompts.build(prompts.prepare(each.query), len(each)) for each in windows]
    batch, length = len(windows), max(len(prompt.input_ids) for prompt in built)
    llm, body = arena.engines["released"].model.llm, arena.plain.model.get_decoder()
    cache = Cache(llm, batch, length + 1)
    engine, stock = [], []
    for _ in range(repeats + 1):
        engine.append(batch * length / engine_prefill(llm, cache, batch, length))
        stock.append(batch * length / stock_prefill(body, batch, length))
    # The first turn warms up.
    return PrefillRates(batch, length, max(engine[1:]), max(stock[1:]))


@torch.inference_mode()
def stock_prefill(model: PreTrainedModel, batch: int, length: int) -> float:
    """Seconds of a stock forward pass over (batch, length) token ids, with a cache, no padding.

    `model` is the LLM without a head, or with one that then scores the last position alone.
    """
    ids = torch.randint(0, 100, (batch, length), device=model.device)
    return seconds_of(lambda: model(ids, use_cache=True), model.device)


@torch.inference_mode()
def engine_prefill(llm: Llm, cache: Cache, batch: int, length: int) -> float:
    """Seconds of the engine's forward pass over as many tokens, into a cache, in its own batches.

    Nothing is shared between the prompts: it does the work of the stock pass.
    """
    ids = torch.randint(0, 100, (batch, length), device=llm.device)
    rows = max(1, PREFILL_TOKENS[llm.device.type] // length)

    def read() -> None:
        for first in range(0, batch, rows):
            inputs = llm.embeddings[ids[first : first + rows]]
            every = torch.ones(len(inputs), dtype=torch.long, device=llm.device)
            llm.forward(
                inputs, cache, first_row=first, starts=0 * every, ends=length * every, to=length
            )

    return seconds_of(read, llm.device)
