"""`pip install` with a count instead of its many lines: in, pip's arguments; out, its status.

A line every ten seconds and one at the end say how many packages are found and, when pip installs
them, how many are there; in a terminal the line is rewritten every second. What pip said is printed
where it fails.
"""

import re
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

FOUND = re.compile(r"(?:Collecting|Requirement already satisfied:|Obtaining) ")
INSTALLING = "Installing collected packages: "


class Count:
    """How far pip is, by its lines and by what lies in the environment."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.found = self.names = self.before = 0

    def read(self, line: str) -> None:
        """Take a line of pip's."""
        if FOUND.match(line):
            self.found += 1
        elif line.startswith(INSTALLING):
            self.before, self.names = installed(), line.count(",") + 1

    def __str__(self) -> str:
        if self.names:
            done = min(self.names, max(0, installed() - self.before))
            return f"installed {done} of {self.names} packages"
        total = f" of {self.wanted}" if self.wanted >= self.found else ""
        return f"found {self.found}{total} packages"


def installed() -> int:
    """How many packages the environment has."""
    return len(list(Path(sysconfig.get_path("purelib")).glob("*.dist-info")))


def wanted(arguments: list[str]) -> int:
    """How many packages the requirement files name; 1 where there are none."""
    files = [Path(arguments[i + 1]) for i, word in enumerate(arguments) if word == "-r"]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return len([line for line in lines if re.match(r"\w", line)]) or 1


def main(arguments: list[str]) -> int:
    """Install; returns pip's exit status."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    count, begin = Count(wanted(arguments)), time.monotonic()
    said: list[str] = []
    is_terminal, ended = sys.stdout.isatty(), threading.Event()

    def show() -> None:
        text = f"  {count}, {time.monotonic() - begin:.0f} s"
        print(f"\r{text}\033[K" if is_terminal else text, end="" if is_terminal else "\n")
        sys.stdout.flush()

    def tell() -> None:
        while not ended.wait(1 if is_terminal else 10):
            show()

    process = subprocess.Popen(
        [*pip, "--progress-bar=off", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    assert process.stdout
    for line in process.stdout:
        said.append(line)
        count.read(line)
    status = process.wait()
    ended.set()
    teller.join()
    show()
    print("\n" if is_terminal else "", end="")
    if status:
        print("".join(said[-40:]), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
