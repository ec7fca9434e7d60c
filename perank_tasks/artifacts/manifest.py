"""`manifest.json`: what an artifact holds, what it was made from, and by what."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from perank_tasks.artifacts.storage.base import File


@dataclass(frozen=True)
class Part(File):
    """One whole Parquet file of an artifact. `stats` is what its writer measured."""

    rows: int
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says."""

    reference: str
    created_at: str
    inputs: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, Any]
    provenance: dict[str, str]
    parts: list[Part]
    files: list[File] = field(default_factory=list)
    """Files of a library's own format, by their names in the artifact's folder."""

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """Read the file's content.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        value = json.loads(content)
        parts = [Part(**part) for part in value["parts"]]
        files = [File(**file) for file in value.get("files", [])]
        return cls(**{**value, "parts": parts, "files": files})

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()

    def parts_of(self, table: str) -> list[Part]:
        return [part for part in self.parts if part.name.rpartition("-")[0] == table]
