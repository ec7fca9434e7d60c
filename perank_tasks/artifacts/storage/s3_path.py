"""Files on S3 for those who read them as paths: as much of `pathlib.Path` as collections use.

A file is read in ranges of 8 MiB, each by a request of its own that is retried, so that a file of
any size needs no space and survives a connection that breaks. It is held to its ETag: one that is
replaced while it is read is an error, never a mixture.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from perank_tasks.errors import StorageError
from perank_tasks.support.s3_uri import SCHEME, S3Uri

if TYPE_CHECKING:
    from perank_tasks.artifacts.storage.s3_client import S3

RANGE_BYTES = 8 * 2**20


def _s3() -> "S3":
    from perank_tasks.artifacts.storage.s3_client import s3  # boto3 takes a third of a second

    return s3()


@dataclass(frozen=True)
class S3Path:
    """A file, or all files below a prefix. `listed_as_folder` is what a listing has said."""

    uri: S3Uri
    listed_as_folder: bool | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return str(self.uri)

    def __truediv__(self, name: str) -> "S3Path":
        return S3Path(self.uri / name)

    @property
    def name(self) -> str:
        return PurePosixPath(self.uri.key).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.uri.key).suffix

    @property
    def parent(self) -> "S3Path":
        return S3Path(S3Uri(self.uri.bucket, self.uri.key.rpartition("/")[0]))

    def is_file(self) -> bool:
        return _s3().head(self.uri) is not None

    def is_dir(self) -> bool:
        """Whether there is something below it."""
        if self.listed_as_folder is not None:
            return self.listed_as_folder
        return any("Contents" in page for page in _s3().pages(self.uri))

    def iterdir(self) -> Iterator["S3Path"]:
        """Everything directly below; a folder is a name with something below it."""
        return (S3Path(self.uri / name, is_dir) for name, is_dir in _s3().children(self.uri))

    def glob(self, pattern: str) -> Iterator["S3Path"]:
        """Those directly below whose names match."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The file's bytes, seekable.

        Raises:
            StorageError: it is not there, or is replaced while it is read.
        """
        return io.BufferedReader(_Ranges(self.uri), RANGE_BYTES)


AnyPath = Path | S3Path


def to_path(text: str, what: str) -> AnyPath:
    """The path that a person has written, on this machine or on S3.

    Raises:
        ConfigError: it begins with s3:// and is malformed.
    """
    return S3Path(S3Uri.parse(text, what)) if text.startswith(SCHEME) else Path(text).expanduser()


class _Ranges(io.RawIOBase):
    """An object as a raw file; a `BufferedReader` asks it for one range after another."""

    def __init__(self, uri: S3Uri):
        head = _s3().head(uri)
        if head is None:
            raise StorageError(f"{uri}: there is no such object.")
        self._uri = uri
        self._size: int = head["ContentLength"]
        self._etag: str = head["ETag"]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        last = min(self._at + len(buffer), self._size) - 1
        if last < self._at:
            return 0
        content = _s3().get(self._uri, Range=f"bytes={self._at}-{last}", IfMatch=self._etag)
        if content is None:
            raise StorageError(f"{self._uri}: the object was removed while it was read.")
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
