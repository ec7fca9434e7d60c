"""What an artifact asks of a storage. Reading and listing are here, by pyarrow's file systems."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow.fs as pafs

from perank_tasks.support.s3_uri import S3Uri

T = TypeVar("T")
R = TypeVar("R")

MANIFEST = "manifest.json"
"""The file that makes a folder an artifact; it is written last and removed first."""

REMEDY = (
    "Nothing was published there. Free space or make the folder writable (PERANK_ROOT says where "
    "artifacts go), then run the same command again; finished parts are kept."
)

REQUESTS_AT_ONCE = 16


@dataclass(frozen=True)
class Contents:
    """What lies in one artifact's folder, finished or not."""

    reference: str
    bytes: int
    changed_at: float
    """When a file in it was last written, in seconds since 1970."""
    is_published: bool


class Storage(Protocol):
    """Files below one root.

    Every method raises StorageError where the storage refuses or does not answer; the message
    names the file, the cause and what to do.
    """

    root: Path | S3Uri
    """Above all keys: `root / key` names a file for people, and is its path where local."""

    def check(self) -> None:
        """Look whether the root can be read at all, before work begins."""

    def ask(self, key: str, request: Callable[[pafs.FileSystem, str], T]) -> T:
        """What pyarrow answers about a key, named to its file system by a path."""

    def stat(self, key: str) -> pafs.FileInfo | None:
        """Size and time of a file; None where there is no such file."""
        info = self.ask(key, lambda system, path: system.get_file_info(path))
        return info if info.is_file else None

    def read(self, key: str) -> bytes | None:
        """The content of a small file; None where it is not there."""

        def content(system: pafs.FileSystem, path: str) -> bytes | None:
            try:
                with system.open_input_stream(path) as stream:
                    return bytes(stream.read())
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self.ask(key, content)

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder, in order, hidden ones left out."""
        infos = self.ask(key, lambda system, path: _listing(system, path, recursive=False))
        names = (info.base_name for info in infos if info.type == pafs.FileType.Directory)
        return [name for name in names if not name.startswith(".")]

    def files(self, key: str) -> dict[str, pafs.FileInfo]:
        """Every file below a folder, hidden ones included, by its name relative to it."""

        def listed(system: pafs.FileSystem, path: str) -> dict[str, pafs.FileInfo]:
            infos = _listing(system, path, recursive=True)
            return {info.path.removeprefix(f"{path}/"): info for info in infos if info.is_file}

        return self.ask(key, listed)

    def names(self, key: str) -> list[str]:
        """Names of the files below a folder, relative to it, in order, hidden ones left out."""
        files = self.files(key).items()
        return [name for name, info in files if not info.base_name.startswith(".")]

    def contents(self, kind: str) -> Iterator[Contents]:
        """Every artifact folder of a kind, finished or not, drafts that lie there included."""
        folders: dict[str, dict[str, pafs.FileInfo]] = {}
        for name, info in self.files(kind).items():
            collection, _, rest = name.partition("/")
            key, slash, file = rest.partition("/")
            if slash:
                folders.setdefault(f"{collection}/{key}", {})[file] = info
        for name, files in folders.items():
            is_draft = name.partition("/")[2].startswith(".")
            times = (
                self._changed_at(f"{kind}/{name}/{file}", info) for file, info in files.items()
            )
            yield Contents(
                reference=f"{kind}/{name}",
                bytes=sum(info.size for info in files.values()),
                changed_at=max(times),
                is_published=MANIFEST in files and not is_draft,
            )

    def _changed_at(self, key: str, listed: pafs.FileInfo) -> float:
        # Some S3 servers list a time without the zeros at its end (".87Z"), which pyarrow reads as
        # 1970. The answer about one file has another form, which it can read.
        info = listed if listed.mtime_ns else self.stat(key)
        return info.mtime.timestamp() if info else time.time()

    def writing(self, key: str) -> AbstractContextManager[Path]:
        """A local file to write, which becomes `key` in one step if the block succeeds.

        A block that removes the file leaves `key` as it was.
        """

    def create(self, key: str, content: bytes) -> bool:
        """Write a small file in one step; False where it was there already and is kept."""

    def touch(self, key: str) -> None:
        """Note that the artifact whose manifest this is was used now."""

    def used_at(self, key: str) -> float:
        """When that artifact was published or used, in seconds since 1970; 0 where it is not."""

    def drafts(self) -> "Storage":
        """Where drafts are written."""

    def bring(self, draft: Path, key: str) -> None:
        """Copy a draft's files to the artifact folder `key`, where drafts lie apart.

        Those that are there already stay; a library's own take the place of the draft's, since
        the manifest is to have their hashes.
        """

    def take(self, draft: Path, key: str) -> None:
        """Publish a draft that has its manifest as `key`; what is published there stays.

        Where drafts lie in this storage, the folder is renamed.
        """

    def fetch(self, key: str, files: Mapping[str, str]) -> Path:
        """A local folder that holds these files of an artifact, checked: {name: SHA-256}."""

    def remove(self, key: str) -> None:
        """Remove a folder; an artifact is gone in one step, whoever looks meanwhile."""

    def map(self, request: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of requests that do not depend on each other, made at once."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(request, items))


def _listing(system: pafs.FileSystem, path: str, *, recursive: bool) -> list[pafs.FileInfo]:
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=recursive)
    return sorted(system.get_file_info(selector), key=lambda info: info.path)
