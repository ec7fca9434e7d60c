"""Storage: where artifacts lie, a local folder or a prefix of an S3 bucket.

`Storage` is all that an artifact asks of either. Files are named by *keys*: paths with slashes,
relative to the root, the same in both, so that a root can be copied from one to the other by any
tool.

| file           | what it is for                                                         |
|----------------|------------------------------------------------------------------------|
| `local.py`     | a folder                                                               |
| `s3.py`        | a prefix of a bucket                                                   |
| `s3_client.py` | how S3 is reached: endpoint, credentials, retries, listings            |
| `s3_errors.py` | what S3 refuses, in words: cause and remedy                            |
| `s3_path.py`   | files on S3 for those who read them as paths: the collections          |
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from perank_tasks.errors import StorageError
from perank_tasks.support.s3_uri import S3Uri

if TYPE_CHECKING:
    # A spec of a collection is read in a moment: nothing that its path needs is slow to import.
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    from perank_tasks.artifacts.storage.local import LocalStorage

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
    """When a file in it was last written, in seconds since 1970."""
    is_published: bool


@dataclass(frozen=True)
class File:
    """One file of a library's own format in an artifact's folder: `bm25/vocab.index.json`."""

    name: str
    bytes: int
    sha256: str


def in_words(error: OSError) -> StorageError | None:
    """The StorageError that says what S3 refused in the middle of a scan; None: it is another's.

    pyarrow raises its own wherever a dataset is being read.
    """
    if "AWS Error" not in str(error):
        return None
    from perank_tasks.artifacts.storage.s3_client import s3  # boto3 takes a third of a second

    return s3().in_words(error)


class Storage(Protocol):
    """Files below one root.

    Every method raises StorageError where the storage refuses or does not answer; the message
    names the file, the cause and what to do.
    """

    root: Path | S3Uri
    """Above all keys: `root / key` names a file for people, and is its path where local."""

    def check(self) -> None:
        """Look whether the root can be read at all, before work begins."""

    def stat(self, key: str) -> Stat | None:
        """None where there is no such file."""

    def sha256(self, key: str) -> str:
        """Of the file's content, in hexadecimal."""

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The contents of small files; None for each that is not there."""

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder, in order, hidden ones left out."""

    def files(self, key: str) -> Iterator[tuple[str, Stat]]:
        """Every file below a folder, hidden ones included, by its name relative to it."""

    def sizes(self, key: str) -> dict[str, int]:
        """Bytes of every file below a folder, by its name relative to it, hidden ones left out."""
        return {
            name: stat.bytes
            for name, stat in self.files(key)
            if not name.rpartition("/")[2].startswith(".")
        }

    def contents(self, kind: str) -> Iterator[Contents]:
        """Every artifact folder of a kind, finished or not, drafts that lie there included."""
        folders: dict[str, dict[str, Stat]] = {}
        for name, stat in self.files(kind):
            collection, _, rest = name.partition("/")
            key, slash, file = rest.partition("/")
            if slash:
                folders.setdefault(f"{collection}/{key}", {})[file] = stat
        for name, files in folders.items():
            is_draft = name.partition("/")[2].startswith(".")
            yield Contents(
                reference=f"{kind}/{name}",
                bytes=sum(stat.bytes for stat in files.values()),
                changed_at=max(stat.changed_at for stat in files.values()),
                is_published=MANIFEST in files and not is_draft,
            )

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

    def drafts(self) -> "LocalStorage":
        """Where drafts are written."""

    def take(self, draft: Path, key: str) -> None:
        """Make a draft's files those of the artifact folder `key`.

        Where drafts lie in this storage, the folder is renamed, its manifest with it; where an
        artifact is published there, nothing happens. Where they lie apart, the files are copied,
        and those that are there stay.
        """

    def fetch(self, key: str, files: Sequence[File]) -> Path:
        """A local folder that holds these files of an artifact, checked."""

    def remove(self, key: str) -> None:
        """Remove a folder; an artifact is gone in one step, whoever looks meanwhile."""

    def parquet(self, keys: Sequence[str]) -> "ds.Dataset":
        """Parquet files as one dataset, in this order; nothing but a schema is read."""

    def footer(self, key: str) -> "pq.FileMetaData":
        """What a Parquet file's footer says."""

    def map(self, request: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of requests that do not depend on each other, at once where that helps."""
        return [request(item) for item in items]

    def scanned(self, key: str, scan: Callable[[], T]) -> T:
        """The result of reading a dataset; tried again where a remote storage broke off."""
        return scan()
