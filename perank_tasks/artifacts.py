"""Artifacts: folders `kind/collection/key/` that are whole or not there.

An artifact's key hashes everything its content depends on, so a key names a content.
It holds Parquet parts, `<table>-<shard>.parquet`, and is published by `manifest.json`,
which is written last: no manifest, no artifact. Parts are written under a temporary name
and renamed, so a part that is there is whole, and a stage that was killed goes on from
the parts it finds.

Between stages and tasks an artifact is named by its *reference*, `kind/collection/key`,
relative to the root, so that references are the same on every machine.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perank_tasks.config import stable_hash
from perank_tasks.errors import ArtifactError, StorageError
from perank_tasks.files import replacing, storage_errors

FORMAT_VERSION = 1
"""Part of every key: raise it when the meaning of any artifact's content changes."""

MANIFEST = "manifest.json"
_STATS = b"perank.stats"
_REMEDY = (
    "Nothing was published there. Free space or make the folder writable (PERANK_ROOT says where "
    "artifacts go), then run the same command again; finished parts are kept."
)


def artifact_key(**content: Any) -> str:
    """Sixteen hex digits from everything an artifact's content depends on."""
    return stable_hash({"format": FORMAT_VERSION, **content})


@dataclass(frozen=True)
class Part:
    """One whole file of an artifact. `stats` is what its writer measured."""

    name: str
    rows: int
    bytes: int
    sha256: str
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says: the content, what it was made from, and by what."""

    reference: str
    created_at: str
    inputs: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, Any]
    provenance: dict[str, str]
    parts: list[Part]

    def parts_of(self, table: str) -> list[Part]:
        return [part for part in self.parts if part.name.rpartition("-")[0] == table]


class Store:
    """All artifacts below one local root folder."""

    def __init__(self, root: Path):
        self.root = root

    def artifact(self, kind: str, collection: str, key: str) -> "Artifact":
        """The artifact of that name, published or not."""
        return Artifact(self, f"{kind}/{collection}/{key}")

    def open(self, reference: str) -> "Artifact":
        """A published artifact, which counts as used now.

        Raises:
            ArtifactError: it is not there, or was never finished.
        """
        artifact = Artifact(self, reference)
        if not artifact.use():
            raise ArtifactError(
                f"The artifact {reference} is not in {self.root} or was never finished. "
                "Run the stage that makes it again; it goes on from the parts that are whole."
            )
        return artifact

    def published(self, kind: str, collection: str) -> Iterator["Artifact"]:
        """Every published artifact of a kind, the newest first."""
        found = []
        for manifest in self.root.glob(f"{kind}/{collection}/[!.]*/{MANIFEST}"):
            artifact = Artifact(self, f"{kind}/{collection}/{manifest.parent.name}")
            try:
                found.append((artifact.manifest.created_at, artifact.reference, artifact))
            except ArtifactError:
                if artifact.is_published:
                    raise  # it is damaged, not removed meanwhile
        yield from (artifact for *_, artifact in sorted(found, reverse=True, key=lambda f: f[:2]))

    def collections(self, kind: str) -> list[str]:
        """The collections that have artifacts of a kind, in order."""
        return sorted(path.name for path in self.root.glob(f"{kind}/*/") if path.is_dir())

    def draft(self, kind: str, collection: str) -> "Artifact":
        """A nameless artifact, for content whose key is only known once it is written.

        `Artifact.publish` names it; `Artifact.discard` removes it.
        """
        return Artifact(self, f"{kind}/{collection}/.draft-{uuid.uuid4().hex[:12]}")


class Artifact:
    """One folder of parts. Methods that write leave nothing half-written behind."""

    def __init__(self, store: Store, reference: str):
        self.store = store
        self.reference = reference

    def __repr__(self) -> str:
        return f"Artifact({self.reference})"

    @property
    def folder(self) -> Path:
        return self.store.root / self.reference

    @property
    def is_published(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    @property
    def used_at(self) -> float:
        """When it was published or last used, in seconds since 1970; 0 where it is not there."""
        with suppress(OSError):
            return (self.folder / MANIFEST).stat().st_mtime
        return 0.0

    def use(self) -> bool:
        """Whether it is published; if so it counts as used now, and retention leaves it alone."""
        if self.is_published:
            with suppress(OSError):  # somebody may read who may not write
                os.utime(self.folder / MANIFEST)
        return self.is_published

    @property
    def manifest(self) -> Manifest:
        """Raises ArtifactError where the manifest is missing or unreadable."""
        path = self.folder / MANIFEST
        try:
            value = json.loads(path.read_text())
            return Manifest(**{**value, "parts": [Part(**part) for part in value["parts"]]})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error}). Remove the folder {self.folder} and run the "
                "stage that makes it again."
            ) from error

    def has_part(self, table: str, shard: int = 0) -> bool:
        """Whether that part is there; a part that is there is whole."""
        return self._part_path(table, shard).is_file()

    def write_part(
        self,
        table: str,
        rows: pa.Table | Iterable[pa.RecordBatch],
        schema: pa.Schema,
        *,
        shard: int = 0,
        stats: Callable[[], dict[str, Any]] | None = None,
    ) -> int:
        """Write one part, whole or not at all, and return its number of rows.

        Args:
            rows: a table, or batches, which are streamed.
            stats: called when the rows are written; its result is kept beside them and
                ends up in the manifest, so that a resumed run keeps the first timings.

        Raises:
            StorageError: the storage is full, read-only or gone.
            ArtifactError: the rows do not fit the schema.
        """
        batches = rows.cast(schema).to_batches() if isinstance(rows, pa.Table) else rows
        count = 0
        with (
            replacing(self._part_path(table, shard), _REMEDY) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for batch in batches:
                if not batch.schema.equals(schema):
                    raise ArtifactError(
                        f"Rows for {self.reference} do not fit the schema of {table}: expected "
                        f"{schema.names}, found {batch.schema}"
                    )
                writer.write_batch(batch)
                count += batch.num_rows
            if stats:
                writer.add_key_value_metadata({_STATS: json.dumps(stats()).encode()})
        return count

    @contextmanager
    def writing(self, folder: str) -> Iterator[Path]:
        """A subfolder to fill with files of a library's own format; only in a draft."""
        path = self.folder / folder
        with storage_errors(path, _REMEDY):
            path.mkdir(parents=True)
            yield path

    def publish(
        self,
        *,
        expected: dict[str, int],
        inputs: dict[str, str],
        config: dict[str, Any],
        counts: dict[str, Any],
        provenance: dict[str, str],
        key: str | None = None,
    ) -> str:
        """Write the manifest and return the reference. Publishing twice changes nothing.

        Args:
            expected: for each table, how many shards there must be.
            key: what a draft is to be called. It appears whole, in one step; where that
                artifact is published already, that one stays and the draft goes.

        Raises:
            ArtifactError: parts are missing; names them.
        """
        final = self if key is None else self._sibling(key)
        if final.use():
            if final is not self:
                self.discard()
            return final.reference
        wanted = [(table, shard) for table, shards in expected.items() for shard in range(shards)]
        missing = [f"{t}-{s:04d}" for t, s in wanted if not self.has_part(t, s)]
        if missing:
            raise ArtifactError(
                f"{self.reference} lacks {len(missing)} of {len(wanted)} parts: "
                f"{', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}. "
                "Run the stage again; the parts that are there are kept."
            )
        manifest = Manifest(
            reference=final.reference,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            inputs=inputs,
            config=config,
            counts=counts,
            provenance=provenance,
            parts=[self._describe(table, shard) for table, shard in wanted],
        )
        with replacing(self.folder / MANIFEST, _REMEDY) as temporary:
            temporary.write_text(json.dumps(asdict(manifest), indent=1, ensure_ascii=False))
        if final is not self:
            self._move(final)
        return final.reference

    def part_stats(self, table: str, shard: int) -> dict[str, Any]:
        """What the writer of a part measured."""
        metadata = pq.read_metadata(self._part_path(table, shard)).metadata or {}
        return json.loads(metadata.get(_STATS, b"{}"))

    def read(
        self,
        table: str,
        columns: list[str] | None = None,
        where: pc.Expression | None = None,
        shard: int | None = None,
    ) -> pa.Table:
        """Rows of one table, parts in order; `shard` for a single part."""
        return self.dataset(table, shard).to_table(columns=columns, filter=where)

    def dataset(self, table: str, shard: int | None = None) -> ds.Dataset:
        """One table as a dataset to scan.

        Raises:
            ArtifactError: the table or part is not there.
        """
        if shard is not None:
            paths = [self._part_path(table, shard)]
        else:
            paths = [self.folder / f"{part.name}.parquet" for part in self.manifest.parts_of(table)]
        lost = [path.name for path in paths if not path.is_file()]
        if lost or not paths:
            raise ArtifactError(
                f"{self.reference} has no {', '.join(lost) or f'table {table!r}'}. "
                f"Remove {self.folder} and run the stage that makes it again."
            )
        return ds.dataset([str(path) for path in paths], format="parquet")

    def discard(self) -> None:
        """Remove the folder and everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove a published artifact: gone in one step, whoever looks meanwhile.

        Raises:
            StorageError: the storage refused; the artifact is as it was.
        """
        kind, collection, _ = self.reference.split("/")
        gone = self.store.draft(kind, collection)
        with storage_errors(self.folder, _REMEDY):
            self.folder.rename(gone.folder)
        gone.discard()

    def _sibling(self, key: str) -> "Artifact":
        return Artifact(self.store, f"{self.reference.rpartition('/')[0]}/{key}")

    def _move(self, final: "Artifact") -> None:
        """Take the final name, unless another process has published under it meanwhile."""
        try:
            self.folder.rename(final.folder)
        except OSError as error:
            if not final.is_published:
                raise StorageError(
                    f"{self.folder} cannot be renamed to {final.folder}: {error.strerror}. "
                    "Nothing was published. Remove what is in the way and run it again."
                ) from error
            self.discard()

    def _part_path(self, table: str, shard: int) -> Path:
        return self.folder / f"{table}-{shard:04d}.parquet"

    def _describe(self, table: str, shard: int) -> Part:
        path = self._part_path(table, shard)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return Part(
            name=path.stem,
            rows=pq.read_metadata(path).num_rows,
            bytes=path.stat().st_size,
            sha256=sha256,
            stats=self.part_stats(table, shard),
        )
