"""`perank --help` waits for nothing heavy."""

import subprocess
import sys


def test_the_commands_are_put_together_without_heavy_imports() -> None:
    heavy = {"torch", "transformers", "duckdb", "pyarrow", "pandas", "matplotlib"}
    code = f"import sys, perank_tasks.cli.main; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
