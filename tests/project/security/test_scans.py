"""The scans find what they should: secrets, which are not shown, and vulnerable packages."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import PROJECT

SCAN = PROJECT / ".ci" / "scan_secrets.py"

# In two parts, so that this file is not found.
SECRETS = {
    "private key": ("-----BEGIN RSA PRIV", "ATE KEY-----"),
    "AWS access key": ("AKIA", "IOSFODNN7EXAMPLE"),
    "GitHub token": ("ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"),
    "GitLab token": ("glpat-", "abcdefghij0123456789"),
    "Hugging Face token": ("hf_", "abcdefghijklmnopqrstuvwxyzABCDEF"),
    "PyPI token": ("pypi-", "AgEIcHlwaS5vcmc" * 4),
    "npm token": ("npm_", "abcdefghijklmnopqrstuvwxyz0123456789"),
    "Slack token or webhook": ("https://hooks.slack.com/", "services/T0000/B0000/XXXXXXXX"),
    "JSON web token": ("eyJhbGciOiJIUzI1", "NiJ9.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4"),
    "password in an address": ("postgresql://airflow:", "hunter2hunter2@db:5432/airflow"),
    "key or password set to a value": ("password = ", '"correcthorsebatterystaple"'),
}


def scan(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCAN, *paths], capture_output=True, text=True)


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_and_not_shown(tmp_path: Path, what: str) -> None:
    file = tmp_path / "settings.py"
    secret = "".join(SECRETS[what])
    file.write_text(f"first = 1\n{secret}\n")
    done = scan(file)
    assert done.returncode == 1
    assert f"{file}:2: looks like a secret: {what}" in done.stderr
    assert secret not in done.stdout + done.stderr
    file.write_text(f"{secret}  # not a secret\n")
    assert scan(file).returncode == 0


def test_ordinary_lines_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "settings.py"
    file.write_text(
        "AIRFLOW__CORE__FERNET_KEY_CMD: cat /run/secrets/fernet_key\n"
        'password = os.environ["PASSWORD"]\n'
        'f"postgresql+psycopg2://airflow:{postgres}@postgres:5432/airflow"\n'
        "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n"
    )
    assert scan(file).returncode == 0


def test_the_project_holds_none() -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout: what is tracked is not known")
    done = scan()
    assert done.returncode == 0, done.stderr


def test_an_audit_that_checked_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    report = runpy.run_path(str(PROJECT / ".ci" / "audit.py"))["report"]
    unknown = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
    fine = {"name": "b", "version": "1", "vulns": []}
    bad = {"name": "c", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    assert report([unknown, unknown], 0) == 0
    assert "NOT CHECKED" in capsys.readouterr().err
    assert report([unknown, unknown], 2) == 2
    assert report([unknown, fine], 2) == 0
    assert "1 NOT CHECKED: a" in capsys.readouterr().out
    assert report([fine, bad], 0) == 1
    assert "c 1: CVE-1, mended in 2" in capsys.readouterr().out
