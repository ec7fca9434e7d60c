"""The loader's own file, whole or as it was: what a full disk leaves behind, and what it takes.

In: the path of `writer.duckdb`. Out: an error that says what to do, and no half-made database.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from perank_tasks.errors import StorageError, WarehouseError

EMPTY_BYTES = 5 * 2**20
"""Size of a warehouse without rows."""


@contextmanager
def whole(writer: Path) -> Iterator[None]:
    """Remove a database that the block began and could not finish; say what a full disk needs."""
    size = writer.stat().st_size if writer.exists() else None
    try:
        yield
    except BaseException as error:
        if size is None:
            for path in (writer, writer.with_name(f"{writer.name}.wal")):
                path.unlink(missing_ok=True)
        if "No space left on device" in str(error):
            free, needed = (
                f"{count / 2**20:,.0f} MB"
                for count in (shutil.disk_usage(writer.parent).free, 2 * (size or EMPTY_BYTES))
            )
            raise StorageError(
                f"{writer} cannot be written: the disk is full ({free} free). A load needs room "
                f"for its rows twice, in this file and in the copy for readers: more than {needed} "
                "in all. Free space and run the same command again; the night's Parquet results "
                "are safe."
            ) from error
        if isinstance(error, duckdb.Error):
            raise WarehouseError(
                f"{writer} could not be written: {error}. Load again; the night's Parquet results "
                "are safe."
            ) from error
        raise
