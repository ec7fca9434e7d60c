"""Embedders: texts in, L2-normalised float32 vectors out.

An embedder is named by one string: an embedded name (`all-minilm-l6-v2`), a
sentence-transformers folder or hub id, either with options behind a `?`
(`all-minilm-l6-v2?layers=3`, `smollm2-135m-instruct?pooling=mean`: see `model_variants`), or
`checkpoint:<name or folder>` for the encoder inside a PE-Rank checkpoint. `identify` says what it
is without loading it, for keys; `load` makes it ready to encode.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.models.find import ResolvedModel, content_hash, find_model, resolve_model
from perank_tasks.models.variants import ModelVariant, repository_code
from perank_tasks.settings import Settings

if TYPE_CHECKING:
    from perank_tasks.perank import PERank
    from perank_tasks.perank.checkpoint_config import CheckpointSummary

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


def load(name: str, settings: Settings, *, trust_remote_code: bool = False) -> Embedder:
    """Load an embedder by name.

    Args:
        trust_remote_code: run Python code that the model's repository brings.

    Raises:
        ConfigError: no such embedder (close names are offered), or as `check_code`.
        CheckpointError: a checkpoint's encoder cannot be loaded.
    """
    import torch

    check_code(name, settings, trust_remote_code=trust_remote_code)
    torch.set_num_threads(settings.threads)
    if name.startswith(CHECKPOINT_PREFIX):
        from perank_tasks.perank import PERank

        model = PERank.from_pretrained(
            name.removeprefix(CHECKPOINT_PREFIX),
            cache=settings.cache,
            trust_remote_code=trust_remote_code,
        )
        return _CheckpointEncoder(model)
    found = _sentence_transformer(name, settings.cache)
    # Code on the hub is fetched by transformers, from where the name says.
    source = found.name if repository_code(found.folder) and found.revision else str(found.folder)
    return _SentenceTransformer(source, trust_remote_code=trust_remote_code)


def check_code(name: str, settings: Settings, *, trust_remote_code: bool) -> None:
    """Refuse an embedder that is Python code of its repository, unless that is trusted.

    Transformers would build some without it and without a word, as another architecture.

    Raises:
        ConfigError: it brings code, and `trust_remote_code` is false.
    """
    code = repository_code(_config_folder(name, settings.cache))
    if code and not trust_remote_code:
        raise ConfigError(
            f"The embedder {name!r} is Python code of its own repository ({code}), which is not "
            "run unless you ask: set trust_remote_code if you trust its author."
        )


class _SentenceTransformer:
    """Any sentence-transformers model, at its own maximum length and pooling."""

    def __init__(self, source: str, *, trust_remote_code: bool):
        from sentence_transformers import SentenceTransformer

        from perank_tasks.models.products import replace_linears

        self.model = SentenceTransformer(source, trust_remote_code=trust_remote_code)
        self.model.eval()
        replace_linears(self.model)
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
    # A sentence-transformers model's pooling and maximum length are in its folder, so in its hash.
    if ModelVariant.parse(name):
        # Its own files name the versions of the libraries that cut it; its vectors follow from
        # the model and the cut.
        return (("name", name), ("content", str(find_model(name).revision)[:16]))
    content = content_hash(_config_folder(name, cache_folder))
    if not name.startswith(CHECKPOINT_PREFIX):
        return (("name", name), ("content", content))
    summary = _checkpoint(name, cache_folder)
    return (
        ("name", name),
        ("content", summary.hash),
        ("encoder", content),
        ("pooling", summary.encoder.pooling),
    )


def _checkpoint(name: str, cache_folder: Path) -> "CheckpointSummary":
    from perank_tasks.perank.checkpoint_config import summarize_checkpoint

    return summarize_checkpoint(name.removeprefix(CHECKPOINT_PREFIX), cache=cache_folder)


def _config_folder(name: str, cache_folder: Path) -> Path:
    """Where an embedder's configuration and tokenizer lie; a checkpoint's may hold the weights."""
    if not name.startswith(CHECKPOINT_PREFIX):
        return _sentence_transformer(name, cache_folder).folder
    encoder = _checkpoint(name, cache_folder).encoder
    return encoder.folder or resolve_model(encoder.name, cache=cache_folder).folder


def _sentence_transformer(name: str, cache_folder: Path) -> ResolvedModel:
    model = resolve_model(name, cache=cache_folder)
    modules = model.folder / "modules.json"
    if not modules.is_file():
        raise ConfigError(
            f"The embedder {name!r} ({model.folder}) is no sentence-transformers model: it has no "
            f"modules.json. Write {name}?pooling=mean, or another rule, to make one of it."
        )
    return model
