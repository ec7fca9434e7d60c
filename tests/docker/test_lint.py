"""Both linters are clean, with the rules that docker/.dclintrc.yaml leaves out."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import PROJECT, program


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "docker/Dockerfile"], cwd=PROJECT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def dclint(compose: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("dclint"), "--config", "docker/.dclintrc.yaml", compose],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )


def test_dclint_finds_nothing_in_the_compose_file() -> None:
    done = dclint(PROJECT / "docker" / "compose.yaml")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ("'127.0.0.1:${PERANK_PORT:-8080}:8080'", "'8080:8080'", "no-unbound-port-interfaces"),
        ("redis:7.4.5-bookworm", "redis", "service-image-require-explicit-tag"),
    ],
)
def test_dclint_would_find_something(tmp_path: Path, good: str, bad: str, rule: str) -> None:
    text = (PROJECT / "docker" / "compose.yaml").read_text()
    assert good in text
    worse = tmp_path / "compose.yaml"
    worse.write_text(text.replace(good, bad))
    done = dclint(worse)
    assert done.returncode == 1
    assert rule in done.stdout
