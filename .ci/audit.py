"""Look for known vulnerabilities in what the lock file pins: `python .ci/audit.py [--require]`.

In: requirements.lock; the vulnerability service of pip-audit, over the network. Out: pip-audit's
report and its exit status. Where the service or the package index cannot be reached nothing has
been checked, which is said; that is exit status 0, or 2 with `--require`.

Notes: pip-audit gets an environment of its own, below .ci/, so that the project's own stays as the
lock file has it.
"""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCK = HERE.parent / "requirements.lock"
ENVIRONMENT = HERE / "audit"
PIP_AUDIT = "pip-audit==2.10.1"
UNREACHABLE = (
    "ConnectionError",
    "ServiceError",
    "Max retries exceeded",
    "NameResolutionError",
    "Failed to resolve",
    "Read timed out",
)


def main(arguments: list[str]) -> int:
    """Audit the lock file."""
    otherwise = 2 if "--require" in arguments else 0
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", PIP_AUDIT]
    if subprocess.run(pip).returncode:
        return _not_checked(f"{PIP_AUDIT} cannot be installed", otherwise)
    audit = [python, "-m", "pip_audit", "--requirement", LOCK, "--no-deps", "--disable-pip"]
    done = subprocess.run([*audit, "--progress-spinner=off"], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode and any(sign in said for sign in UNREACHABLE):
        return _not_checked("the vulnerability service cannot be reached", otherwise)
    print(said.strip())
    return done.returncode


def _not_checked(why: str, status: int) -> int:
    print(f"dependencies: NOT CHECKED for known vulnerabilities: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
