"""`manifest.json`: what an artifact holds, what it was made from, and by what."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from perank_tasks.artifacts.storage.base import File


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says."""

    reference: str
    created_at: str
    inputs: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, Any]
    provenance: dict[str, str]
    files: list[File]
    """The parts, and files of a library's own format."""

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """Read the file's content.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        value = json.loads(content)
        return cls(**{**value, "files": [File(**file) for file in value["files"]]})

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()

    def parts_of(self, table: str) -> list[str]:
        """Names of the table's parts, in order."""
        return [file.name for file in self.files if file.name.rpartition("-")[0] == table]
