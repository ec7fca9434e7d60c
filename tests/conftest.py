"""Shared by all tests: nothing reaches the network or the user's own results."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`PERANK_HOME` below the test's own folder, and no setting of the user's."""
    for name in ("ROOT", "WAREHOUSE", "REPORTS", "COLLECTION", "DAGS"):
        monkeypatch.delenv(f"PERANK_{name}", raising=False)
    path = tmp_path / "perank"
    monkeypatch.setenv("PERANK_HOME", str(path))
    return path
