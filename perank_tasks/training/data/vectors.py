"""Vectors of texts that no collection's embedding artifact has, and vectors mapped into memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.models.embedders import check_unit_vectors
from perank_tasks.night.embed import to_matrix
from perank_tasks.perank.embedders import identify, load
from perank_tasks.settings import Settings
from perank_tasks.support.progress import progress
from perank_tasks.support.text import text_hash
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.warehouse.registry import local

TEXTS_A_CALL = 512
FOLDER, FILE = "vectors", "embeddings.npy"


@dataclass(frozen=True)
class Making:
    """What everything that makes training data is handed: where, of what, and by which machine."""

    store: Store
    options: DataOptions
    provenance: dict[str, str]

    @property
    def embedder(self) -> dict[str, Any]:
        """What makes the vectors of a text what they are."""
        name = self.options.embedder
        identity = identify(local(name, self.store), Settings.from_environment())
        return {
            "embedder": identity | {"name": name},
            "precision": self.options.embedding_precision,
        }


def embed_texts(
    making: Making,
    texts: Sequence[str],
    known: Mapping[str, np.ndarray] | None = None,
    *,
    queries: bool = False,
) -> np.ndarray:
    """Embed passages or queries, (n, dimension) float32.

    Args:
        known: vectors that are there already, by text hash, by the same embedder.

    Raises:
        EmbeddingError: the embedder returned something that is no unit vector.
    """
    hashes, vectors = hashes_of(texts), dict(known or {})
    new = {n: text for n, text in zip(hashes, texts, strict=True) if n not in vectors}
    if new:
        embedder = load(
            local(making.options.embedder, making.store),
            Settings.from_environment(),
            trust_remote_code=making.options.trust_remote_code,
        )
    with progress("embedding texts", len(new), "texts") as advance:
        for first in range(0, len(new), TEXTS_A_CALL):
            names = list(new)[first : first + TEXTS_A_CALL]
            encoded = embedder.encode([new[name] for name in names], queries=queries)
            check_unit_vectors(encoded, [repr(new[name][:60]) for name in names])
            vectors.update(zip(names, encoded, strict=True))
            advance(len(names))
    return np.array([vectors[name] for name in hashes], np.float32)


def hashes_of(texts: Sequence[str]) -> list[str]:
    """The `text_hash` of texts without titles."""
    return [text_hash(None, text) for text in texts]


def vectors_by_hash(table: pa.Table) -> dict[str, np.ndarray]:
    """Vectors of a table with the columns `text_hash` and `embedding`."""
    matrix = to_matrix(table["embedding"])
    return dict(zip(table["text_hash"].to_pylist(), matrix, strict=True))


@contextmanager
def filling_matrix(draft: Artifact, shape: tuple[int, ...], precision: str) -> Iterator[Any]:
    """A draft's file of vectors, an array to fill."""
    with draft.writing(FOLDER) as folder:
        matrix = np.lib.format.open_memmap(folder / FILE, mode="w+", dtype=precision, shape=shape)
        yield matrix
        matrix.flush()


def open_matrix(artifact: Artifact) -> np.ndarray:
    """The vectors of an artifact, (rows, dimension), mapped into memory and read-only."""
    return np.load(artifact.local(FOLDER) / FILE, mmap_mode="r")
