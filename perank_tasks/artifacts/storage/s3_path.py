"""Files on S3 for those who read them as paths: as much of `pathlib.Path` as collections use.

A file is read in ranges of 8 MiB, each retried, so that a file of any size
needs no space and survives a connection that breaks. It is held to its ETag: one that is replaced
while it is read is an error, never a mixture.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from perank_tasks.support.s3_uri import SCHEME, S3Uri

if TYPE_CHECKING:
    from perank_tasks.artifacts.storage.s3_client import S3

RANGE_BYTES = 8 * 2**20


def _s3() -> "S3":
    from perank_tasks.artifacts.storage.s3_client import s3  # boto3 takes a third of a second

    return s3()


class S3Path(S3Uri):
    """A file, or all files below a prefix."""

    @property
    def name(self) -> str:
        return PurePosixPath(self.arrow_path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> "S3Path":
        return S3Path(self.bucket, self.key.rpartition("/")[0])

    def is_file(self) -> bool:
        return _s3().ask(self, lambda system, path: system.get_file_info(path)).is_file

    def is_dir(self) -> bool:
        """Whether there is something below it."""
        return any(self.iterdir())

    def iterdir(self) -> Iterator["S3Path"]:
        """Everything directly below; a folder is a name with something below it."""
        from pyarrow.fs import FileSelector  # as slow

        selector = FileSelector(self.arrow_path, allow_not_found=True)
        infos = _s3().ask(self, lambda system, _: system.get_file_info(selector))
        return (self / info.base_name for info in infos)

    def glob(self, pattern: str) -> Iterator["S3Path"]:
        """Those directly below whose names match."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[io.BufferedReader]:
        """The file's bytes, seekable.

        Raises:
            StorageError: it is not there, or is replaced while it is read.
        """
        with _s3().reading(self) as file:
            yield io.BufferedReader(file, RANGE_BYTES)


AnyPath = Path | S3Path


def to_path(text: str, what: str) -> AnyPath:
    """The path that a person has written, on this machine or on S3.

    Raises:
        ConfigError: it begins with s3:// and is malformed.
    """
    return S3Path.parse(text, what) if text.startswith(SCHEME) else Path(text).expanduser()
