"""The warehouse: DuckDB files that are a view of the published Parquet.

`writer.duckdb` is the loader's own. After every load a copy replaces `perank.duckdb` in
one step, and that is what readers open: they never block the loader, and never see half
a night. Statements are in `sql/`; values are bound or come as registered Arrow tables.
`perank_tasks.warehouse.derive` fills the derived tables in the same transaction.
"""

import fcntl
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.config import NIGHTLY
from perank_tasks.errors import ConfigError, WarehouseError
from perank_tasks.schemas import EXPERIMENT_TABLES, RESULT_CONTENTS, RESULT_TABLES
from perank_tasks.support.files import storage_errors
from perank_tasks.warehouse.contents import insert_passages
from perank_tasks.warehouse.decisions import publish_acceptance
from perank_tasks.warehouse.derive import VERSION, derive, derive_all
from perank_tasks.warehouse.load_log import collection_of, keys_of, record_experiment, record_load
from perank_tasks.warehouse.nights import Nights
from perank_tasks.warehouse.sql_files import TableRow, statements
from perank_tasks.warehouse.whole import whole

LOCK_PATIENCE_S = 60.0

_READ_ONLY: dict[str, Any] = {"enable_external_access": False, "lock_configuration": True}
"""A read-only connection of DuckDB's may still read and write every other file of its process:
`COPY … TO`, `read_text`, `ATTACH`. These settings refuse that, and to be changed."""


def load_results(
    folder: Path,
    results: Artifact,
    patience_s: float = LOCK_PATIENCE_S,
    acceptance: TableRow | None = None,
) -> dict[str, int]:
    """Put results into the warehouse, replacing rows of the same key, and publish it.

    Verdicts and drift of a night's date and of all later ones are recomputed in the same
    transaction; results of another series get none.

    Args:
        folder: the warehouse folder; made where it is missing.
        results: an artifact with the tables of `schemas.RESULT_TABLES`.
        patience_s: how long to wait for another process that holds the writer's file.
        acceptance: of this night, a row of `schemas.BASELINES`, to take effect with it.

    Returns:
        {table: rows loaded}.

    Raises:
        WarehouseError: another process holds the file, or it is not a warehouse.
        StorageError: the folder cannot be written.
    """
    with writing(folder, patience_s) as connection:
        counts = insert_results(connection, results)
        if acceptance is not None:
            insert_acceptances(connection, publish_acceptance(results.store, acceptance))
        nights = {
            date.fromisoformat(day) for series, day, _ in keys_of(results) if series == NIGHTLY
        }
        if nights:
            derive(connection, collection_of(results.reference), min(nights), nights)
        # Before the commit: the log may know more than the tables, never less.
        record_load(results)
    return counts


def load_acceptance(
    folder: Path, store: Store, acceptance: TableRow, patience_s: float = LOCK_PATIENCE_S
) -> None:
    """Write an acceptance down, load it, and judge the dates it holds for again.

    Args:
        acceptance: a row of `schemas.BASELINES`.

    Raises:
        WarehouseError: as `load_results`.
        ConfigError: what it accepts is not in the warehouse, or is incomplete.
    """
    with writing(folder, patience_s) as connection:
        _check_is_there(connection, acceptance)
        insert_acceptances(connection, publish_acceptance(store, acceptance))
        derive(connection, acceptance["collection"], acceptance["as_of"], set())


def insert_results(connection: duckdb.DuckDBPyConnection, results: Artifact) -> dict[str, int]:
    """Replace the rows of the same keys by those of an artifact; derives nothing."""
    counts = _insert(connection, results, [*RESULT_TABLES, *RESULT_CONTENTS], "load")
    return counts | {"passages": insert_passages(connection, results)}


def insert_experiment(connection: duckdb.DuckDBPyConnection, results: Artifact) -> dict[str, int]:
    """Replace the rows of an experiment of the same name and date."""
    return _insert(connection, results, EXPERIMENT_TABLES, "load_experiment")


def _insert(
    connection: duckdb.DuckDBPyConnection, results: Artifact, names: Iterable[str], folder: str
) -> dict[str, int]:
    """Run the statements of a folder over an artifact's tables; returns {table: rows}.

    DuckDB reads the files as a stream, so a night need not fit into memory.
    """
    tables = {name: results.dataset(name) for name in names}
    for name, rows in tables.items():
        connection.register(f"incoming_{name}", rows)
    for _, statement in statements(folder):
        connection.execute(statement)
    return {name: rows.count_rows() for name, rows in tables.items()}


