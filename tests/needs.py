"""Programs of the system that a test runs against: found, or said to be missing.

In CI (`CI=true`) a missing one fails the test, for there it should have been installed: nothing is
left out in silence. Elsewhere the test is skipped, with what to install.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

PROJECT = Path(__file__).parents[1]

PACKAGES = {
    "initdb": "postgresql",
    "redis-server": "redis-server",
    "chromium": "chromium",
    "dclint": "npm's dclint",
}
"""{program: the package that has it}; `.ci/install` installs them all."""

_BESIDE_PATH = ("/usr/lib/postgresql/*/bin", f"{PROJECT}/.ci/node/node_modules/.bin")


def find_program(name: str) -> Path | None:
    """The program of that name: this environment's, that on the path, or where packages hide it."""
    beside = Path(sys.executable).with_name(name)
    if found := beside if beside.is_file() else shutil.which(name):
        return Path(found)
    for folders in _BESIDE_PATH:
        root, _, pattern = folders.partition("*")
        places = sorted(Path(root).glob(f"*{pattern}")) if pattern else [Path(folders)]
        for place in reversed(places):
            if os.access(place / name, os.X_OK):
                return place / name
    return None


def program(name: str) -> Path:
    """The program, or the end of the test."""
    return find_program(name) or missing(name, PACKAGES.get(name, name))


def missing(name: str, package: str) -> NoReturn:
    """Fail in CI, skip elsewhere."""
    text = f"{name} is not installed: install {package}, or run .ci/install"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(text)
    pytest.skip(text)
