"""The Makefile, with this Python as its environment."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_conf_may_hold_an_apostrophe(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "ready").touch()
    conf = """{"collection": "it's mine", "depht": 5}"""
    done = subprocess.run(
        ["make", "nightly", f"VENV={tmp_path}", f"CONF={conf}"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert "depht: there is no such option (found 5)" in done.stderr, done.stdout + done.stderr
