"""What an embedder is, said without loading it: no torch here."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The embedder whose vectors a checkpoint expects, L2-normalised.

    `name` is what the checkpoint's configuration says: an embedded model's name, a folder or
    a hub id; `folder` is where that is a folder on this machine. `revision`, where it is known,
    is what `resolve_model` calls the embedder's revision.
    """

    name: str
    pooling: str
    embedding_size: int
    folder: Path | None = None
    revision: str | None = None
