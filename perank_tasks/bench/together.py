"""`perank bench together`: in, a checkpoint; out, two rankers at once against one after the other.

Two processes rank the same synthetic queries: first one after the other with all threads, then
at once with half of them each, in turns. Threads that are divided cost little; threads that
fight for the same cores would show here. A round is what both need together.
"""

import multiprocessing
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from perank_tasks.bench.workload import synthetic_requests
from perank_tasks.errors import ConfigError, QualityError

SEED = 1
CANDIDATES = 100


@dataclass(frozen=True)
class Together:
    """Seconds of each round, and the threads of a process in it."""

    one_after_the_other: list[float]
    at_once: list[float]
    threads: int
    threads_each: int

    @property
    def ratio(self) -> float:
        """Median time at once over median time one after the other: 1 where nothing is lost."""
        return statistics.median(self.at_once) / statistics.median(self.one_after_the_other)


def measure_together(
    checkpoint: str, *, queries: int, rounds: int, threads: int, cache: Path, device: str = "auto"
) -> Together:
    """Rank `queries` queries in each of two processes, `rounds` times in both ways.

    Raises:
        ConfigError: fewer than two threads, which cannot be divided.
        QualityError: a process ended before its time; its own message stands above.
    """
    if threads < 2:
        raise ConfigError(
            f"two rankers need two threads or more to divide, found {threads}: set PERANK_THREADS"
        )
    # A forked process would inherit torch's thread pool in an unusable state.
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for _ in range(2):
            ours, theirs = context.Pipe()
            arguments = (theirs, checkpoint, queries, str(cache), device)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _answer(pipe)
        serial, parallel = [], []
        for _ in range(rounds):
            serial.append(sum(_rank(pipes[i : i + 1], threads) for i in range(2)))
            parallel.append(_rank(pipes, threads // 2))
        return Together(serial, parallel, threads, threads // 2)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=10)
            process.kill()


def _rank(pipes: Sequence[Connection], threads: int) -> float:
    """Let these processes rank at once; returns what the slowest took, in seconds."""
    for pipe in pipes:
        pipe.send(threads)
    return max(_answer(pipe) for pipe in pipes)


def _answer(pipe: Connection) -> float:
    try:
        return pipe.recv()
    except EOFError:
        raise QualityError(
            "a ranking process ended before its time: see what it said above, and whether the "
            "machine has the memory for two models"
        ) from None


def _serve(pipe: Connection, checkpoint: str, queries: int, cache: str, device: str) -> None:
    """In each process: load, warm up, then rank whenever a number of threads comes."""
    import torch

    from perank_tasks.bench.hardware import seconds_of
    from perank_tasks.perank import PERank

    torch.set_num_threads(1)
    engine = PERank.from_pretrained(checkpoint, cache=Path(cache), device=device)
    requests = list(synthetic_requests(engine, queries, candidates=CANDIDATES, seed=SEED))
    list(engine.rerank_many(requests[:1]))
    pipe.send(0.0)
    try:
        while True:
            torch.set_num_threads(pipe.recv())
            pipe.send(seconds_of(lambda: list(engine.rerank_many(requests)), engine.device))
    except EOFError:
        return
