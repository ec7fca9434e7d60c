"""Print what an image needs, one requirement a line: the package's own and those of a cluster.

In: pyproject.toml in the current folder. Out: requirements without versions of their own meaning;
requirements.lock, given to pip as constraints, says which version of each.
"""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["cluster"], sep="\n")
