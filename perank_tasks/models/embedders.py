"""sentence-transformers models: texts in, L2-normalised float32 vectors out.

A model is an embedded name (`all-minilm-l6-v2`), a sentence-transformers folder or hub id, either
with options behind a `?` (`all-minilm-l6-v2?layers=3`, `smollm2-135m-instruct?pooling=mean`: see
`variants`). `perank.embedders` adds the encoder inside a PE-Rank checkpoint.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from perank_tasks.errors import ConfigError, EmbeddingError
from perank_tasks.models.find import ResolvedModel, resolve_model
from perank_tasks.models.variants import ModelVariant, repository_code
from perank_tasks.support.files import what_lies_instead

TOKENS_ON_CPU, TOKENS_ON_GPU = 1_024, 65_536
"""Tokens of a batch, padding included. A core is fastest where a layer's activations stay in its
cache: a third faster, on bge-small, than with 16 texts of any length."""

Advance = Callable[[int], None]


def uncounted(_: int) -> None:
    """An `advance` that nobody looks at."""


class Embedder(Protocol):
    """A loaded embedder."""

    dimension: int
    device: str

    @property
    def max_length(self) -> int | None:
        """Tokens of a text that it reads; None: all."""

    def encode(
        self, texts: Sequence[str], *, queries: bool = False, advance: Advance = uncounted
    ) -> np.ndarray:
        """(n, dimension) float32, each row of norm 1.

        Args:
            queries: whether they are queries.
            advance: is told after each batch of how many texts that was.
        """

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """Which of the texts are longer than it reads."""


def token_counts(texts: Sequence[str], tokenizer: Any) -> np.ndarray:
    """(n,) int64: how many tokens each text has, special ones included."""
    # Not verbose: it would warn of the first text that is longer than the model reads.
    tokens = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"] if texts else []
    return np.array([len(of_text) for of_text in tokens], np.int64)


def in_batches(
    texts: Sequence[str], tokenizer: Any, max_length: int | None, device: str
) -> list[np.ndarray]:
    """The texts' numbers in batches of like lengths, each what the device takes at once.

    On a CPU those of a batch have as many tokens each: nothing is padded, and no bit of a vector
    depends on the texts beside it. The batch of the longest comes first, as memory may not do; the
    others by chance, so that the time left can be told from the texts done.
    """
    counts = np.minimum(token_counts(texts, tokenizer), max_length or np.inf)
    left = np.argsort(-counts, kind="stable")
    most = TOKENS_ON_CPU if device == "cpu" else TOKENS_ON_GPU
    batches = []
    while len(left):
        batch = left[: int(most // counts[left[0]]) or 1]
        if device == "cpu":
            batch = batch[counts[batch] == counts[batch[0]]]
        batches.append(batch)
        left = left[len(batch) :]
    others = batches[1:]
    random.Random(0).shuffle(others)
    return batches[:1] + others


def check_unit_vectors(vectors: np.ndarray, names: Sequence[str]) -> None:
    """Refuse what an embedder returned of the texts of these names, unless it is of length 1.

    Raises:
        EmbeddingError: names the first texts whose vectors are not.
    """
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(bad):
        named = ", ".join(f"{names[i]} (norm {norms[i]:.4g})" for i in bad[:5])
        raise EmbeddingError(
            f"The embedder returned {len(bad)} of {len(vectors)} vectors that are not unit "
            f"vectors: {named}. Look at these texts and at the model's files; nothing was written."
        )


def find_sentence_transformer(name: str, *, cache: Path) -> ResolvedModel:
    """The folder of a sentence-transformers model.

    Raises:
        ConfigError: no such model (close names are offered), it is a plain transformer, or a file
            of it was not downloaded.
    """
    model = resolve_model(name, cache=cache)
    for path in sorted(model.folder.rglob("*.*")):
        if path.is_file() and (placeholder := what_lies_instead(path)):
            raise ConfigError(f"The embedder {name!r} cannot be loaded: {path} {placeholder}.")
    if not (model.folder / "modules.json").is_file():
        raise ConfigError(
            f"The embedder {name!r} ({model.folder}) is no sentence-transformers model: it has no "
            f"modules.json. Write {name}?pooling=mean, or another rule, to make one of it."
        )
    return model


class SentenceTransformerEmbedder:
    """Any sentence-transformers model, at its own maximum length and pooling.

    Of prompts that it brings, those for queries and passages are read by a variant with
    `prompts=own` only.

    Args:
        trust_remote_code: run Python code that the model's repository brings.
    """

    def __init__(self, model: ResolvedModel, *, trust_remote_code: bool = False):
        from sentence_transformers import SentenceTransformer

        from perank_tasks.models.products import replace_linears
        from perank_tasks.models.quiet import without_bars

        # Code on the hub is fetched by transformers, from where the name says.
        from_hub = repository_code(model.folder) is not None and model.revision is not None
        source = model.name if from_hub else str(model.folder)
        with without_bars():
            self.model = SentenceTransformer(source, trust_remote_code=trust_remote_code)
        self.model.eval()
        variant = ModelVariant.parse(model.name)
        self.prompts = dict(self.model.prompts) if variant and variant.prompts else {}
        replace_linears(self.model, freeze=True)
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self.device = str(self.model.device)
        self.max_length = self.model.max_seq_length

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        return (token_counts(texts, self.model.tokenizer) > (self.max_length or np.inf)).tolist()

    def encode(
        self, texts: Sequence[str], *, queries: bool = False, advance: Advance = uncounted
    ) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        # A prompt is as long before every text.
        for batch in in_batches(texts, self.model.tokenizer, self.max_length, self.device):
            vectors[batch] = self.model.encode(
                [texts[i] for i in batch],
                prompt=self.prompts.get("query" if queries else "document") or None,
                batch_size=len(batch),
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            advance(len(batch))
        return vectors
