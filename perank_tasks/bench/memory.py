"""`perank bench memory`: in, a checkpoint; out, how memory grows with the queries in a stream.

Synthetic queries are made as the engine asks for them and their results are dropped, so that
what is left is the engine's own. Resident memory is read every `EVERY` queries, and its peak
by the kernel. To run in a process of its own: the peak is that of the whole process.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil

from perank_tasks.bench.hardware import seconds_of
from perank_tasks.bench.workload import synthetic_requests
from perank_tasks.errors import ConfigError
from perank_tasks.perank import PERank
from perank_tasks.support.meter import peak_memory
from perank_tasks.support.progress import progress

EVERY = 100
SEED = 1


@dataclass(frozen=True)
class MemoryUse:
    """Resident bytes with the model loaded, at the peak, and while queries streamed through."""

    model: int
    peak: int
    by_queries: list[tuple[int, int]]
    seconds: float

    @property
    def above_model(self) -> int:
        """Bytes at the peak that the loaded model does not account for."""
        return self.peak - self.model

    @property
    def growth(self) -> float:
        """Memory at the end over memory at a tenth of the stream: 1 where it is flat."""
        return self.by_queries[-1][1] / self.by_queries[len(self.by_queries) // 10][1]


def measure_memory(
    checkpoint: str, *, queries: int, candidates: int, cache: Path, device: str = "auto"
) -> MemoryUse:
    """Rank a stream of `queries` synthetic queries of `candidates` passages each.

    Raises:
        ConfigError: fewer than two measurements' worth of queries.
    """
    if queries < 2 * EVERY:
        raise ConfigError(f"queries must be {2 * EVERY} or more to see growth, found {queries}")
    process = psutil.Process()
    engine = PERank.from_pretrained(checkpoint, cache=cache, device=device)
    model = process.memory_info().rss
    points: list[tuple[int, int]] = []

    def stream() -> None:
        requests = synthetic_requests(engine, queries, candidates=candidates, seed=SEED)
        with progress("ranking", queries, "queries") as advance:
            for done, _ in enumerate(engine.rerank_many(requests), 1):
                if done % EVERY == 0:
                    points.append((done, process.memory_info().rss))
                    advance(EVERY)

    seconds = seconds_of(stream, engine.device)
    return MemoryUse(model, peak_memory(), points, seconds)
