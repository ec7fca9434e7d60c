"""A root that is a local folder.

Files are written under a temporary name beside their own and renamed; a draft is a hidden folder
beside the artifacts of its kind and is renamed, too. An artifact's age is its manifest's.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perank_tasks.artifacts.storage import MANIFEST, REMEDY, File, Stat, Storage
from perank_tasks.errors import StorageError
from perank_tasks.support.files import replacing, storage_errors


class LocalStorage(Storage):
    """See `perank_tasks.artifacts.storage.Storage`."""

    root: Path

    def __init__(self, root: Path):
        self.root = root

    def check(self) -> None:
        """A folder that is not there yet is made with the first file."""

    def stat(self, key: str) -> Stat | None:
        path = self.root / key
        with suppress(OSError):
            if path.is_file():
                return _stat(path)
        return None

    def sha256(self, key: str) -> str:
        with (self.root / key).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._read(self.root / key) for key in keys]

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(
                f"{path} cannot be read: {error.strerror or error}. Make it readable, then run "
                "the same command again."
            ) from error

    def folders(self, key: str) -> list[str]:
        return sorted(path.name for path in (self.root / key).glob("[!.]*/") if path.is_dir())

    def files(self, key: str) -> Iterator[tuple[str, Stat]]:
        folder = self.root / key
        for path in sorted(folder.rglob("*")):
            if not path.is_dir():
                yield path.relative_to(folder).as_posix(), _stat(path)

    def writing(self, key: str) -> AbstractContextManager[Path]:
        return replacing(self.root / key, REMEDY)

    def create(self, key: str, content: bytes) -> bool:
        with self.writing(key) as temporary:
            temporary.write_bytes(content)
        return True

    def touch(self, key: str) -> None:
        with suppress(OSError):  # somebody may read who may not write
            os.utime(self.root / key)

    def used_at(self, key: str) -> float:
        stat = self.stat(key)
        return stat.changed_at if stat else 0.0

    def drafts(self) -> "LocalStorage":
        return self

    def take(self, draft: Path, key: str) -> None:
        final = self.root / key
        try:
            draft.rename(final)
        except OSError as error:
            if not (final / MANIFEST).is_file():
                raise StorageError(
                    f"{draft} cannot be renamed to {final}: {error.strerror}. "
                    "Nothing was published. Remove what is in the way and run it again."
                ) from error

    def fetch(self, key: str, files: Sequence[File]) -> Path:
        return self.root / key

    def remove(self, key: str) -> None:
        folder = self.root / key
        hidden = folder.with_name(f".draft-{uuid.uuid4().hex[:12]}")
        with storage_errors(folder, REMEDY):
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def parquet(self, keys: Sequence[str]) -> ds.Dataset:
        return ds.dataset([str(self.root / key) for key in keys], format="parquet")

    def footer(self, key: str) -> pq.FileMetaData:
        return pq.read_metadata(self.root / key)


def _stat(path: Path) -> Stat:
    try:
        stat = path.stat()
    except FileNotFoundError:
        # Whoever fills a folder renames files in it: its contents are young.
        return Stat(0, time.time())
    return Stat(stat.st_size, stat.st_mtime)
