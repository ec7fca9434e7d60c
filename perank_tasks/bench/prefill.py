"""Prompts a second: in, an engine and a stock LLM; out, tokens/s of both on the same shapes.

Both read token ids of real prompts' number and length, without padding. The engine shares nothing
between the prompts here, so the two do the same work.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from perank_tasks.bench.contenders import Arena, load_arena
from perank_tasks.bench.hardware import engine_prefill, stock_prefill
from perank_tasks.bench.workload import BenchQuery, load_queries
from perank_tasks.perank.llm import Cache
from perank_tasks.settings import Settings


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
    arena: Arena, queries: Sequence[BenchQuery], *, repeats: int = 3
) -> PrefillRates:
    """Measure both in turn over one window of each query.

    Each side's best turn counts: other work on the machine can only slow a turn down.
    """
    windows = [query.cut(arena.window) for query in queries]
    prepare, build = arena.plain.prompts.prepare, arena.plain.prompts.build
    length = max(len(build(prepare(w.text), len(w.passages)).input_ids) for w in windows)
    body = arena.plain.model.get_decoder()
    engine, stock = [], []
    llm = arena.engines["released"].model.llm
    cache = Cache(llm, len(windows), length + 1)
    for _ in range(repeats + 1):
        engine.append(len(windows) * length / engine_prefill(llm, cache, len(windows), length))
        stock.append(len(windows) * length / stock_prefill(body, len(windows), length))
    # The first turn warms up.
    return PrefillRates(len(windows), length, max(engine[1:]), max(stock[1:]))


def run_prefill(
    collection: str | None,
    batches: Sequence[int],
    *,
    repeats: int,
    window: int,
    checkpoint: str | None,
    device: str,
) -> Iterator[PrefillRates]:
    """Measure each batch size with real queries, as many as it holds; arguments: see the command.

    Raises:
        ConfigError, CollectionError, CheckpointError: something named is not there or unfit.
    """
    settings = Settings.from_environment()
    torch.set_num_threads(settings.threads)
    spec = collection or settings.collection
    queries = load_queries(spec, queries=max(batches), depth=window)
    arena = load_arena(
        checkpoint, None, window=window, step=window, device=device, cache=settings.cache
    )
    arena.embed(queries)
    for batch in batches:
        yield measure_prefill(arena, queries[:batch], repeats=repeats)
