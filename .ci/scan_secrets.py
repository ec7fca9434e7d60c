"""Look for secrets in what git tracks: `python .ci/scan_secrets.py [FILE …]`.

In: files, by default all that git tracks here. Out: a line for each thing that looks like a key or
a password, without the thing itself, and exit status 1 if there is any. A line that has to hold
one, such as a made-up password of a test, says so with the words `not a secret`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ALLOWED = "not a secret"

RULES = {
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})\b",
    "GitLab token": r"\bglpat-[\w-]{20,}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "PyPI token": r"\bpypi-[\w-]{50,}",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "Slack token or webhook": r"\bxox[abprs]-[\w-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+",
    "JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "password in an address": r"\b[a-z][a-z0-9+]*://[^\s/:@{}$'\"]+:[^\s/@{}$'\"]{6,}@",
    "key or password set to a value": (
        r"(?i)\b\w*(?:passw(?:or)?d|secret_?key|api_?key|auth_?token|fernet_key|jwt_secret)"
        r"[\"']?\s*[:=]\s*[\"'][A-Za-z0-9+/_=-]{16,}[\"']"
    ),
}
PATTERNS = {what: re.compile(pattern) for what, pattern in RULES.items()}


def tracked() -> list[Path]:
    """Every file that git tracks, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return [PROJECT / name for name in listed.stdout.split("\0") if name]


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what it looks like) of a file; none of one that is not text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if ALLOWED not in line:
            for what, pattern in PATTERNS.items():
                if pattern.search(line):
                    yield number, what


def main(arguments: list[str]) -> int:
    """Scan; says how many files were read."""
    paths = [Path(name) for name in arguments] or tracked()
    found = [(path, *finding) for path in paths for finding in findings(path)]
    for path, number, what in found:
        print(f"{path}:{number}: looks like a secret: {what}", file=sys.stderr)
    print(f"secrets: {len(found)} in {len(paths)} files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
