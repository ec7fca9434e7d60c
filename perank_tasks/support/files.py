"""Files and folders, written whole or not at all; a system's refusal, said with its remedy."""

import errno
import hashlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from perank_tasks.errors import StorageError

log = logging.getLogger(__name__)

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Descriptors of the process by their names: what a shell sent into a file is not replaced."""


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def what_lies_instead(path: Path) -> str | None:
    """What a download left in a file's place, with the remedy, where it is not the file itself."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64).lstrip().lower()
    except OSError:
        return None
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it stands for: run `git lfs pull` in its folder"
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, perhaps of a login, not the file asked for: fetch it anew"
    return None


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """A temporary path whose content `path` gets if the block succeeds; else it vanishes.

    A regular file is replaced in one step: it keeps its permissions, and a symbolic link still
    leads to it. A device or a pipe stays what it is and is written to. A block that removes the
    temporary file leaves `path` as it was.

    Args:
        remedy: sentences for `storage_errors`.
    """
    with storage_errors(path, remedy), ExitStack() as stack:
        is_special = str(path) in _STREAMS or (path.exists() and not path.is_file())
        target = path.resolve()
        if is_special:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = target.parent
            folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{target.name[:200]}.{uuid.uuid4().hex[:8]}.tmp"
        stack.callback(temporary.unlink, missing_ok=True)
        yield temporary
        if not temporary.exists():
            return
        if is_special:
            with temporary.open("rb") as content, _open_special(path) as sink:
                shutil.copyfileobj(content, sink)
            return
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)


def _open_special(path: Path) -> BinaryIO:
    """A device or a pipe, to write to; a pipe that nobody reads yet is waited for, and said."""
    if str(path) in _STREAMS:
        return os.fdopen(os.dup(_STREAMS[str(path)]), "wb")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        log.warning("%s: waiting until somebody reads it", path)
        descriptor = os.open(path, os.O_WRONLY)
    return os.fdopen(descriptor, "wb")


@contextmanager
def making_folder(target: Path, remedy: str, *, replace: bool = False) -> Iterator[Path]:
    """A scratch folder that becomes `target`, readable for everybody, if the block succeeds.

    It appears by one rename. Of two processes that make the same at once, the second's identical
    work is thrown away, unless it is to replace what is there.

    Args:
        remedy: sentences for `storage_errors`.
        replace: a folder that is there gives way.
    """
    with storage_errors(target, remedy):
        target = target.resolve()  # a link to the folder that gives way stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield scratch
            # mkdtemp and safetensors make private ones; models are shared between users.
            scratch.chmod(0o755)
            for path in scratch.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            if replace and target.exists():
                shutil.rmtree(target)
            try:
                scratch.rename(target)
            except OSError:
                if replace or not target.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def storage_errors(path: Path, remedy: str) -> Iterator[None]:
    """Say of an operating system's refusal where it happened and what to do.

    Args:
        remedy: what is lost or safe, and what the user is to do; whole sentences.

    Raises:
        StorageError: in place of every OSError, and of what safetensors makes of one, but for
            those of pyarrow that S3 is the cause of: what is being read there is not what cannot be
            written here.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if "AWS Error" in str(error):
            raise
        why = getattr(error, "strerror", None) or error
        raise StorageError(f"{path} cannot be written: {why}. {remedy}") from error
