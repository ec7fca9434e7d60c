"""Embedders by name: texts in, L2-normalised float32 vectors out.

A name is a sentence-transformers model's, see `models.embedders`, or `checkpoint:<name or folder>`
for the encoder inside a PE-Rank checkpoint. `identify` says what it is without loading it, for
keys; `load` makes it ready to encode.
"""

from functools import cache
from pathlib import Path

from perank_tasks.errors import ConfigError
from perank_tasks.models.embedders import (
    Embedder,
    SentenceTransformerEmbedder,
    find_sentence_transformer,
)
from perank_tasks.models.find import content_hash, find_model, resolve_model
from perank_tasks.models.variants import ModelVariant, repository_code
from perank_tasks.perank.checkpoint_config import CheckpointSummary, summarize_checkpoint
from perank_tasks.settings import Settings

__all__ = ["CHECKPOINT_PREFIX", "Embedder", "check_code", "identify", "load"]

CHECKPOINT_PREFIX = "checkpoint:"


@cache
def identify(name: str, settings: Settings) -> dict[str, str | int]:
    """Everything about an embedder that changes its vectors: part of the artifact's key."""
    # Cached for the process: it reads every byte of the model's files.
    # A sentence-transformers model's pooling and maximum length are in its folder, so in its hash.
    if ModelVariant.parse(name):
        # Its own files name the versions of the libraries that cut it; its vectors follow from
        # the model and the cut.
        return {"name": name, "content": str(find_model(name).revision)[:16]}
    content = content_hash(_config_folder(name, settings.cache))
    if not name.startswith(CHECKPOINT_PREFIX):
        return {"name": name, "content": content}
    summary = _checkpoint(name, settings.cache)
    pooling = summary.encoder.pooling
    return {"name": name, "content": summary.hash, "encoder": content, "pooling": pooling}


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
    if not name.startswith(CHECKPOINT_PREFIX):
        model = find_sentence_transformer(name, cache=settings.cache)
        return SentenceTransformerEmbedder(model, trust_remote_code=trust_remote_code)
    from perank_tasks.perank import PERank

    return PERank.from_pretrained(
        name.removeprefix(CHECKPOINT_PREFIX),
        cache=settings.cache,
        trust_remote_code=trust_remote_code,
    ).own_encoder


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


def _checkpoint(name: str, cache_folder: Path) -> CheckpointSummary:
    return summarize_checkpoint(name.removeprefix(CHECKPOINT_PREFIX), cache=cache_folder)


@cache
def _config_folder(name: str, cache_folder: Path) -> Path:
    """Where an embedder's configuration and tokenizer lie; a checkpoint's may hold the weights."""
    if not name.startswith(CHECKPOINT_PREFIX):
        return find_sentence_transformer(name, cache=cache_folder).folder
    encoder = _checkpoint(name, cache_folder).encoder
    return encoder.folder or resolve_model(encoder.name, cache=cache_folder).folder
