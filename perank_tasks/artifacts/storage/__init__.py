"""Storage: where artifacts lie, a local folder or a prefix of an S3 bucket.

`Storage` is all that `artifacts.store` asks of either. Files are named by *keys*: paths with
slashes, relative to the root, the same in both, so that a root can be copied from one to the
other by any tool.

| file           | what it is for                                                         |
|----------------|------------------------------------------------------------------------|
| `local.py`     | a folder                                                               |
| `s3.py`        | a prefix of a bucket                                                   |
| `s3_client.py` | how S3 is reached: endpoint, credentials, retries, errors in words     |
| `s3_path.py`   | files on S3 for those who read them as paths: the collections          |
| `s3_uri.py`    | `s3://bucket/key`; imports nothing, for settings                       |
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    from perank_tasks.artifacts.storage.local import LocalStorage
    from perank_tasks.errors import StorageError

T = TypeVar("T")
R = TypeVar("R")

MANIFEST = "manifest.json"
"""The file that makes a folder an artifact; it is written last and removed first."""

REMEDY = (
    "Nothing was published there. Free space or make the folder writable (PERANK_ROOT says where "
    "artifacts go), then run the same command again; finished parts are kept."
)


@dataclass(frozen=True)
class Stat:
    """One file: its size, and when it was written, in seconds since 1970."""

    bytes: int
    changed_at: float


@dataclass(frozen=True)
class Contents:
    """What lies in one artifact's folder, finished or not."""

    reference: str
    bytes: int
    changed_at: float
    """When anything in it was last written, in seconds since 1970."""
    is_published: bool


@dataclass(frozen=True)
class File:
    """One file of a library's own format in an artifact's folder: `bm25/vocab.index.json`."""

    name: str
    bytes: int
    sha256: str


def in_words(error: OSError) -> "StorageError | None":
    """The StorageError that says what S3 refused in the middle of a scan; None: it is another's.

    pyarrow raises its own wherever a dataset is being read.
    """
    if "AWS Error" not in str(error):
        return None
    from perank_tasks.artifacts.storage.s3_client import s3

    return s3().in_words(error)


class Storage(Protocol):
    """Files below one root.

    Every method raises StorageError where the storage refuses or does not answer; the message
    names the file, the cause and what to do.
    """

    def check(self) -> None:
        """Look whether the root can be read at all, before work begins."""
        ...

    def name(self, key: str) -> str:
        """The file's full name, for people."""
        ...

    def path(self, key: str) -> Path:
        """Where the file is, or would be, on this machine; StorageError where it is remote."""
        ...

    def stat(self, key: str) -> Stat | None:
        """None where there is no such file."""
        ...

    def sha256(self, key: str) -> str:
        """Of the file's content, in hexadecimal."""
        ...

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The contents of small files; None for each that is not there."""
        ...

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder, hidden ones left out."""
        ...

    def sizes(self, key: str) -> dict[str, int]:
        """Bytes of every file below a folder, by its name relative to it, hidden ones left out."""
        ...

    def contents(self, kind: str) -> Iterator[Contents]:
        """Every artifact folder of a kind, finished or not, drafts that lie there included."""
        ...

    def scratch(self, key: str) -> AbstractContextManager[Path]:
        """A local file to write, which `put` makes `key`; it is gone after the block."""
        ...

    def put(self, scratch: Path, key: str) -> None:
        """Make a scratch file the content of `key`, in one step."""
        ...

    def create(self, key: str, content: bytes) -> bool:
        """Write a small file in one step; False where it was there already and is kept."""
        ...

    def touch(self, key: str) -> None:
        """Note that the artifact whose manifest this is was used now."""
        ...

    def used_at(self, key: str) -> float:
        """When that artifact was published or used, in seconds since 1970; 0 where it is not."""
        ...

    def drafts(self) -> "LocalStorage":
        """Where drafts are written."""
        ...

    def take(self, draft: Path, key: str) -> bool:
        """Make a draft's files those of the artifact folder `key`.

        Where drafts lie in this storage, the folder is renamed, its manifest with it; False where
        an artifact is published there. Where they lie apart, the files are copied, and those that
        are there stay.
        """
        ...

    def fetch(self, key: str, files: Sequence[File]) -> Path:
        """A local folder that holds these files of an artifact, checked."""
        ...

    def remove(self, key: str) -> None:
        """Remove a folder; an artifact is gone in one step, whoever looks meanwhile."""
        ...

    def discard(self, key: str) -> None:
        """Remove a folder if that can be done; raises nothing."""
        ...

    def parquet(self, keys: Sequence[str]) -> "ds.Dataset":
        """Parquet files as one dataset, in this order; nothing but a schema is read."""
        ...

    def footer(self, key: str) -> "pq.FileMetaData":
        """What a Parquet file's footer says."""
        ...

    def map(self, request: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of requests that do not depend on each other, at once where that helps."""
        ...

    def scanned(self, key: str, scan: Callable[[], T]) -> T:
        """The result of reading a dataset; tried again where a remote storage broke off."""
        ...

    def reading(self, key: str) -> AbstractContextManager[None]:
        """Around a scan that is streamed: says of a refusal where it happened."""
        ...
