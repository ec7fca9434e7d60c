"""Comparing checkpoints: in, values by query of several arms; out, means, intervals, paired tests.

The tests are the nights' own (`warehouse.comparison`): a paired randomisation test, Student's t
interval of the difference, Holm's correction over all that is compared at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perank_tasks.regression.measures import MEASURES
from perank_tasks.regression.statistics import Band, mean_interval
from perank_tasks.schemas import CHECKPOINT_SCORES, CHECKPOINT_TESTS, rows_to_table
from perank_tasks.warehouse.comparison import MeasureComparison, Side, compare

MAIN = "nDCG@10"
"""The measure that decides."""

Values = Mapping[str, Mapping[str, float]]
"""{measure: {query id: value}}"""


@dataclass(frozen=True)
class Score:
    """A mean over queries, with its 95% interval."""

    mean: float
    interval: Band
    queries: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.interval.low:.4f}, {self.interval.high:.4f}]"


def score(values: Values, measure: str = MAIN) -> Score:
    """The mean of one measure."""
    found = np.array(list(values[measure].values()))
    return Score(float(found.mean()), mean_interval(found), len(found))


def compare_arms(
    arms: Mapping[str, Values], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, MeasureComparison]]:
    """Pairs of arms, measure by measure.

    Args:
        arms: values by name.
        pairs: (a, b): b is held against a.

    Raises:
        ConfigError: the two of a pair have no query in common.
    """
    sides = {name: Side(name, values, {}) for name, values in arms.items()}
    found = compare([(sides[a], sides[b]) for a, b in pairs], MAIN) if pairs else []
    return {
        pair: {row.measure: row for row in comparison.measures}
        for pair, comparison in zip(pairs, found, strict=True)
    }


def in_words(test: MeasureComparison) -> str:
    """A comparison in one phrase: `+0.0123 [+0.0010, +0.0236], p .03, 12 better, 5 worse`."""
    p = "" if test.p is None else f", p {test.p:.2g}"
    return (
        f"{test.delta:+.4f} [{test.interval.low:+.4f}, {test.interval.high:+.4f}]{p}, "
        f"{test.better} better, {test.worse} worse of {test.queries}"
    )


def scores_table(arms: Mapping[str, Values]) -> pa.Table:
    """Values of all arms as rows of `schemas.CHECKPOINT_SCORES`."""
    rows = [
        (arm, query_id, measure, value)
        for arm, values in arms.items()
        for measure in MEASURES
        for query_id, value in sorted(values[measure].items())
    ]
    return rows_to_table(rows, CHECKPOINT_SCORES)


def read_scores(table: pa.Table) -> dict[str, Values]:
    """What `scores_table` wrote."""
    arms: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in table.to_pylist():
        arms[row["arm"]][row["measure"]][row["query_id"]] = row["value"]
    return {arm: dict(values) for arm, values in arms.items()}


def tests_table(
    tests: Mapping[tuple[str, str], Mapping[str, MeasureComparison]],
) -> pa.Table:
    """Comparisons as rows of `schemas.CHECKPOINT_TESTS`."""
    rows = [
        (
            *(a, b, row.measure, row.queries, row.a, row.b, row.delta),
            *(row.interval.low, row.interval.high, row.better, row.worse, row.p, row.p_holm),
        )
        for (a, b), measures in tests.items()
        for row in measures.values()
    ]
    return rows_to_table(rows, CHECKPOINT_TESTS)


def read_tests(table: pa.Table) -> dict[tuple[str, str], dict[str, MeasureComparison]]:
    """What `tests_table` wrote."""
    found: dict[tuple[str, str], dict[str, MeasureComparison]] = defaultdict(dict)
    for row in table.to_pylist():
        found[row["a"], row["b"]][row["measure"]] = _comparison(row)
    return dict(found)


def _comparison(row: dict[str, Any]) -> MeasureComparison:
    return MeasureComparison(
        measure=row["measure"],
        queries=row["queries"],
        a=row["mean_a"],
        b=row["mean_b"],
        interval=Band(row["ci_low"], row["ci_high"]),
        better=row["better"],
        worse=row["worse"],
        p=row["p"],
        p_holm=row["p_holm"],
    )


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others stand on the right."""
    lines = [" | ".join(heading), " | ".join(["---", *["--:"] * (len(heading) - 1)])]
    lines += [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
