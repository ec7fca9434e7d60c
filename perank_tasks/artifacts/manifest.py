"""`manifest.json`: what an artifact holds, what it was made from, and by what."""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says."""

    reference: str
    created_at: str
    inputs: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, Any]
    provenance: dict[str, str]
    parts: list[str]
    """Names of its Parquet files."""
    files: dict[str, str]
    """{name: SHA-256} of files of a library's own format: `bm25/vocab.index.json`."""

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()

    def parts_of(self, table: str) -> list[str]:
        """Names of the table's parts, in order."""
        return [name for name in self.parts if name.rpartition("-")[0] == table]
