"""Embedders: texts in, L2-normalised float32 vectors out.

An embedder is named by one string: an embedded name (`all-minilm-l6-v2`), a
sentence-transformers folder or hub id, or `checkpoint:<name or folder>` for the encoder
inside a PE-Rank checkpoint. `identify` says what it is without loading it, for keys;
`load` makes it ready to encode.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.models import content_hash, resolve_model
from perank_tasks.settings import Settings

if TYPE_CHECKING:
    from perank_tasks.perank import PERank

CHECKPOINT_PREFIX = "checkpoint:"


class Embedder(Protocol):
    """A loaded embedder."""

    dimension: int
    device: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32, each row of norm 1."""
        ...


def identify(name: str, settings: Settings) -> dict[str, str | int]:
    """Everything about an embedder that changes its vectors: part of the artifact's key."""
    return dict(_identity(name, settings.cache))


def load(name: str, settings: Settings) -> Embedder:
    """Load an embedder by name.

    Raises:
        ConfigError: no such embedder; close names are offered.
        CheckpointError: a checkpoint's encoder cannot be loaded.
    """
    import torch

    torch.set_num_threads(settings.threads)
    if name.startswith(CHECKPOINT_PREFIX):
        from perank_tasks.perank import PERank

        model = PERank.from_pretrained(name.removeprefix(CHECKPOINT_PREFIX), cache=settings.cache)
        return _CheckpointEncoder(model)
    return _SentenceTransformer(_sentence_transformer_folder(name, settings.cache))


class _SentenceTransformer:
    """Any sentence-transformers model, at its own maximum length and pooling."""

    def __init__(self, folder: Path):
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(folder), trust_remote_code=False)
        self.model.eval()
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self.device = str(self.model.device)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.model.encode(
            list(texts),
            batch_size=16 if self.device == "cpu" else 128,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )


class _CheckpointEncoder:
    """The encoder inside a PE-Rank checkpoint."""

    def __init__(self, model: "PERank"):
        self.model = model
        self.dimension = model.embedding_size
        self.device = str(model.device)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.model.encode(texts)


@cache
def _identity(name: str, cache_folder: Path) -> tuple[tuple[str, str | int], ...]:
    # Cached for the process: it reads every byte of the model's files.
    if name.startswith(CHECKPOINT_PREFIX):
        from perank_tasks.perank.checkpoint_config import summarize_checkpoint

        summary = summarize_checkpoint(name.removeprefix(CHECKPOINT_PREFIX), cache=cache_folder)
        return (
            ("name", name),
            ("content", summary.hash),
            ("pooling", summary.encoder.pooling),
        )
    folder = _sentence_transformer_folder(name, cache_folder)
    # Pooling and maximum length are in the folder's own configuration, so in its hash.
    return (("name", name), ("content", content_hash(folder)))


def _sentence_transformer_folder(name: str, cache_folder: Path) -> Path:
    folder = resolve_model(name, cache=cache_folder).folder
    modules = folder / "modules.json"
    if not modules.is_file():
        raise ConfigError(
            f"The embedder {name!r} ({folder}) is no sentence-transformers model: it has no "
            "modules.json. Save it with SentenceTransformer(...).save(folder) first."
        )
    return folder
