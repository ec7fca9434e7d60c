"""Look for known vulnerabilities in what the lock file pins: `python .ci/audit.py [--require]`.

In: requirements.lock; the vulnerability service of pip-audit, over the network. Out: what is known
of each package, how many were checked, and exit status 1 if anything is. Where the service or the
package index cannot be reached nothing has been checked, which is said; that is exit status 0, or
2 with `--require`.

Notes: pip-audit calls a package that the service does not know "skipped" and everything fine, also
where a mirror knows none of them: so what was checked is counted here. It gets an environment of
its own, below .ci/, so that the project's own stays as the lock file has it.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

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
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    if subprocess.run([*pip, "--quiet", "--quiet", PIP_AUDIT]).returncode:
        return _not_checked(f"{PIP_AUDIT} cannot be installed", otherwise)
    audit = [python, "-m", "pip_audit", "--requirement", LOCK, "--no-deps", "--disable-pip"]
    done = subprocess.run(
        [*audit, "--format=json", "--progress-spinner=off"], capture_output=True, encoding="utf-8"
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        if any(sign in done.stderr for sign in UNREACHABLE):
            return _not_checked("the vulnerability service cannot be reached", otherwise)
        print(done.stderr, file=sys.stderr)
        return 1
    return report(packages, otherwise)


def report(packages: list[dict[str, Any]], otherwise: int) -> int:
    """Print what pip-audit found; returns the exit status.

    Args:
        packages: its `dependencies`.
        otherwise: the status where nothing was checked.
    """
    checked = [package for package in packages if "skip_reason" not in package]
    if not checked:
        return _not_checked("the vulnerability service knows none of the packages", otherwise)
    found = [(package, known) for package in checked for known in package["vulns"]]
    for package, known in found:
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {known['id']}, mended in {fixed}")
    print(f"dependencies: {len(found)} known vulnerabilities in {len(checked)} packages")
    if unknown := [package["name"] for package in packages if "skip_reason" in package]:
        print(f"dependencies: {len(unknown)} NOT CHECKED: {', '.join(unknown)}")
    return 1 if found else 0


def _not_checked(why: str, status: int) -> int:
    print(f"dependencies: NOT CHECKED for known vulnerabilities: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
