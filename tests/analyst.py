"""An analyst: a process with a session on the warehouse that stays open and goes on asking."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SESSION = """
import select, sys
import duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
rows = "SELECT count(*), sum(hash(run_date, query_id, passage_id, rank)) FROM rankings"
first = connection.execute(rows).fetchone()
print("open", flush=True)
asked = 0
while not select.select([sys.stdin], [], [], 0.05)[0]:
    assert connection.execute(rows).fetchone() == first
    connection.execute("FROM night_verdicts").fetchall()
    asked += 1
print("asked", asked)
"""


@contextmanager
def analyst_at_work(warehouse: Path, questions: int) -> Iterator[None]:
    """A session that is open for as long as the block.

    Args:
        warehouse: the published file.
        questions: how often it must have asked by the end, always with the same answer.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(warehouse)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "open\n", process.communicate("stop\n")
        yield
        output, _ = process.communicate("stop\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    assert int(output.split()[-1]) >= questions, output
