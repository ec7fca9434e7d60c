"""Files: written whole or not at all, and an operating system's refusal said with its remedy."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perank_tasks.errors import StorageError


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds, else vanishes.

    Args:
        remedy: sentences for `storage_errors`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with storage_errors(path, remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def storage_errors(path: Path, remedy: str) -> Iterator[None]:
    """Say of an operating system's refusal where it happened and what to do.

    Args:
        remedy: what is lost or safe, and what the user is to do; whole sentences.

    Raises:
        StorageError: in place of every OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. {remedy}"
        ) from error
