"""The fingerprint: what computes a night, in a dozen short strings.

Candidates, rankings and measures carry its hash in their keys: the same date with the
same fingerprint finds them done, any difference computes them anew. It is light to take
(no torch import), since every plan takes it.
"""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from perank_tasks.settings import gpus

_PACKAGE = Path(__file__).parent.parent

# Libraries whose arithmetic or text handling can change a ranking or a measure.
_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "sentence-transformers",
    "numpy",
    "bm25s",
    "PyStemmer",
    "ranx",
    "pyarrow",
    "duckdb",
)


def fingerprint(threads: int) -> dict[str, str]:
    """Code, libraries and hardware of this process.

    Args:
        threads: threads a task uses; sums in another order can flip near ties.
    """
    return {
        "code": _code_hash(),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "accelerators": ", ".join(gpus()) or "none",
        "cores": str(os.cpu_count()),
        "threads": str(threads),
        **{f"library.{name}": _version(name) for name in _LIBRARIES},
    }


@cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(_PACKAGE).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _commit() -> str:
    """The git commit of a source checkout, `+` where files differ from it."""
    describe = ["describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    git = ["git", "-C", str(_PACKAGE), *describe]
    try:
        return subprocess.run(git, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"release {_version('perank')}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
