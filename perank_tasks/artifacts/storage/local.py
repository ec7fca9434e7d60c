"""A root that is a local folder.

Files are written under a temporary name beside their own and renamed; a draft is a hidden folder
beside the artifacts of its kind and is renamed, too. An artifact's age is its manifest's.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from perank_tasks.artifacts.storage import MANIFEST, REMEDY, Contents, File, Stat
from perank_tasks.errors import StorageError
from perank_tasks.support.files import replacing, storage_errors

T = TypeVar("T")
R = TypeVar("R")


class LocalStorage:
    """See `perank_tasks.artifacts.storage.Storage`."""

    def __init__(self, root: Path):
        self.root = root

    def check(self) -> None:
        """A folder that is not there yet is made with the first file."""

    def name(self, key: str) -> str:
        return str(self.root / key)

    def path(self, key: str) -> Path:
        return self.root / key

    def stat(self, key: str) -> Stat | None:
        path = self.root / key
        with suppress(OSError):
            if path.is_file():
                found = path.stat()
                return Stat(found.st_size, found.st_mtime)
        return None

    def sha256(self, key: str) -> str:
        with (self.root / key).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._read(key) for key in keys]

    def _read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(
                f"{self.root / key} cannot be read: {error.strerror or error}. Make it readable, "
                "then run the same command again."
            ) from error

    def folders(self, key: str) -> list[str]:
        return sorted(path.name for path in (self.root / key).glob("[!.]*/") if path.is_dir())

    def sizes(self, key: str) -> dict[str, int]:
        folder = self.root / key
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def contents(self, kind: str) -> Iterator[Contents]:
        for folder in self.root.glob(f"{kind}/*/*/"):
            # Whoever fills a folder renames files in it: one that changes is left out, as young.
            with suppress(FileNotFoundError):
                found = [path.stat() for path in (folder, *folder.rglob("*"))]
                files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
                is_draft = folder.name.startswith(".")
                yield Contents(
                    reference=folder.relative_to(self.root).as_posix(),
                    bytes=sum(files),
                    changed_at=max(stat.st_mtime for stat in found),
                    is_published=not is_draft and (folder / MANIFEST).is_file(),
                )

    @contextmanager
    def scratch(self, key: str) -> Iterator[Path]:
        path = self.root / key
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with storage_errors(path, REMEDY):
                path.parent.mkdir(parents=True, exist_ok=True)
                yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink()

    def put(self, scratch: Path, key: str) -> None:
        with storage_errors(self.root / key, REMEDY):
            with scratch.open("rb") as stream:
                os.fsync(stream.fileno())
            scratch.replace(self.root / key)

    def create(self, key: str, content: bytes) -> bool:
        with replacing(self.root / key, REMEDY) as temporary:
            temporary.write_bytes(content)
        return True

    def touch(self, key: str) -> None:
        with suppress(OSError):  # somebody may read who may not write
            os.utime(self.root / key)

    def used_at(self, key: str) -> float:
        with suppress(OSError):
            return (self.root / key).stat().st_mtime
        return 0.0

    def drafts(self) -> "LocalStorage":
        return self

    def take(self, draft: Path, key: str) -> bool:
        final = self.root / key
        try:
            draft.rename(final)
        except OSError as error:
            if (final / MANIFEST).is_file():
                return False
            raise StorageError(
                f"{draft} cannot be renamed to {final}: {error.strerror}. "
                "Nothing was published. Remove what is in the way and run it again."
            ) from error
        return True

    def fetch(self, key: str, files: Sequence[File]) -> Path:
        return self.root / key

    def remove(self, key: str) -> None:
        folder = self.root / key
        gone = folder.with_name(f".draft-{uuid.uuid4().hex[:12]}")
        with storage_errors(folder, REMEDY):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def discard(self, key: str) -> None:
        shutil.rmtree(self.root / key, ignore_errors=True)

    def parquet(self, keys: Sequence[str]) -> ds.Dataset:
        return ds.dataset([str(self.root / key) for key in keys], format="parquet")

    def footer(self, key: str) -> pq.FileMetaData:
        return pq.read_metadata(self.root / key)

    def map(self, request: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return [request(item) for item in items]

    def scanned(self, key: str, scan: Callable[[], T]) -> T:
        return scan()

    def reading(self, key: str) -> AbstractContextManager[None]:
        return nullcontext()
