"""requirements.lock pins what pyproject.toml asks for: all of it, and in versions that fit."""

import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.needs import PROJECT


def asked_for() -> dict[str, list[str]]:
    """Requirements by where pyproject.toml names them."""
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    return {
        "dependencies": pyproject["project"]["dependencies"],
        **pyproject["project"]["optional-dependencies"],
        "hold": pyproject["tool"]["perank"]["lock"]["hold"],
    }


def pinned() -> list[str]:
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def misfits(requirements: Iterable[str], pins: Iterable[str]) -> list[str]:
    """What is asked for and not pinned, or pinned to a version that does not fit."""
    versions: dict[str, str] = {}
    for pin in map(Requirement, pins):
        (equal,) = pin.specifier
        assert equal.operator == "==", pin
        versions[canonicalize_name(pin.name)] = equal.version
    found = []
    for requirement in map(Requirement, requirements):
        version = versions.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement} is locked as {version}")
    return found


@pytest.mark.parametrize("where", ["dependencies", "cluster", "dev", "hold"])
def test_every_pin_fits(where: str) -> None:
    assert misfits(asked_for()[where], pinned()) == []


@pytest.mark.parametrize("where", ["dependencies", "cluster", "dev"])
def test_lower_bounds_are_what_was_run(where: str) -> None:
    """The lock's minor versions: an older one is a guess."""
    pins = {canonicalize_name(p.name): p for p in map(Requirement, pinned())}
    for requirement in map(Requirement, asked_for()[where]):
        (locked,) = pins[canonicalize_name(requirement.name)].specifier
        minor = ".".join(locked.version.split(".")[:2])
        assert f">={minor}" in str(requirement.specifier).split(","), requirement


def test_no_part_of_pyproject_is_forgotten() -> None:
    assert set(asked_for()) == {"dependencies", "cluster", "dev", "hold"}


def test_a_pin_that_does_not_fit_is_found() -> None:
    pins = ["celery==5.7.0", "ruff==0.17.6"]
    assert misfits(["celery>=5.5,<5.7", "ruff>=0.17", "Redis>=6"], pins) == [
        "celery<5.7,>=5.5 is locked as 5.7.0",
        "Redis>=6 is locked as None",
    ]


def test_no_package_is_pinned_twice() -> None:
    names = [canonicalize_name(Requirement(pin).name) for pin in pinned()]
    assert len(names) == len(set(names))


def refusing_pythons(requires_python: str) -> list[str]:
    """First patch releases, as distributions ship them, of our Pythons that a package refuses."""
    supported = SpecifierSet(requires_python)
    return [python for python in ("3.11.0", "3.12.0", "3.13.0") if python not in supported]


def test_every_pin_installs_on_the_first_patch_release_of_each_python() -> None:
    pins = {canonicalize_name(Requirement(pin).name) for pin in pinned()}
    refused = {
        name: pythons
        for package in distributions()
        if (name := canonicalize_name(package.metadata["Name"])) in pins
        and (pythons := refusing_pythons(package.metadata.get("Requires-Python", "")))
    }
    assert refused == {}


def test_a_package_that_wants_a_later_patch_release_is_seen() -> None:
    assert refusing_pythons(">=3.11.5") == ["3.11.0"]
