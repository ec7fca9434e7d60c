"""Artifacts: folders `kind/collection/key/` that are whole or not there.

An artifact's key hashes everything its content depends on, so a key names a content.
It holds Parquet parts, `<table>-<shard>.parquet`, perhaps files of a library's own format in a
subfolder, and is published by `manifest.json`, which is written last: no manifest, no artifact.
A part appears in one step, so one that is there is whole, and a stage that was killed goes on
from the parts it finds.

Between stages and tasks an artifact is named by its *reference*, `kind/collection/key`,
relative to the root, so that references are the same on every machine. The root is a local
folder or a prefix of an S3 bucket; `perank_tasks.artifacts.storage` knows the difference.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perank_tasks.artifacts.storage import MANIFEST, REMEDY, Contents, File, Storage
from perank_tasks.artifacts.storage.local import LocalStorage
from perank_tasks.config import stable_hash
from perank_tasks.errors import ArtifactError
from perank_tasks.settings import Settings
from perank_tasks.support.files import storage_errors
from perank_tasks.support.s3_uri import SCHEME, S3Uri

FORMAT_VERSION = 1
"""Part of every key: raise it when the meaning of any artifact's content changes."""

_STATS = b"perank.stats"


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
    files: list[File] = field(default_factory=list)
    """Files of a library's own format, by their names in the artifact's folder."""

    def parts_of(self, table: str) -> list[Part]:
        return [part for part in self.parts if part.name.rpartition("-")[0] == table]


class Store:
    """All artifacts below one root, a local folder or a prefix of an S3 bucket."""

    def __init__(self, root: str | Path):
        """Open a folder or an `s3://bucket/prefix`.

        Raises:
            ConfigError: the URI is malformed.
        """
        text = str(root)
        is_s3 = text.startswith(SCHEME)
        self.root = S3Uri.parse(text, "PERANK_ROOT") if is_s3 else Path(text).absolute()
        self.storage = _storage(self.root)

    def check(self) -> None:
        """Look whether the root can be reached, before work begins.

        Raises:
            StorageError: there is no such bucket, access is denied, or nothing answers.
        """
        self.storage.check()

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
        folder = f"{kind}/{collection}"
        artifacts = [Artifact(self, f"{folder}/{key}") for key in self.storage.folders(folder)]
        contents = self.storage.read([artifact.manifest_key for artifact in artifacts])
        found = []
        for artifact, content in zip(artifacts, contents, strict=True):
            if content is not None:
                found.append((artifact.parse(content).created_at, artifact.reference, artifact))
        yield from (artifact for *_, artifact in sorted(found, reverse=True, key=lambda f: f[:2]))

    def collections(self, kind: str) -> list[str]:
        """The collections that have artifacts of a kind, in order."""
        return self.storage.folders(kind)

    def contents(self, kind: str) -> Iterator[Contents]:
        """What lies in every artifact's folder of a kind, finished or not."""
        return self.storage.contents(kind)

    @contextmanager
    def draft(self, kind: str, collection: str) -> Iterator["Artifact"]:
        """A nameless artifact, for content whose key is only known once it is written.

        It belongs to this process: on S3 it lies on this machine until it is published.
        `Artifact.publish` names it; one that the block leaves unpublished is removed.
        """
        reference = f"{kind}/{collection}/.draft-{uuid.uuid4().hex[:12]}"
        draft = Artifact(self, reference, self.storage.drafts())
        try:
            yield draft
        finally:
            draft.discard()


def _storage(root: Path | S3Uri) -> Storage:
    if isinstance(root, Path):
        return LocalStorage(root)
    from perank_tasks.artifacts.storage.s3 import S3Storage  # boto3 takes a third of a second

    return S3Storage(root, Settings.from_environment().cache)


