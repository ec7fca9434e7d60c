"""Transforms of passages' embeddings: what a smaller or a worse vector costs in quality.

A transform is written as steps joined by `+`, each with its argument after a colon:

    dims:128       the first 128 values only, the others 0
    float16        rounded to half precision
    int8           8 bits a value and one scale a vector, its largest value
    binary         the sign of each value
    noise:0.5      normal noise, half as long as the vector in expectation; noise:0.5:7 with seed 7

Out come float32 vectors of the same width and of length 1, so that whatever read the ones before
reads these. Queries' vectors stay as they are: what is stored by the million is passages. A
vector's noise depends on its passage's id and the seed alone.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perank_tasks.errors import ConfigError

_STEP = re.compile(r"dims:[1-9]\d*|float16|int8|binary|noise:\d*\.?\d+(:\d+)?")
SCALE_BITS = 32
"""An int8 vector's scale, a float32."""


@dataclass(frozen=True)
class Transform:
    """Steps in the order in which they are done."""

    steps: tuple[tuple[str, tuple[float, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> "Transform":
        """Read `dims:128+int8`.

        Raises:
            ConfigError: a step is unknown, has a wrong argument, or is there twice.
        """
        steps = []
        for word in map(str.strip, text.split("+")):
            if not _STEP.fullmatch(word):
                raise ConfigError(
                    f"the transform {text!r} has the step {word!r}; expected dims:N, float16, "
                    "int8, binary or noise:LENGTH[:SEED], joined by +"
                )
            name, *arguments = word.split(":")
            steps.append((name, tuple(map(float, arguments))))
        if len({name for name, _ in steps}) < len(steps):
            raise ConfigError(f"the transform {text!r} has a step twice")
        return cls(tuple(steps))

    def bits(self, width: int) -> int:
        """Bits a vector of `width` float32 values takes afterwards."""
        values, each, more = width, 32, 0
        for name, arguments in self.steps:
            if name == "dims":
                values = min(values, int(arguments[0]))
            each = {"float16": 16, "int8": 8, "binary": 1}.get(name, each)
            more = SCALE_BITS if name == "int8" else 0 if name == "binary" else more
        return values * each + more

    def apply(self, ids: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """(n, d) float32 of length 1 → the same, put through the steps.

        A vector of which nothing is left stays 0.
        """
        used = np.ones(vectors.shape[1], bool)
        vectors = vectors.astype(np.float32)
        for name, arguments in self.steps:
            if name == "dims":
                used[int(arguments[0]) :] = False
                vectors[:, ~used] = 0
                vectors = _unit(vectors)
            elif name == "float16":
                vectors = vectors.astype(np.float16).astype(np.float32)
            elif name == "int8":
                scale = np.abs(vectors).max(axis=1, keepdims=True) / 127
                vectors = np.round(vectors / np.where(scale > 0, scale, 1)) * scale
            elif name == "binary":
                vectors = np.where(vectors >= 0, 1, -1).astype(np.float32) * used
            else:
                length, seed = arguments[0], int(arguments[1]) if len(arguments) > 1 else 0
                noise = np.stack([_noise(name, seed, len(used)) for name in ids])
                vectors = vectors + (length / np.sqrt(used.sum()) * noise * used).astype(np.float32)
        return _unit(vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _noise(passage_id: str, seed: int, width: int) -> np.ndarray:
    digest = hashlib.sha256(f"{seed} {passage_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(width)
