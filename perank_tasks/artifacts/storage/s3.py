"""A root that is a prefix of an S3 bucket.

What is atomic: a PUT, and the last request of a multipart upload, make an object whole or not at
all, so a part goes straight to its final name. Nothing can be renamed, so a draft is a folder on
this machine whose files are copied when it is published. The manifest decides: it comes last, on
the condition that there is none (`IfNoneMatch`), so that of two publishers one wins and both end
with the same artifact; where a server ignores the condition, the last one wins, and the content
of both is the same by its key. A published artifact's manifest is removed first.

A manifest is never written again: use is noted by an empty object `.used` beside it, at most
once an hour. Files that a library must have in a folder are fetched into the cache, into one
folder for each content, and checked against the manifest's checksums.

boto3 writes and removes, pyarrow reads and lists.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow.fs as pafs
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from perank_tasks.artifacts.storage.base import MANIFEST, Storage
from perank_tasks.artifacts.storage.local import LocalStorage
from perank_tasks.artifacts.storage.s3_client import s3
from perank_tasks.artifacts.storage.s3_errors import code_of
from perank_tasks.errors import ArtifactError, StorageError
from perank_tasks.support.files import file_sha256, making_folder, storage_errors
from perank_tasks.support.s3_uri import S3Uri

USED = ".used"
"""Its time says when the artifact was last used."""

USE_GRAIN_S = 3600.0
"""How exactly use is noted; retention counts in days."""

MULTIPART_BYTES = 64 * 2**20
"""Larger files go up in parts of this size: up to 640 GB in the 10,000 parts that S3 allows."""

STALE_S = {"drafts/*/*/.draft-*": 86_400.0, "up/*": 86_400.0, "fetched/*/*": 14 * 86_400.0}
"""After how long what lies in the cache is removed: drafts and files on their way up belong to a
process that was killed, and what was fetched and not asked for since can be fetched again."""

_REMEDY = (
    "Free space or make the folder writable (PERANK_CACHE says where files lie on their way to S3 "
    "and back), then run the same command again; finished parts are kept."
)

T = TypeVar("T")


class S3Storage(Storage):
    """See `perank_tasks.artifacts.storage.base.Storage`.

    Args:
        cache: local folder for drafts, files on their way up, and fetched ones.
    """

    root: S3Uri

    def __init__(self, root: S3Uri, cache: Path):
        self.root = root
        self.cache = cache / "s3"

    def check(self) -> None:
        with s3().errors(self.root):
            s3().look(self.root)

    def ask(self, key: str, request: Callable[[pafs.FileSystem, str], T]) -> T:
        return s3().ask(self.root / key, request)

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        self._remove_stale()
        parent = self.cache / "up"
        with storage_errors(parent, _REMEDY):
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
                scratch = Path(folder) / PurePosixPath(key).name
                yield scratch
                if scratch.exists():
                    with s3().errors(self.root / key):
                        self._put(key, scratch, s3().client)

    def _put(self, key: str, content: bytes | Path, client: Any) -> None:
        place = self.root / key
        if isinstance(content, bytes):
            client.put_object(Bucket=place.bucket, Key=place.key, Body=content)
        else:
            parts = {"multipart_threshold": MULTIPART_BYTES, "multipart_chunksize": MULTIPART_BYTES}
            config = TransferConfig(**parts, max_concurrency=4)
            client.upload_file(str(content), place.bucket, place.key, Config=config)

    def create(self, key: str, content: bytes | Path) -> bool:
        """Of a file, too; made anyway where a server knows no conditions."""
        with s3().errors(self.root / key):
            for attempt in range(s3().attempts):
                try:
                    self._put(key, content, s3().creating)
                    return True
                except (ClientError, S3UploadFailedError) as error:
                    code = code_of(error)
                    if code == "PreconditionFailed":
                        return False
                    if code in ("NotImplemented", "501"):
                        self._put(key, content, s3().client)
                        return True
                    # Another request of its kind was on its way: it is tried again.
                    is_last = attempt == s3().attempts - 1
                    if code != "ConditionalRequestConflict" or is_last:
                        raise
                time.sleep(0.1 * 2**attempt)
        return False

    def touch(self, key: str) -> None:
        if time.time() - self.used_at(key) < USE_GRAIN_S:
            return
        marker = key.removesuffix(MANIFEST) + USED
        with suppress(StorageError), s3().errors(self.root / marker):  # readers need not write
            self._put(marker, b"", s3().client)

    def used_at(self, key: str) -> float:
        manifest = self.stat(key)
        if manifest is None:
            return 0.0
        published_at = manifest.mtime.timestamp()
        if time.time() - published_at < USE_GRAIN_S:
            return published_at
        marker = self.stat(key.removesuffix(MANIFEST) + USED)
        return marker.mtime.timestamp() if marker else published_at

    def drafts(self) -> LocalStorage:
        self._remove_stale()
        return LocalStorage(self.cache / "drafts")

    def bring(self, draft: Path, key: str) -> None:
        for path in sorted(draft.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                name = f"{key}/{path.relative_to(draft).as_posix()}"
                # One that is there is of somebody who was killed, or publishes the same just now.
                if not self.create(name, path) and path.parent != draft:
                    self._download(name, path)

    def take(self, draft: Path, key: str) -> None:
        self.create(f"{key}/{MANIFEST}", draft / MANIFEST)

    def fetch(self, key: str, files: Mapping[str, str]) -> Path:
        content = "".join(f"{name} {sha256}\n" for name, sha256 in files.items())
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        folder = self.cache / "fetched" / key.replace("/", "_") / digest
        if folder.is_dir():
            with storage_errors(folder, _REMEDY):
                os.utime(folder)
            return folder
        self._remove_stale()
        with making_folder(folder, _REMEDY) as scratch:
            for name, expected in files.items():
                target = scratch / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self._download(f"{key}/{name}", target)
                if (sha256 := file_sha256(target)) != expected:
                    raise ArtifactError(
                        f"{self.root / key / name} is not what its manifest says: expected "
                        f"SHA-256 {expected}, found {sha256}. Remove {self.root / key} and run "
                        "the stage that makes it again."
                    )
        return folder

    def _download(self, key: str, target: Path) -> None:
        place = self.root / key
        with s3().errors(place):
            s3().client.download_file(place.bucket, place.key, str(target))

    def remove(self, key: str) -> None:
        names = list(self.files(key))
        if not names:
            raise StorageError(f"{self.root / key} cannot be removed: there is nothing there.")
        if MANIFEST in names:  # first: from then on there is no artifact
            names.remove(MANIFEST)
            self._delete(f"{key}/{MANIFEST}")
        self.map(lambda name: self._delete(f"{key}/{name}"), names)

    def _delete(self, key: str) -> None:
        uri = self.root / key
        with s3().errors(uri):
            s3().client.delete_object(Bucket=uri.bucket, Key=uri.key)

    def _remove_stale(self) -> None:
        for pattern, after_s in STALE_S.items():
            for folder in list(self.cache.glob(pattern)):
                with suppress(OSError):
                    changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                    if time.time() - changed > after_s:
                        shutil.rmtree(folder, ignore_errors=True)