class Artifact:
    """One folder of parts. Methods that write leave nothing half-written behind."""

    def __init__(self, store: Store, reference: str, storage: Storage | None = None):
        self.store = store
        self.reference = reference
        self.storage = storage or store.storage
        self._manifest: Manifest | None = None

    def __repr__(self) -> str:
        return f"Artifact({self.reference})"

    @property
    def folder(self) -> Path:
        """Where it is on this machine; StorageError where it is not, but on S3."""
        return self.storage.path(self.reference)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.storage.name(self.reference)

    @property
    def manifest_key(self) -> str:
        """The manifest's key in the storage."""
        return f"{self.reference}/{MANIFEST}"

    @property
    def is_published(self) -> bool:
        return self.storage.stat(self.manifest_key) is not None

    @property
    def used_at(self) -> float:
        """When it was published or last used, in seconds since 1970; 0 where it is not there.

        On S3, use is noted once an hour at most.
        """
        return self.storage.used_at(self.manifest_key)

    def use(self) -> bool:
        """Whether it is published; if so it counts as used now, and retention leaves it alone."""
        found = self.is_published
        if found:
            self.storage.touch(self.manifest_key)
        return found

    @property
    def manifest(self) -> Manifest:
        """Raises ArtifactError where the manifest is missing or unreadable."""
        if self._manifest is None:
            (content,) = self.storage.read([self.manifest_key])
            if content is None:
                raise self._unreadable("there is no such file")
            self._manifest = self.parse(content)
        return self._manifest

    def parse(self, content: bytes) -> Manifest:
        """Take the content of its manifest, which never changes.

        Raises:
            ArtifactError: it is none.
        """
        try:
            value = json.loads(content)
            parts = [Part(**part) for part in value["parts"]]
            files = [File(**file) for file in value.get("files", [])]
            self._manifest = Manifest(**{**value, "parts": parts, "files": files})
        except (ValueError, TypeError, KeyError) as error:
            raise self._unreadable(error) from error
        return self._manifest

    def _unreadable(self, why: object) -> ArtifactError:
        return ArtifactError(
            f"{self.storage.name(self.manifest_key)} cannot be read ({why}). Remove the folder "
            f"{self.place} and run the stage that makes it again."
        )

    def has_part(self, table: str, shard: int = 0) -> bool:
        """Whether that part is there; a part that is there is whole."""
        return self.storage.stat(self._part_key(table, shard)) is not None

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

        One that is there is replaced, unless the artifact was published meanwhile.

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
        key = self._part_key(table, shard)
        with self.storage.scratch(key) as scratch:
            with pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
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
            if not self.is_published:
                self.storage.put(scratch, key)
        return count

    @contextmanager
    def writing(self, folder: str) -> Iterator[Path]:
        """A subfolder to fill with files of a library's own format; only in a draft."""
        path = self.folder / folder
        with storage_errors(path, REMEDY):
            path.mkdir(parents=True)
            yield path

    def local(self, folder: str) -> Path:
        """A subfolder of a published artifact as one on this machine, fetched if need be.

        Raises:
            ArtifactError: there is no such subfolder, or a file is not what the manifest says.
        """
        files = [file for file in self.manifest.files if file.name.startswith(f"{folder}/")]
        found = self.storage.fetch(self.reference, files) / folder
        if not found.is_dir():
            raise ArtifactError(
                f"{self.reference} has no folder {folder}. Remove {self.place} and run the stage "
                "that makes it again."
            )
        return found

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
                artifact is published already, that one stays.

        Of two who publish the same at once, one does, and both get its reference.

        Raises:
            ArtifactError: parts are missing; names them.
        """
        final = self if key is None else self._sibling(key)
        if final.use():
            return final.reference
        content: dict[str, Any] = {
            "inputs": inputs,
            "config": config,
            "counts": counts,
            "provenance": provenance,
        }
        if self.storage is not final.storage:  # a draft that lies apart
            self._check_parts(expected)
            final.storage.take(self.folder, final.reference)
            return final.publish(expected=expected, **content)
        sizes = self._check_parts(expected)
        wanted = [(table, shard) for table, shards in expected.items() for shard in range(shards)]
        others = [name for name in sizes if "/" in name]
        manifest = Manifest(
            reference=final.reference,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            **content,
            parts=self.storage.map(lambda part: self._describe(*part, sizes), wanted),
            files=self.storage.map(
                lambda name: File(name, sizes[name], self._sha256(name)), others
            ),
        )
        text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
        self.storage.create(self.manifest_key, text.encode())
        if final is not self:
            final.storage.take(self.folder, final.reference)
        return final.reference

    def _check_parts(self, expected: dict[str, int]) -> dict[str, int]:
        """Bytes of every file by its name; ArtifactError where a part is not among them."""
        sizes = self.storage.sizes(self.reference)
        wanted = [f"{table}-{s:04d}" for table, shards in expected.items() for s in range(shards)]
        missing = [name for name in wanted if f"{name}.parquet" not in sizes]
        if missing:
            raise ArtifactError(
                f"{self.reference} lacks {len(missing)} of {len(wanted)} parts: "
                f"{', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}. "
                "Run the stage again; the parts that are there are kept."
            )
        return sizes

    def part_stats(self, table: str, shard: int) -> dict[str, Any]:
        """What the writer of a part measured."""
        return _stats(self._footer(table, shard))

    def read(
        self,
        table: str,
        columns: list[str] | None = None,
        where: pc.Expression | None = None,
        shard: int | None = None,
    ) -> pa.Table:
        """Rows of one table, parts in order; `shard` for a single part."""
        data = self.dataset(table, shard)
        with self._whole():
            return self.storage.scanned(
                self.reference, lambda: data.to_table(columns=columns, filter=where)
            )

    def batches(
        self,
        table: str,
        columns: list[str] | None = None,
        where: pc.Expression | None = None,
        shard: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The same rows a batch at a time, for tables that need not fit into memory."""
        data = self.dataset(table, shard)
        with self.storage.reading(self.reference):
            yield from data.to_batches(columns=columns, filter=where)

    def dataset(self, table: str, shard: int | None = None) -> ds.Dataset:
        """One table as a dataset to scan.

        Raises:
            ArtifactError: the table or part is not there, or damaged.
        """
        if shard is not None:
            names = [f"{table}-{shard:04d}.parquet"]
            lost = [] if self.has_part(table, shard) else names
        else:
            names = [f"{part.name}.parquet" for part in self.manifest.parts_of(table)]
            there = self.storage.sizes(self.reference)
            lost = [name for name in names if name not in there]
        if lost or not names:
            raise ArtifactError(
                f"{self.reference} has no {', '.join(lost) or f'table {table!r}'}. "
                f"Remove {self.place} and run the stage that makes it again."
            )
        with self._whole():
            return self.storage.parquet([f"{self.reference}/{name}" for name in names])

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Say of a file that is no Parquet whose it is and what to do."""
        try:
            yield
        except pa.ArrowInvalid as error:
            raise ArtifactError(
                f"{self.reference} holds a damaged file: {error}. Remove {self.place} and run the "
                "night again: it is made again, and everything else is found."
            ) from error

    def discard(self) -> None:
        """Remove the folder and everything in it."""
        self.storage.discard(self.reference)

    def remove(self) -> None:
        """Remove a published artifact: gone in one step, whoever looks meanwhile.

        Raises:
            StorageError: the storage refused; the artifact is as it was.
        """
        self.storage.remove(self.reference)

    def _sibling(self, key: str) -> "Artifact":
        return Artifact(self.store, f"{self.reference.rpartition('/')[0]}/{key}")

    def _part_key(self, table: str, shard: int) -> str:
        return f"{self.reference}/{table}-{shard:04d}.parquet"

    def _footer(self, table: str, shard: int) -> pq.FileMetaData:
        return self.storage.footer(self._part_key(table, shard))

    def _sha256(self, name: str) -> str:
        return self.storage.sha256(f"{self.reference}/{name}")

    def _describe(self, table: str, shard: int, sizes: dict[str, int]) -> Part:
        footer = self._footer(table, shard)
        name = f"{table}-{shard:04d}"
        return Part(
            name=name,
            rows=footer.num_rows,
            bytes=sizes[f"{name}.parquet"],
            sha256=self._sha256(f"{name}.parquet"),
            stats=_stats(footer),
        )


def _stats(footer: pq.FileMetaData) -> dict[str, Any]:
    return json.loads((footer.metadata or {}).get(_STATS, b"{}"))
