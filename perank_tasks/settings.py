"""Where things are: the artifact root, the warehouse, the caches, and how many threads.

Read from the environment when a command or a task starts, never while a file is
imported. What is *run* is `config.py`'s business; nothing here changes a result's name.

| variable            | default                        |                                        |
|---------------------|--------------------------------|----------------------------------------|
| `PERANK_HOME`       | `var` in the current folder    | everything below is inside it          |
| `PERANK_ROOT`       | `$PERANK_HOME/artifacts`       | Parquet artifacts; `s3://bucket/prefix`|
| `PERANK_WAREHOUSE`  | `$PERANK_HOME/warehouse`       | DuckDB files                           |
| `PERANK_CACHE`      | `$PERANK_HOME/cache`           | unpacked models, files to and from S3  |
| `PERANK_BENCHMARKS` | `$PERANK_HOME/benchmarks`      | results of `perank bench`              |
| `PERANK_REPORTS`    | `$PERANK_HOME/reports`         | the nights' pages                      |
| `PERANK_COLLECTION` | `pydocs`                       | the collection when none is asked for  |
| `PERANK_ARMS`       | the package's own              | TOML file that declares a night's arms |
| `PERANK_THREADS`    | all cores of this process      | threads of one task                    |
| `PERANK_AWS_CONN_ID`| the standard chain of AWS      | Airflow connection to reach S3 by      |
"""

import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from perank_tasks.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """The places and the thread count of this process."""

    root: str
    """Artifacts live in `root/kind/collection/key/`: a folder, or `s3://bucket/prefix`."""
    warehouse: Path
    """Folder of `perank.duckdb`, the copy to read, and `writer.duckdb`, the loader's own."""
    cache: Path
    """Files that can be made again at any time."""
    benchmarks: Path
    """Results of `perank bench`, a folder a run."""
    reports: Path
    """The nights' pages, `<collection>/<date>.html`, and `index.html`."""
    collection: str
    """Spec of the collection used when a run names none."""
    threads: int
    """Threads one task may use. With n tasks side by side: cores / n."""
    arms: str | None = None
    """TOML file of first stages and arms; None: the one that comes with the package."""
    aws_conn_id: str | None = None
    """The Airflow connection by which tasks reach S3; None: the standard chain."""

    @property
    def published_warehouse(self) -> Path:
        """The DuckDB file for readers, replaced whole after every load."""
        return self.warehouse / "perank.duckdb"

    def page(self, collection: str, run_date: date) -> Path:
        """A night's page, written or not."""
        return self.reports / collection / f"{run_date}.html"

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the variables above.

        Raises:
            ConfigError: `PERANK_THREADS` is not a positive whole number, or a place is a
                malformed URI or one that has to be on this machine.
        """
        home = local_folder(os.environ.get("PERANK_HOME") or "var")
        return cls(
            root=_root(home / "artifacts"),
            warehouse=_folder("PERANK_WAREHOUSE", home / "warehouse"),
            cache=_folder("PERANK_CACHE", home / "cache"),
            benchmarks=_folder("PERANK_BENCHMARKS", home / "benchmarks"),
            reports=_folder("PERANK_REPORTS", home / "reports"),
            collection=os.environ.get("PERANK_COLLECTION") or "pydocs",
            threads=_threads(),
            arms=os.environ.get("PERANK_ARMS") or None,
            aws_conn_id=os.environ.get("PERANK_AWS_CONN_ID") or None,
        )


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _root(default: Path) -> str:
    value = os.environ.get("PERANK_ROOT") or ""
    if value.startswith("s3://"):
        return value
    return str(_folder("PERANK_ROOT", default, "a folder or s3://bucket/prefix"))


def _folder(variable: str, default: Path, expected: str = "a folder on this machine") -> Path:
    value = os.environ.get(variable) or str(default)
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", value):
        raise ConfigError(
            f"{variable} begins with {scheme.group()!r}; expected {expected}. "
            "docs/storage.md says what may lie on S3."
        )
    return local_folder(value)


def local_folder(value: str) -> Path:
    """A folder that a variable names. Nobody but a shell, which service files and Compose do
    without, has expanded a tilde in it."""
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{value!r} names no folder ({error}). Write the whole path.") from error


def _threads() -> int:
    value = os.environ.get("PERANK_THREADS")
    if not value:
        return cores()
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(
            f"PERANK_THREADS is {value!r}; expected a whole number of 1 or more. "
            "Unset it to use every core."
        )
    return int(value)
