"""Files and folders, written whole or not at all; a system's refusal, said with its remedy."""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perank_tasks.errors import StorageError


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds, else vanishes.

    A block that removes the temporary file leaves `path` as it was.

    Args:
        remedy: sentences for `storage_errors`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with storage_errors(path, remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.exists():
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
                temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


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
        StorageError: in place of every OSError but those of pyarrow that S3 is the cause of:
            what is being read there is not what cannot be written here.
    """
    try:
        yield
    except OSError as error:
        if "AWS Error" in str(error):
            raise
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. {remedy}"
        ) from error
