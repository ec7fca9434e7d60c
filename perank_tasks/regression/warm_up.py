"""Compile once, at installation, what would otherwise make the first night wait.

In: nothing. Out: ranx's measures, compiled by Numba and kept in Numba's cache beside ranx
(or, where that folder is read-only, in the user's cache folder): 20 to 40 s the first time, a few
seconds when they are there. `make` runs this while it installs the other packages, so it imports
ranx and nothing else; leaving it out costs time, never a result.
"""

import time

from perank_tasks.regression.measures import evaluate_run


def main() -> None:
    """Evaluate a tiny run the way the night does, at both levels of relevance."""
    begin = time.monotonic()
    run = {"q1": {"a": 1.0, "b": 0.5}, "q2": {"a": 0.9, "c": 0.4}}
    qrels = {"q1": {"a": 3, "b": 0}, "q2": {"c": 2}}
    for level in (1, 2):
        evaluate_run(run, qrels, relevance_level=level)
    print(f"Measures compiled in {time.monotonic() - begin:.0f} s.")


if __name__ == "__main__":
    main()
