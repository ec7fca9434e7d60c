"""Groups of lists: in, lists in progress; out, the same, ranked to their fronts.

Round by round, the next windows of all lists of a group go through the LLM in blocks: windows
whose caches have the same length together, as many as `shapes` says.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perank_tasks.errors import DeviceMemoryError
from perank_tasks.perank import decode
from perank_tasks.perank.block import Block, Counters, Window
from perank_tasks.perank.decode import Decoded
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.ranking import Method, Ranking
from perank_tasks.perank.shapes import Shapes

Waiting = list[tuple[Ranking, Window]]


class Rounds:
    """Ranks groups by one model, one group at a time.

    Args:
        model: what ranks.
        counters: where its work is counted.
        load_head: gives the LLM's output embeddings, (V, H); only free decoding asks for them.
    """

    def __init__(
        self, model: RankingModel, counters: Counters, load_head: Callable[[], Tensor]
    ) -> None:
        self.model, self.counters = model, counters
        self._load_head = load_head
        self._head: Tensor | None = None
        self._shapes: dict[int | None, Shapes] = {}
        self._blocks: dict[tuple[Shapes, int, int], Block] = {}
        self._was_out_of_memory = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_blocks": {}}

    def shapes(self, options: RankingOptions) -> Shapes:
        """The shapes that lists are ranked in: smaller ones after memory ran out."""
        rows = options.block
        if rows not in self._shapes:
            self._shapes[rows] = Shapes.of(self.model.llm, rows)
        return self._shapes[rows]

    def rank(self, group: list[Ranking], method: Method) -> None:
        """Rank lists to their fronts.

        Raises:
            DeviceMemoryError: not even one list's windows fit into memory.
        """
        if not method.options.reads_a_prompt:
            for ranking in group:
                if ranking.todo:
                    ranking.rank_by_residual()
                    self.counters.windows += ranking.ranked.windows
            return
        while True:
            next_windows = [(ranking, ranking.window()) for ranking in group]
            waiting = [(ranking, window) for ranking, window in next_windows if window is not None]
            if not waiting:
                return
            # Windows of like length side by side: there is less to pad.
            waiting.sort(key=lambda pair: -pair[1].new_tokens)
            while waiting:
                waiting = self._rank_some(waiting, method)

    def _rank_some(self, waiting: Waiting, method: Method) -> Waiting:
        """Rank a block of windows; the windows that are left."""
        shapes = self.shapes(method.options)
        length = shapes.cache_length(waiting[0][1].tokens)
        fitting = [pair for pair in waiting if shapes.cache_length(pair[1].tokens) == length]
        some = fitting[: shapes.rows(length)]
        try:
            self._rank_block(some, self._block(shapes, length, method), method)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            self._shrink(shapes, method, error)
            return waiting
        ranked = {id(window) for _, window in some}
        return [pair for pair in waiting if id(pair[1]) not in ranked]

    def _block(self, shapes: Shapes, length: int, method: Method) -> Block:
        """The block for windows of this length, kept for all that follow while there is room."""
        key = (shapes, length, method.options.window)
        if key not in self._blocks:
            rows = shapes.rows(length)
            kept = sum(b.cache.rows * b.cache.length for b in self._blocks.values())
            if (kept + rows * length) * shapes.token_bytes > shapes.cache_bytes:
                self._blocks.clear()
            self._blocks[key] = Block(
                self.model, shapes, rows, length, method.options.window, self.counters
            )
        return self._blocks[key]

    @torch.inference_mode()
    def _rank_block(self, some: Waiting, block: Block, method: Method) -> None:
        windows = [window for _, window in some]
        block.fill(windows)
        outputs = self._decode(block, method)
        if not all(output.finite for output in outputs):
            # Attention gives what it masks a weight of 0, and 0 times NaN is NaN: nothing of such a
            # row may be read by a later one.
            block.cache.clear()
        elif not block.shapes.is_fixed:
            for row, (ranking, window) in enumerate(some):
                ranking.keep_prefix(window, block.cache, row)
        for (ranking, window), output in zip(some, outputs, strict=True):
            ranking.take(window, output)
        self.counters.windows += len(windows)

    def _shrink(self, shapes: Shapes, method: Method, error: BaseException) -> None:
        """Give memory back; where that was not enough the last time, choose smaller shapes."""
        self._blocks.clear()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._was_out_of_memory:
            self._was_out_of_memory = True
            return
        smaller = shapes.halved()
        if smaller is None:
            raise DeviceMemoryError(
                f"ranking a single query runs out of memory on {self.model.device}: "
                f"choose a smaller window, or passages without text"
            ) from error
        self._shapes[method.options.block] = smaller

    def _decode(self, block: Block, method: Method) -> list[Decoded]:
        if method.options.decoding == "constrained":
            alone = method.options.block == 1
            return decode.drafted(block) if alone else decode.constrained(block)
        if method.options.decoding == "first-step":
            return decode.first_step(block)
        if self._head is None:
            self._head = self._load_head().to(self.model.device, self.model.dtype)
        return decode.free(block, self._head, method.prompts)


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
