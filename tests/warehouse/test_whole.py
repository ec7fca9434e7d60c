"""A disk that fills up while the warehouse is loaded: what is needed is said, nothing half-made."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.errors import StorageError
from perank_tasks.warehouse.database import load_results, reading
from tests.results import BASE, publish_results

DAYS = [date(2026, 1, day) for day in (1, 2)]


class Disk:
    """A small disk of its own."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root mounts disks")

    def resize(self, kilobytes: int) -> None:
        command = ["mount", "-o", f"remount,size={kilobytes}k", str(self.folder)]
        subprocess.run(command, check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    small = Disk(tmp_path / "disk", kilobytes=200)
    yield small
    subprocess.run(["umount", str(small.folder)], check=True)


def counts(folder: Path) -> int:
    with reading(folder) as warehouse:
        (row,) = warehouse.execute("SELECT count(*) FROM runs").fetchall()
    return int(row[0])


@pytest.mark.parametrize("kilobytes", [4, 200, 1000, 3000, 5000])
def test_a_disk_full_at_the_first_load_leaves_nothing_half_made(
    disk: Disk, tmp_path: Path, kilobytes: int
) -> None:
    results = publish_results(tmp_path, DAYS[0], {"bm25": BASE})
    folder = disk.folder / "warehouse"
    disk.resize(kilobytes)
    with pytest.raises(StorageError, match=r"perank|writer|warehouse") as failure:
        load_results(folder, results)
    assert "room" in str(failure.value) or "ree space" in str(failure.value)
    disk.resize(100_000)
    load_results(folder, results)
    assert counts(folder) == 1


def test_a_disk_full_at_a_later_load_leaves_the_warehouse_as_it_was(
    disk: Disk, tmp_path: Path
) -> None:
    first, second = (publish_results(tmp_path, day, {"bm25": BASE}) for day in DAYS)
    folder = disk.folder / "warehouse"
    disk.resize(100_000)
    load_results(folder, first)
    used = sum(path.stat().st_size for path in folder.iterdir()) // 1024
    disk.resize(used + 40)
    with pytest.raises(StorageError, match="ree space"):
        load_results(folder, second)
    assert counts(folder) == 1
    disk.resize(100_000)
    load_results(folder, second)
    assert counts(folder) == 2


def test_a_first_load_that_breaks_off_leaves_no_database(tmp_path: Path) -> None:
    """Wherever it breaks off: here no file may grow beyond a few blocks."""
    publish_results(tmp_path, DAYS[0], {"bm25": BASE})
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from perank_tasks.artifacts.store import Store\n"
        "from perank_tasks.warehouse.database import load_results\n"
        "root = Path(sys.argv[1])\n"
        "(results,) = Store(root).published('results', 'c')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "load_results(root / 'warehouse', results)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode != 0
    assert b"WarehouseError" in done.stderr
    assert [path.name for path in (tmp_path / "warehouse").iterdir()] == ["writer.lock"]
