"""The order of training: in, examples, a seed and sizes of batches; out, example after example.

The order is a function of seed and place alone: a training that was killed is resumed where it
was, and ends with the same weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from perank_tasks.training.examples import Examples

CHUNK_BATCHES = 32
"""Batches among which examples of like length are brought together."""


class Ordered(Dataset[Any]):
    """Examples in the order of training: item i is that of step i // batch.

    Every epoch is a new permutation. What does not fill a batch is left out of that epoch. With
    `length`, examples of like length come together within some batches, and batches are shuffled.
    """

    def __init__(
        self,
        examples: Examples[Any],
        *,
        steps: int,
        batch: int,
        seed: int,
        length: Callable[[Any], int] | None = None,
    ) -> None:
        self._examples, self._batch, self._seed, self._length = examples, batch, seed, length
        self._total = steps * batch
        count = len(examples)
        self._usable = count - count % batch if count >= batch else count
        self._epoch: tuple[int, np.ndarray] | None = None
        self._chunk: tuple[tuple[int, int], list[Any]] | None = None

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, index: int) -> Any:
        epoch, place = divmod(index, self._usable)
        if self._length is None:
            return self._examples[int(self._order(epoch)[place])]
        chunk, within = divmod(place, CHUNK_BATCHES * self._batch)
        return self._alike(epoch, chunk, self._length)[within]

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._examples))
            self._epoch = epoch, order[: self._usable]
        return self._epoch[1]

    def _alike(self, epoch: int, chunk: int, length: Callable[[Any], int]) -> list[Any]:
        if self._chunk is None or self._chunk[0] != (epoch, chunk):
            size = CHUNK_BATCHES * self._batch
            order = self._order(epoch)[chunk * size : (chunk + 1) * size]
            alike = sorted((self._examples[int(i)] for i in order), key=length)
            batches = [alike[i : i + self._batch] for i in range(0, len(alike), self._batch)]
            random = np.random.default_rng([self._seed, epoch, chunk])
            shuffled = [batches[i] for i in random.permutation(len(batches))]
            self._chunk = (epoch, chunk), [example for batch in shuffled for example in batch]
        return self._chunk[1]
