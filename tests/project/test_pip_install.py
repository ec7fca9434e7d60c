"""What `make` shows of an installation: a count while it goes on, pip's words where it fails."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import PROJECT

SCRIPT = PROJECT / ".ci" / "pip_install.py"


def test_lines_of_pips_become_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("pip_install", SCRIPT)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script.sysconfig, "get_path", lambda name: str(tmp_path))
    pins = tmp_path / "requirements.lock"
    pins.write_text("# Pins.\nsix==1.17\n\ntorch==2.13.0\n", encoding="utf-8")
    count = script.Count(script.wanted(["-r", str(pins)]))
    (tmp_path / "pip-26.dist-info").mkdir()
    for line in ("Collecting six==1.17 (from -r x)\n", "  Downloading six-1.17.whl (11 kB)\n"):
        count.read(line)
    assert str(count) == "found 1 of 2 packages"
    count.read("Requirement already satisfied: torch==2.13.0\n")
    count.read("Installing collected packages: six, torch\n")
    assert str(count) == "installed 0 of 2 packages"
    (tmp_path / "six-1.17.dist-info").mkdir()
    assert str(count) == "installed 1 of 2 packages"


def test_what_pip_said_is_shown_where_it_fails() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--no-index", "no-such-package-anywhere"],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "No matching distribution found for no-such-package-anywhere" in done.stderr
