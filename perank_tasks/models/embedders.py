"""sentence-transformers models: texts in, L2-normalised float32 vectors out.

A model is an embedded name (`all-minilm-l6-v2`), a sentence-transformers folder or hub id, either
with options behind a `?` (`all-minilm-l6-v2?layers=3`, `smollm2-135m-instruct?pooling=mean`: see
`variants`). `perank.embedders` adds the encoder inside a PE-Rank checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from perank_tasks.errors import ConfigError, EmbeddingError
from perank_tasks.models.find import ResolvedModel, resolve_model
from perank_tasks.models.variants import repository_code
from perank_tasks.support.files import what_lies_instead

BATCH_ON_CPU, BATCH_ON_GPU = 16, 128


class Embedder(Protocol):
    """A loaded embedder."""

    dimension: int
    device: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32, each row of norm 1."""


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
        replace_linears(self.model)
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self.device = str(self.model.device)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.model.encode(
            list(texts),
            batch_size=BATCH_ON_CPU if self.device == "cpu" else BATCH_ON_GPU,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
