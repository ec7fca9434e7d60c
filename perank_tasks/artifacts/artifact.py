"""One artifact: a folder of Parquet parts, written part by part, published, read.

In and out: Arrow tables and batches. `Store` says which artifacts there are.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from perank_tasks.artifacts.manifest import Manifest
from perank_tasks.artifacts.storage.base import MANIFEST, REMEDY, Storage
from perank_tasks.errors import ArtifactError, StorageError
from perank_tasks.support.files import file_sha256, storage_errors

if TYPE_CHECKING:
    from perank_tasks.artifacts.store import Store

T = TypeVar("T")

_STATS = b"perank.stats"


class Artifact:
    """One folder of parts. Methods that write leave nothing half-written behind.

    Args:
        storage: where it lies, if not in the store's own: a draft of an artifact on S3.
    """

    def __init__(self, store: "Store", reference: str, storage: Storage | None = None):
        self.store = store
        self.reference = reference
        self.storage = storage or store.storage
        self._manifest: Manifest | None = None

    def __repr__(self) -> str:
        return f"Artifact({self.reference})"

    @property
    def folder(self) -> Path:
        """Where it is on this machine; StorageError where it is not, but on S3."""
        root = self.storage.root
        if isinstance(root, Path):
            return root / self.reference
        raise StorageError(
            f"{self.place} is not on this machine. `Artifact.local` fetches what a library must "
            "have in a folder."
        )

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return str(self.storage.root / self.reference)

    @property
    def is_published(self) -> bool:
        return self.storage.stat(self._key(MANIFEST)) is not None

    @property
    def used_at(self) -> float:
        """When it was published or last used, in seconds since 1970; 0 where it is not there.

        On S3, use is noted once an hour at most.
        """
        return self.storage.used_at(self._key(MANIFEST))

    def use(self) -> bool:
        """Whether it is published; if so it counts as used now, and retention leaves it alone."""
        if not self.is_published:
            return False
        self.storage.touch(self._key(MANIFEST))
        return True

    def load(self) -> Manifest | None:
        """The manifest, which never changes; None where there is none.

        Raises:
            ArtifactError: it is unreadable.
        """
        content = None if self._manifest else self.storage.read(self._key(MANIFEST))
        if content is not None:
            try:
                self._manifest = Manifest(**json.loads(content))
            except (ValueError, TypeError) as error:
                raise self._broken(f"{self.place}/{MANIFEST} cannot be read ({error})") from error
        return self._manifest

    @property
    def manifest(self) -> Manifest:
        """Raises ArtifactError where the manifest is missing or unreadable."""
        manifest = self.load()
        if manifest is None:
            raise self._broken(f"{self.place} has no {MANIFEST}")
        return manifest

    def _broken(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{what}. Remove the folder {self.place} and run the stage that makes it again; "
            "everything else is reused."
        )

    def has_part(self, table: str, shard: int = 0) -> bool:
        """Whether that part is there; a part that is there is whole."""
        return self.storage.stat(self._key(_part(table, shard))) is not None

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
            stats: called when the rows are written; its result is kept beside them, so that
                a resumed run keeps the first timings.

        Raises:
            StorageError: the storage is full, read-only or gone.
            ValueError: the rows do not fit the schema.
        """
        batches = rows.cast(schema).to_batches() if isinstance(rows, pa.Table) else rows
        count = 0
        with self.storage.writing(self._key(_part(table, shard))) as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    count += batch.num_rows
                if stats:
                    writer.add_key_value_metadata({_STATS: json.dumps(stats()).encode()})
            if self.is_published:
                file.unlink()
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
        files = self.manifest.files.items()
        inside = {name: sha256 for name, sha256 in files if name.startswith(f"{folder}/")}
        path = self.storage.fetch(self.reference, inside) / folder
        if not path.is_dir():
            raise self._broken(f"{self.reference} has no folder {folder}")
        return path

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
        final = self
        if key is not None:
            final = Artifact(self.store, f"{self.reference.rpartition('/')[0]}/{key}")
        if final.use():
            return final.reference
        parts = [_part(table, shard) for table, n in expected.items() for shard in range(n)]
        names = self.storage.names(self.reference)
        missing = [part.removesuffix(".parquet") for part in parts if part not in names]
        if missing:
            raise ArtifactError(
                f"{self.reference} lacks {len(missing)} of {len(parts)} parts: "
                f"{', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}. "
                "Run the stage again; the parts that are there are kept."
            )
        if final is not self:
            final.storage.bring(self.folder, final.reference)
        manifest = Manifest(
            reference=final.reference,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            inputs=inputs,
            config=config,
            counts=counts,
            provenance=provenance,
            parts=parts,
            files={name: file_sha256(self.folder / name) for name in names if "/" in name},
        )
        self.storage.create(self._key(MANIFEST), manifest.encode())
        if final is not self:
            final.storage.take(self.folder, final.reference)
        return final.reference

    def part_stats(self, table: str, shard: int) -> dict[str, Any]:
        """What the writer of a part measured."""
        footer = self.storage.ask(
            self._key(_part(table, shard)),
            lambda system, path: pq.read_metadata(path, filesystem=system),
        )
        return json.loads((footer.metadata or {}).get(_STATS, b"{}"))

    def read(
        self,
        table: str,
        columns: list[str] | None = None,
        where: pc.Expression | None = None,
        shard: int | None = None,
    ) -> pa.Table:
        """Rows of one table, parts in order; `shard` for a single part."""
        data = self.dataset(table, shard)
        return self._ask(lambda *_: data.to_table(columns=columns, filter=where))

    def dataset(self, table: str, shard: int | None = None) -> ds.Dataset:
        """One table as a dataset to scan.

        Raises:
            ArtifactError: the table or part is not there, or damaged.
        """
        if shard is not None:
            names = [_part(table, shard)]
            missing = [] if self.has_part(table, shard) else names
        else:
            names = self.manifest.parts_of(table)
            missing = sorted({*names} - {*self.storage.names(self.reference)})
        if missing or not names:
            what = ", ".join(missing) or f"table {table!r}"
            raise self._broken(f"{self.reference} has no {what}")

        def opened(system: pafs.FileSystem, path: str) -> ds.Dataset:
            return ds.dataset([f"{path}/{n}" for n in names], filesystem=system, format="parquet")

        return self._ask(opened)

    def _ask(self, request: Callable[[pafs.FileSystem, str], T]) -> T:
        """What pyarrow reads in the folder; says of a file that is no Parquet whose it is."""
        try:
            return self.storage.ask(self.reference, request)
        except pa.ArrowInvalid as error:
            raise self._broken(f"{self.reference} holds a damaged file: {error}") from error

    def discard(self) -> None:
        """Remove the folder and everything in it, if that can be done."""
        with suppress(StorageError):
            self.remove()

    def remove(self) -> None:
        """Remove a published artifact: gone in one step, whoever looks meanwhile.

        Raises:
            StorageError: the storage refused; the artifact is as it was.
        """
        self.storage.remove(self.reference)

    def _key(self, name: str) -> str:
        return f"{self.reference}/{name}"


def _part(table: str, shard: int) -> str:
    """The name of a part's file."""
    return f"{table}-{shard:04d}.parquet"
