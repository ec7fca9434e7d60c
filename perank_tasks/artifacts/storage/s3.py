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

Notes: an object carries its own SHA-256 as metadata, so that describing a part costs a HEAD;
where a server has lost it, the object is read.
"""

import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from perank_tasks.artifacts.storage import MANIFEST, Contents, File, Stat
from perank_tasks.artifacts.storage.local import LocalStorage
from perank_tasks.artifacts.storage.s3_client import S3, has_collided, is_taken, is_unknown, s3
from perank_tasks.errors import ArtifactError, StorageError
from perank_tasks.support.files import storage_errors
from perank_tasks.support.s3_uri import S3Uri

log = logging.getLogger(__name__)

USED = ".used"
"""Its time says when the artifact was last used."""

USE_GRAIN_S = 3600.0
"""How exactly use is noted; retention counts in days."""

MULTIPART_BYTES = 64 * 2**20
"""Larger files go up in parts of this size: up to 640 GB in the 10,000 parts that S3 allows."""

STALE_DRAFT_S = 86_400.0
"""A draft that nothing was written to for so long belongs to a process that was killed."""

STALE_FETCH_S = 14 * 86_400.0
"""A fetched folder that nobody asked for in so long is removed; it can be fetched again."""

REQUESTS_AT_ONCE = 16

_REMEDY = (
    "Free space or make the folder writable (PERANK_CACHE says where files lie on their way to S3 "
    "and back), then run the same command again; finished parts are kept."
)

T = TypeVar("T")
R = TypeVar("R")


class S3Storage:
    """See `perank_tasks.artifacts.storage.Storage`.

    Args:
        cache: local folder for drafts, files on their way up, and fetched ones.
    """

    def __init__(self, root: S3Uri, cache: Path):
        self.root = root
        self.cache = cache
        self._bucket_is_there = False

    @property
    def s3(self) -> S3:
        return s3()

    def check(self) -> None:
        with self.s3.errors(self.root):
            self.s3.look(self.root)
        self._bucket_is_there = True

    def name(self, key: str) -> str:
        return str(self.root / key)

    def path(self, key: str) -> Path:
        raise StorageError(
            f"{self.name(key)} is not on this machine. `Artifact.local` fetches what a library "
            "must have in a folder."
        )

    def stat(self, key: str) -> Stat | None:
        found = self._head(key)
        return Stat(found["ContentLength"], found["LastModified"].timestamp()) if found else None

    def _head(self, key: str) -> dict[str, Any] | None:
        found = self.s3.head(self.root / key)
        if found is None and not self._bucket_is_there:
            self.check()  # a bucket that is not there looks like an object that is not
        return found

    def sha256(self, key: str) -> str:
        found = self._head(key)
        if found is None:
            raise ArtifactError(f"{self.name(key)} is gone. Run the stage that makes it again.")
        if known := found.get("Metadata", {}).get("sha256"):
            return str(known)
        with self.scratch(key) as scratch:
            self._download(key, scratch)
            return _sha256(scratch)

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        return self.map(lambda key: self.s3.get(self.root / key), keys)

    def folders(self, key: str) -> list[str]:
        prefix = f"{(self.root / key).key}/"
        pages = self._pages(prefix, Delimiter="/")
        names = [
            found["Prefix"].removeprefix(prefix).rstrip("/")
            for page in pages
            for found in page.get("CommonPrefixes", [])
        ]
        return sorted(name for name in names if not name.startswith("."))

    def sizes(self, key: str) -> dict[str, int]:
        return {
            name: size
            for name, size, _ in self._objects(key)
            if not PurePosixPath(name).name.startswith(".")
        }

    def contents(self, kind: str) -> Iterator[Contents]:
        folders: dict[str, list[tuple[str, int, float]]] = {}
        for name, size, changed_at in self._objects(kind):
            collection, _, rest = name.partition("/")
            key, slash, file = rest.partition("/")
            if slash:
                folder = folders.setdefault(f"{kind}/{collection}/{key}", [])
                folder.append((file, size, changed_at))
        for reference, files in folders.items():
            yield Contents(
                reference=reference,
                bytes=sum(size for _, size, _ in files),
                changed_at=max(changed_at for *_, changed_at in files),
                is_published=any(name == MANIFEST for name, *_ in files),
            )

    def _objects(self, key: str) -> Iterator[tuple[str, int, float]]:
        """(name relative to the folder, bytes, time) of every object below it."""
        prefix = f"{(self.root / key).key}/"
        for page in self._pages(prefix):
            for found in page.get("Contents", []):
                name = found["Key"].removeprefix(prefix)
                yield name, found["Size"], found["LastModified"].timestamp()

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        paginator = self.s3.client.get_paginator("list_objects_v2")
        with self.s3.errors(S3Uri(self.root.bucket, prefix.rstrip("/"))):
            yield from paginator.paginate(Bucket=self.root.bucket, Prefix=prefix, **options)

    @contextmanager
    def scratch(self, key: str) -> Iterator[Path]:
        folder = self._new_folder("up")
        try:
            with storage_errors(folder, _REMEDY):
                folder.mkdir(parents=True)
                yield folder / PurePosixPath(key).name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, scratch: Path, key: str) -> None:
        self._upload(scratch, key, self.s3.client)

    def _upload(self, file: Path, key: str, client: Any) -> None:
        uri = self.root / key
        with self.s3.errors(uri):
            client.upload_file(
                str(file),
                uri.bucket,
                uri.key,
                ExtraArgs={"Metadata": {"sha256": _sha256(file)}},
                Config=TransferConfig(
                    multipart_threshold=MULTIPART_BYTES,
                    multipart_chunksize=MULTIPART_BYTES,
                    max_concurrency=4,
                ),
            )

    def create(self, key: str, content: bytes) -> bool:
        uri = self.root / key

        def put(client: Any) -> None:
            client.put_object(Bucket=uri.bucket, Key=uri.key, Body=content)

        with self.s3.errors(uri):
            return self._creating(put)

    def _creating(self, put: Callable[[Any], None]) -> bool:
        """Make an object unless it is there; where a server has no conditions, make it anyway."""
        for attempt in range(self.s3.attempts):
            try:
                put(self.s3.creating)
            except (ClientError, S3UploadFailedError, StorageError) as error:
                said = _server_error(error)
                if is_taken(said):
                    return False
                if is_unknown(said):
                    put(self.s3.client)
                    return True
                if not has_collided(said) or attempt == self.s3.attempts - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
            else:
                return True
        return False

    def touch(self, key: str) -> None:
        if time.time() - self.used_at(key) < USE_GRAIN_S:
            return
        marker = self.root / key.removesuffix(MANIFEST) / USED
        with suppress(StorageError), self.s3.errors(marker):  # who may read need not write
            self.s3.client.put_object(Bucket=marker.bucket, Key=marker.key, Body=b"")

    def used_at(self, key: str) -> float:
        found = self.stat(key)
        if found is None:
            return 0.0
        if time.time() - found.changed_at < USE_GRAIN_S:
            return found.changed_at
        marker = self.stat(f"{key.removesuffix(MANIFEST)}{USED}")
        return max(found.changed_at, marker.changed_at if marker else 0.0)

    def drafts(self) -> LocalStorage:
        folder = self.cache / "s3" / "drafts"
        _forget(folder.glob("*/*/.draft-*"), STALE_DRAFT_S)
        return LocalStorage(folder)

    def take(self, draft: Path, key: str) -> bool:
        for path in sorted(draft.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                name = f"{key}/{path.relative_to(draft).as_posix()}"
                # One that is there is of somebody who was killed, or publishes the same just now.
                self._creating(partial(self._upload, path, name))
        return True

    def fetch(self, key: str, files: Sequence[File]) -> Path:
        content = "".join(f"{file.name} {file.sha256}\n" for file in files)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        folder = self.cache / "s3" / "fetched" / key.replace("/", "_") / digest
        with storage_errors(folder, _REMEDY):
            if folder.is_dir():
                os.utime(folder)
                return folder
            _forget(folder.parents[1].glob("*/*"), STALE_FETCH_S)
            scratch = self._new_folder("down")
            try:
                scratch.mkdir(parents=True)
                for file in files:
                    self._fetch(key, file, scratch / file.name)
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    scratch.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else somebody has fetched it meanwhile
                        raise
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return folder

    def _fetch(self, key: str, file: File, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._download(f"{key}/{file.name}", target)
        if (found := _sha256(target)) != file.sha256:
            raise ArtifactError(
                f"{self.name(key)}/{file.name} is not what its manifest says: expected SHA-256 "
                f"{file.sha256}, found {found}. Remove {self.name(key)} and run the stage that "
                "makes it again."
            )

    def _download(self, key: str, target: Path) -> None:
        uri = self.root / key
        with self.s3.errors(uri):
            self.s3.client.download_file(uri.bucket, uri.key, str(target))

    def remove(self, key: str) -> None:
        names = [name for name, *_ in self._objects(key)]
        if not names:
            raise StorageError(f"{self.name(key)} cannot be removed: there is nothing there.")
        if MANIFEST in names:  # first: from then on there is no artifact
            names.remove(MANIFEST)
            self._delete(f"{key}/{MANIFEST}")
        self.map(lambda name: self._delete(f"{key}/{name}"), names)

    def _delete(self, key: str) -> None:
        uri = self.root / key
        with self.s3.errors(uri):
            self.s3.client.delete_object(Bucket=uri.bucket, Key=uri.key)

    def discard(self, key: str) -> None:
        with suppress(StorageError):
            self.remove(key)

    def parquet(self, keys: Sequence[str]) -> ds.Dataset:
        system = self.s3.arrow(self.root.bucket)
        paths = [f"{self.root.bucket}/{(self.root / key).key}" for key in keys]
        return self.s3.scanned(
            self.root / keys[0], lambda: ds.dataset(paths, filesystem=system, format="parquet")
        )

    def footer(self, key: str) -> pq.FileMetaData:
        uri = self.root / key
        system = self.s3.arrow(uri.bucket)
        return self.s3.scanned(
            uri, lambda: pq.read_metadata(f"{uri.bucket}/{uri.key}", filesystem=system)
        )

    def map(self, request: Callable[[T], R], items: Sequence[T]) -> list[R]:
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(request, items))

    def scanned(self, key: str, scan: Callable[[], T]) -> T:
        return self.s3.scanned(self.root / key, scan)

    def reading(self, key: str) -> AbstractContextManager[None]:
        return self.s3.errors(self.root / key)

    def _new_folder(self, what: str) -> Path:
        parent = self.cache / "s3" / what
        _forget(parent.glob("*"), STALE_DRAFT_S)
        return parent / uuid.uuid4().hex[:12]


def _forget(folders: Iterable[Path], after_s: float) -> None:
    """Remove what a killed process has left, or what nobody asked for in long."""
    for folder in list(folders):
        with suppress(OSError):
            changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - changed > after_s:
                shutil.rmtree(folder, ignore_errors=True)


def _server_error(error: BaseException) -> BaseException | None:
    """The server's own error behind ours or upload_file's."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ClientError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