def load_experiment(
    folder: Path, results: Artifact, patience_s: float = LOCK_PATIENCE_S
) -> dict[str, int]:
    """Put an experiment's rows into the warehouse, replacing those of the same name and date.

    Args:
        results: an artifact with the tables of `schemas.EXPERIMENT_TABLES`.

    Returns:
        {table: rows loaded}.

    Raises:
        WarehouseError, StorageError: as `load_results`.
    """
    with writing(folder, patience_s) as connection:
        counts = insert_experiment(connection, results)
        record_experiment(results)
    return counts


def insert_acceptances(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Append acceptances; one that is there already stays as it is."""
    connection.register("incoming_baselines", rows)
    connection.execute("INSERT OR IGNORE INTO baselines BY NAME SELECT * FROM incoming_baselines")


def _check_is_there(connection: duckdb.DuckDBPyConnection, act: TableRow) -> None:
    runs = [
        run
        for run in Nights(connection, act["collection"]).of(act["run_date"])
        if act["arm"] in (None, run.arm)
    ]
    if not any(run.comparable for run in runs):
        name = "/".join(str(act[k]) for k in ("run_date", "arm", "collection") if act[k])
        why = "incomplete, unmeasured or limited" if runs else "not in the warehouse"
        raise ConfigError(
            f"{name} is {why} and cannot be accepted. See what there is: perank sql "
            '"SELECT run_date, collection, arm, status, queries, judged_queries FROM runs"'
        )


def reading(folder: Path, *, even_if_held: bool = False) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the published copy, which reaches no other file; nights loaded
    later are not in it. Use it in a `with`, or close it.

    Args:
        even_if_held: where the copy cannot be opened, since another program has it open to write,
            read the loader's own file. Its rows are the same, and the loader waits: not for long.

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
        try:
            return duckdb.connect(str(path), read_only=True, config=_READ_ONLY)
        except duckdb.Error:
            writer = folder / "writer.duckdb"
            if not even_if_held or not writer.is_file():
                raise
            path = writer
            return duckdb.connect(str(path), read_only=True, config=_READ_ONLY)
    except duckdb.Error as error:
        raise WarehouseError(f"{path} cannot be opened: {error}") from error


@contextmanager
def writing(folder: Path, patience_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """The writer's connection, migrated, in a transaction; publishes the copy when it succeeds."""
    with locked(folder, patience_s) as deadline:
        writer = folder / "writer.duckdb"
        with whole(writer), _connect(writer, deadline) as connection:
            _migrate(connection)
            try:
                connection.begin()
                for folder_of_sql in ("views", "macros"):  # macros may read views
                    for _, statement in statements(folder_of_sql):
                        connection.execute(statement)
                yield connection
                if connection.execute("FROM derivation").fetchall() != [(VERSION,)]:
                    derive_all(connection)
                connection.commit()
            except duckdb.Error as error:
                raise WarehouseError(
                    f"The rows could not be loaded and the warehouse is as it was: {error}"
                ) from error
            connection.execute("CHECKPOINT")
        publish(writer)


@contextmanager
def locked(folder: Path, patience_s: float) -> Iterator[float]:
    """Be the only writer of a warehouse folder; yields until when to wait for its file."""
    remedy = "It is the warehouse's folder: make it writable or set PERANK_WAREHOUSE."
    with storage_errors(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "writer.lock").open("w", encoding="utf-8")
    with lock:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise WarehouseError(
                        f"Another perank process is loading into {folder / 'writer.duckdb'}. Wait "
                        "for it to finish, then load again; the night's Parquet results are safe."
                    ) from None
                time.sleep(0.2)
        yield deadline


def _connect(writer: Path, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(str(writer))
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise WarehouseError(
                    f"{writer} cannot be opened as a DuckDB database: {error}. Move it away; "
                    "`perank warehouse rebuild` makes a new one from Parquet."
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
    files = dict(statements("schema"))
    if unknown := done - files.keys():
        raise WarehouseError(
            f"The warehouse was written by a newer perank (schema {', '.join(sorted(unknown))}). "
            "Use that version, or another PERANK_WAREHOUSE folder."
        )
    for version in sorted(files.keys() - done):
        try:
            connection.execute(files[version])
        except duckdb.Error as error:
            raise WarehouseError(
                f"The warehouse could not be migrated to schema {version} and is as it was: {error}"
            ) from error
        connection.execute("INSERT INTO schema_versions VALUES (?)", [version])
    connection.commit()


def publish(writer: Path) -> None:
    """Replace the readers' copy by the writer's file, in one step."""
    published = writer.with_name("perank.duckdb").resolve()  # a link to it stays a link
    # Always of one name: what a killed loader leaves is overwritten by the next.
    temporary = published.with_name(f".{published.name}.tmp")
    remedy = "It is the copy for readers; the rows are loaded. Free space and load again."
    try:
        with storage_errors(published, remedy):
            shutil.copyfile(writer, temporary)
            temporary.replace(published)
    finally:
        temporary.unlink(missing_ok=True)
