"""A root that is a local folder.

Files are written under a temporary name beside their own and renamed; a draft is a hidden folder
beside the artifacts of its kind and is renamed, too. An artifact's age is its manifest's.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow.fs as pafs

from perank_tasks.artifacts.storage.base import MANIFEST, REMEDY, Storage
from perank_tasks.errors import StorageError
from perank_tasks.support.files import replacing, storage_errors

T = TypeVar("T")


class LocalStorage(Storage):
    """See `perank_tasks.artifacts.storage.base.Storage`."""

    root: Path

    def __init__(self, root: Path):
        self.root = root

    def check(self) -> None:
        """A folder that is not there yet is made with the first file."""

    def ask(self, key: str, request: Callable[[pafs.FileSystem, str], T]) -> T:
        path = self.root / key
        try:
            return request(pafs.LocalFileSystem(), str(path))
        except PermissionError as error:
            raise StorageError(
                f"{path} cannot be read: {error}. Make it readable, then run the same command "
                "again."
            ) from error

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
        info = self.stat(key)
        return info.mtime.timestamp() if info else 0.0

    def drafts(self) -> "LocalStorage":
        return self

    def bring(self, draft: Path, key: str) -> None:
        """It is renamed as it is."""

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

    def fetch(self, key: str, files: Mapping[str, str]) -> Path:
        return self.root / key

    def remove(self, key: str) -> None:
        folder = self.root / key
        hidden = folder.with_name(f".draft-{uuid.uuid4().hex[:12]}")
        with storage_errors(folder, REMEDY):
            folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
