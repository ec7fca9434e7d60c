"""Packages of somebody else's rankers, installed as such: `pip install --target`, without a net."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import PROJECT

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.0"
[project.entry-points."perank.rankers"]
{points}
[tool.setuptools]
py-modules = ["{module}"]
"""


def install(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    code: str,
    points: dict[str, str] | None = None,
    pyproject: str | None = None,
) -> str:
    """Install a package of one module for the rest of the test; returns the folder it is in, for
    the PYTHONPATH of other processes.

    Args:
        source: a folder to make it in.
        points: {ranker: class of the module}, where no `pyproject` says it.
    """
    source.mkdir()
    if pyproject is None:
        lines = [f'{name} = "{module}:{options}"' for name, options in (points or {}).items()]
        name = module.replace("_", "-")
        pyproject = PYPROJECT.format(name=name, module=module, points="\n".join(lines))
    (source / "pyproject.toml").write_text(pyproject)
    (source / f"{module}.py").write_text(code)
    target = source / "installed"
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-q"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
    )
    monkeypatch.syspath_prepend(str(target))
    return str(target)


def documented() -> tuple[str, str, str]:
    """The ranker that the docs show: its module, the `pyproject.toml` beside it, and its arm."""
    page = (PROJECT / "docs" / "rankers.md").read_text().split("## A ranker of your own")[1]
    code, pyproject, arm = re.findall(r"```\w+\n(.*?)```", page, re.DOTALL)
    return code, pyproject, arm
