"""The warehouse: DuckDB files that are a view of the published Parquet.

`writer.duckdb` is the loader's own. After every load a copy replaces `perank.duckdb` in
one step, and that is what readers open: they never block the loader, and never see half
a night. Statements are in `sql/`; values are bound or come as registered Arrow tables.
"""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from perank_tasks.artifacts import Artifact
from perank_tasks.errors import ConfigError, StorageError, WarehouseError
from perank_tasks.schemas import RESULT_TABLES

LOCK_PATIENCE_S = 60.0


def sql_folder() -> Path:
    """The folder of SQL files: in the installed package, else beside it in the source tree."""
    package = Path(__file__).parent
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "schema").is_dir():
            return folder
    raise ConfigError(
        f"The SQL files are neither in {package / 'sql'} nor in {package.parent / 'sql'}; "
        "the installation is damaged. Install perank again."
    )


def load_results(
    folder: Path, results: Artifact, patience_s: float = LOCK_PATIENCE_S
) -> dict[str, int]:
    """Put a night's rows into the warehouse, replacing rows of the same key, and publish it.

    Args:
        folder: the warehouse folder; made where it is missing.
        results: an artifact with the tables of `schemas.RESULT_TABLES`.
        patience_s: how long to wait for another process that holds the writer's file.

    Returns:
        {table: rows loaded}.

    Raises:
        WarehouseError: another process holds the file, or it is not a warehouse.
        StorageError: the folder cannot be written.
    """
    tables = {table: results.read(table) for table in RESULT_TABLES}
    with _writing(folder, patience_s) as connection:
        for table, rows in tables.items():
            connection.register(f"incoming_{table}", rows)
        connection.begin()
        for statement in sorted((sql_folder() / "load").glob("*.sql")):
            connection.execute(statement.read_text())
        connection.commit()
    return {table: rows.num_rows for table, rows in tables.items()}


@contextmanager
def reading(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the published copy.

    Raises:
        WarehouseError: there is none yet, or it cannot be read.
    """
    path = folder / "perank.duckdb"
    if not path.is_file():
        raise WarehouseError(
            f"There is no warehouse at {path} yet. Run a night first (`make nightly`, or "
            "`perank nightly`), or set PERANK_HOME to where one ran."
        )
    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise WarehouseError(f"{path} cannot be opened: {error}") from error
    with connection:
        yield connection


def dicts(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """A result's rows by column name."""
    columns = [column[0] for column in result.description or []]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


@contextmanager
def _writing(folder: Path, patience_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """The writer's connection, migrated; publishes the copy when the block succeeds."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "writer.lock").open("w")
    except OSError as error:
        raise StorageError(
            f"The warehouse folder {folder} cannot be written: {error.strerror}. "
            "Make it writable or set PERANK_WAREHOUSE."
        ) from error
    writer = folder / "writer.duckdb"
    with lock:
        deadline = time.monotonic() + patience_s
        _lock(lock.fileno(), writer, deadline)
        with _connect(writer, deadline) as connection:
            _migrate(connection)
            try:
                yield connection
            except duckdb.Error as error:
                raise WarehouseError(
                    f"The rows could not be loaded and the warehouse is as it was: {error}"
                ) from error
            for view in sorted((sql_folder() / "views").glob("*.sql")):
                connection.execute(view.read_text())
            connection.execute("CHECKPOINT")
        _publish(writer, folder / "perank.duckdb")


def _lock(descriptor: int, writer: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise WarehouseError(
                    f"Another perank process is loading into {writer}. Wait for it to finish, "
                    "then load again; the night's Parquet results are safe."
                ) from None
            time.sleep(0.2)


def _connect(writer: Path, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(str(writer))
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise WarehouseError(
                    f"{writer} cannot be opened as a DuckDB database: {error}. Move it away; "
                    "loading again makes a new one from Parquet."
                ) from error
            if time.monotonic() >= deadline:
                raise WarehouseError(
                    f"Another process holds {writer}, the loader's own file: {error}. Close it, "
                    f"read {writer.with_name('perank.duckdb')} instead, and load again; the "
                    "night's Parquet results are safe."
                ) from None
            time.sleep(0.2)


def _migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply the schema files that this database has not seen, all or none."""
    connection.begin()
    connection.execute("CREATE TABLE IF NOT EXISTS schema_versions (version VARCHAR PRIMARY KEY)")
    done = {version for (version,) in connection.execute("FROM schema_versions").fetchall()}
    files = {file.stem: file for file in sorted((sql_folder() / "schema").glob("*.sql"))}
    if unknown := done - files.keys():
        connection.rollback()
        raise WarehouseError(
            f"The warehouse was written by a newer perank (schema {', '.join(sorted(unknown))}). "
            "Use that version, or another PERANK_WAREHOUSE folder."
        )
    for version, file in files.items():
        if version not in done:
            connection.execute(file.read_text())
            connection.execute("INSERT INTO schema_versions VALUES (?)", [version])
    connection.commit()


def _publish(writer: Path, published: Path) -> None:
    temporary = published.with_name(f".{published.name}.tmp")
    try:
        shutil.copyfile(writer, temporary)
        temporary.replace(published)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"The rows are loaded, but the copy for readers could not be written to {published}: "
            f"{error.strerror}. Free space and load again."
        ) from error
