"""Where things are: the artifact root, the warehouse, the caches; and what this machine has: its
cores, and how much of a stage's work they do side by side.

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
| `PERANK_THREADS`    | `Settings.threads` says        | threads of one task                    |
| `PERANK_AWS_CONN_ID`| the standard chain of AWS      | Airflow connection to reach S3 by      |
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

from perank_tasks.errors import ConfigError

WORKER_BYTES = 2 << 30
"""Memory that there must be for each process that works side by side with others. The embedded
models take 1.1 GiB; for a larger one on a CPU, set PERANK_THREADS, and there are fewer."""


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
    """Of a process that has the machine to itself: `PERANK_THREADS`, or all cores."""
    side_by_side: int = 1
    """Pieces of a stage's work that are done at once, each by a process of its own. Where there is
    a GPU, one. Elsewhere as many as cores and memory allow, of `PERANK_THREADS` or one thread each:
    threads that wait for each other in every product stall as soon as anything else runs here."""
    arms: str | None = None
    """TOML file of first stages and arms; None: the one that comes with the package."""
    aws_conn_id: str | None = None
    """The Airflow connection by which tasks reach S3; None: the standard chain."""

    @property
    def of_a_piece(self) -> "Settings":
        """The settings of a process that does one of the pieces: its share of the threads."""
        share = cores() // self.side_by_side
        return replace(self, threads=min(self.threads, share), side_by_side=1)

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
            threads=_threads() or cores(),
            side_by_side=_side_by_side(_threads() or 1),
            arms=os.environ.get("PERANK_ARMS") or None,
            aws_conn_id=os.environ.get("PERANK_AWS_CONN_ID") or None,
        )


def cores() -> int:
    """How many cores this process may use: of the machine, or of its container's quota."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        count = len(os.sched_getaffinity(0))
    match _container_limit("cpu.max"):
        case [quota, period]:
            count = min(count, int(quota) // int(period))
    return max(1, count)


def gpus() -> list[str]:
    """The models of the NVIDIA GPUs here, as their driver names them."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]


def _has_gpu() -> bool:
    """Whether torch finds a GPU here, as far as can be told without importing it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    built_without = version("torch").endswith("+cpu")
    return not hidden and not built_without and (bool(gpus()) or Path("/dev/kfd").exists())


def _side_by_side(threads: int) -> int:
    """How many processes of so many threads this machine has room for."""
    if _has_gpu():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    match _container_limit("memory.max"):
        case [limit]:
            memory = min(memory, int(limit))
    return max(1, min(cores() // threads, memory // WORKER_BYTES))


def _container_limit(name: str) -> list[str]:
    """What the file of that name of this container's control group says; empty: no limit."""
    with suppress(OSError):
        words = Path("/sys/fs/cgroup", name).read_text(encoding="utf-8").split()
        return words if words[0] != "max" else []
    return []


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


def _threads() -> int | None:
    value = os.environ.get("PERANK_THREADS")
    if not value:
        return None
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(
            f"PERANK_THREADS is {value!r}; expected a whole number of 1 or more. "
            "Unset it, and the machine's cores are used."
        )
    return int(value)
