"""Groups of lists: in, lists in progress; out, the same, ranked to their fronts.

Round by round, the next windows of all lists of a group go through the LLM together, over one
key/value cache. A list keeps its row of it, so that what its prompts begin with is computed once.
How many lists make a group follows from the memory that is free; where it runs out all the same,
the group is ranked in two halves.
"""

from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor

from perank_tasks.errors import DeviceMemoryError
from perank_tasks.perank import decode
from perank_tasks.perank.decode import Batch, Counters, Decoded
from perank_tasks.perank.llm import Cache
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.ranking import Method, Ranking

# Lists ranked together where memory allows: on two cores nothing is gained beyond; a GPU
# decodes as many tokens in the time of one.
MAX_LISTS = {"cpu": 32, "cuda": 256}

# Of the memory that is free, what the key/value cache may take; the forward pass needs some, too.
CACHE_SHARE = {"cpu": 0.25, "cuda": 0.6}
MAX_CPU_CACHE_BYTES = 2**30


class Rounds:
    """Ranks groups by one model, one group at a time.

    Args:
        model: what ranks.
        counters: where its work is counted.
        load_head: gives the LLM's output embeddings, (V, H); only free decoding asks for them.

    Attributes:
        max_lists: the largest group that memory has sufficed for.
    """

    def __init__(
        self, model: RankingModel, counters: Counters, load_head: Callable[[], Tensor]
    ) -> None:
        self.model, self.counters = model, counters
        self.max_lists = MAX_LISTS[model.device.type]
        self.cache: Cache | None = None
        self._load_head = load_head
        self._head: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "cache": None}

    def fitting(self, rankings: list[Ranking]) -> int:
        """How many of these the memory that is free has room for together, at least 1."""
        tokens = max(ranking.tokens for ranking in rankings)
        if not tokens:
            return len(rankings)
        llm, kind = self.model.llm, self.model.device.type
        if kind == "cuda":
            free = torch.cuda.mem_get_info(self.model.device)[0]
        else:
            free = psutil.virtual_memory().available
        if self.cache is not None:
            free += llm.cache_bytes(self.cache.rows * self.cache.length)
        budget = free * CACHE_SHARE[kind]
        if kind == "cpu":
            budget = min(budget, MAX_CPU_CACHE_BYTES)
        return max(1, min(self.max_lists, int(budget // llm.cache_bytes(tokens))))

    def rank(self, group: list[Ranking], method: Method) -> None:
        """Rank lists to their fronts.

        Raises:
            DeviceMemoryError: not even one list's windows fit into memory.
        """
        active = [ranking for ranking in group if ranking.todo]
        if not method.options.reads_a_prompt:
            for ranking in active:
                ranking.rank_by_residual()
                self.counters.windows += ranking.ranked.windows
            return
        # Windows of like length side by side: there is less to pad.
        active.sort(key=lambda ranking: -ranking.query_length)
        try:
            self._rank_together(active, method)
            return
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(active) < 2:
                raise DeviceMemoryError(
                    f"ranking a single query runs out of memory on {self.model.device}: "
                    f"choose a smaller window, or passages without text"
                ) from error
        self.cache = None
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(active) // 2
        self.max_lists = max(1, min(self.max_lists, half))
        self.rank(active[:half], method)
        self.rank(active[half:], method)

    @torch.inference_mode()
    def _rank_together(self, active: list[Ranking], method: Method) -> None:
        """Rank round by round; row i of the cache is list i's."""
        cached: list[list[int]] = [[] for _ in active]
        while True:
            next_windows = [ranking.window() for ranking in active]
            rows = [row for row, window in enumerate(next_windows) if window is not None]
            if not rows:
                return
            if len(rows) < len(active) and self.cache is not None and any(cached):
                self.cache.keep(rows)
            active, cached = [active[row] for row in rows], [cached[row] for row in rows]
            windows = [window for window in next_windows if window is not None]
            room = max(
                len(w.keys) + method.prompts.answer_tokens(len(w.projected)) for w in windows
            )
            if self.cache is None or self.cache.rows < len(rows) or self.cache.length < room:
                self.cache = None  # gives its memory back before more is asked for
                self.cache = Cache(self.model.llm, len(rows), -(-room // 64) * 64)
                cached = [[] for _ in active]
            batch = Batch(self.model, self.cache, cached, windows, self.counters)
            outputs = self._decode(batch, method)
            for ranking, window, output in zip(active, windows, outputs, strict=True):
                ranking.take(window, output)
            self.counters.windows += len(windows)
            if not all(output.finite for output in outputs):
                # Attention gives what it masks a weight of 0, and 0 times NaN is NaN: nothing
                # of such a row may be read by a later one.
                self.cache = None
                cached = [[] for _ in active]

    def _decode(self, batch: Batch, method: Method) -> list[Decoded]:
        if method.options.decoding == "constrained":
            return decode.constrained(batch)
        if method.options.decoding == "first-step":
            return decode.first_step(batch)
        if self._head is None:
            self._head = self._load_head().to(self.model.device, self.model.dtype)
        prompts = method.prompts
        return decode.free(
            batch,
            self._head,
            max_tokens=prompts.answer_tokens,
            stop=prompts.stop_tokens,
            read=prompts.read_answer,
        )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no more memory.

    On a CPU torch's allocator, C++ and oneDNN raise plain RuntimeErrors. oneDNN's has no reason
    in it; of shapes that do not fit it says `could not create a primitive descriptor`.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return (
        "can't allocate memory" in message
        or "bad_alloc" in message
        or message in ("could not create a primitive", "could not execute a primitive")
    )
