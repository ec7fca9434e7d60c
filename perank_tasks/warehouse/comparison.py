"""Comparison: two runs, measure by measure and query by query, with a test.

In: two results of the warehouse, or two TREC runs with judgements from anywhere. Out: a
`Comparison`: means, differences, intervals, a paired randomisation test with Holm's
correction over all that is compared at once, and what every query gained or lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import duckdb

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError
from perank_tasks.regression import paired
from perank_tasks.regression.drift import Drift, compare_rankings
from perank_tasks.regression.paired import Pair, compare_family
from perank_tasks.warehouse.attribution import explain
from perank_tasks.warehouse.database import rows_where
from perank_tasks.warehouse.derive import NO_QUALITY
from perank_tasks.warehouse.nights import Run, read_rankings
from perank_tasks.warehouse.run_names import find_runs

Scores = Mapping[str, Mapping[str, float]]
"""{query id: {passage id: score}}, best first."""


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    values: Mapping[str, Mapping[str, float]]
    """{measure: {query id: value}}"""
    rankings: Scores
    run: Run | None = None
    """Its row in the warehouse, where it is from there."""


@dataclass(frozen=True)
class QueryComparison:
    """One query: its values by the measure that is plotted, and how far its ranking moved."""

    query_id: str
    a: float
    b: float
    drift: Drift

    @property
    def delta(self) -> float:
        return self.b - self.a


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side."""

    a: Side
    b: Side
    measures: dict[str, paired.Comparison]
    """What b is against a, by measure."""
    queries: list[QueryComparison]
    """The one that lost most first."""
    different: list[str]
    """What was different, in words, where that was recorded."""


def sides_of(connection: duckdb.DuckDBPyConnection, a: str, b: str) -> list[tuple[Side, Side]]:
    """The pairs of results that two names mean.

    Two nights pair arm by arm; where both names say an arm, those two; where one does, the
    other's is the same arm.

    Raises:
        ConfigError: a name means nothing, or no arm is in both.
    """
    runs_a, runs_b = find_runs(connection, a), find_runs(connection, b)
    both_named = "/" in a and "/" in b
    pairs = []
    for run in runs_a:
        others = [other for other in runs_b if both_named or other.arm == run.arm]
        # Of two configurations of an arm, the same one where it is there.
        others.sort(key=lambda other: other.arm_hash != run.arm_hash)
        pairs += [(run, other) for other in others[:1]]
    if not pairs:
        raise ConfigError(
            f"{a} has {', '.join(run.arm for run in runs_a)} and {b} has "
            f"{', '.join(run.arm for run in runs_b)}: no arm is in both. Name an arm on either "
            "side, as in 2026-01-31/bm25 2026-01-31/perank."
        )
    return [(_side(connection, one), _side(connection, other)) for one, other in pairs]


def side_of_file(path: Path, qrels: Path, relevance_level: int) -> Side:
    """A TREC run, measured by a qrels file.

    Raises:
        CollectionError: a file has a line that cannot be read.
    """
    from perank_tasks.collections import trec
    from perank_tasks.regression.measures import evaluate_run

    run: dict[str, dict[str, float]] = {}
    for line in trec.read_run(path):
        run.setdefault(line.query_id, {})[line.passage_id] = line.score
    grades: dict[str, dict[str, int]] = {}
    for judgement in trec.read_qrels(qrels):
        grades.setdefault(judgement.query_id, {})[judgement.passage_id] = judgement.relevance
    ranked = {
        query: dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
        for query, found in run.items()
    }
    return Side(path.name, evaluate_run(run, grades, relevance_level), ranked)


def compare(
    pairs: Sequence[tuple[Side, Side]],
    measure: str,
    connection: duckdb.DuckDBPyConnection | None = None,
    store: Store | None = None,
) -> list[Comparison]:
    """Compare pairs of runs; the correction is over all of them.

    Args:
        measure: whose values by query are given.
        connection: with the store, where what was different between results is looked up.

    Raises:
        ConfigError: two runs have no judged query or not that measure in common.
    """
    measures = [[name for name in a.values if name in b.values] for a, b in pairs]
    family = [
        Pair.by_query(b.values[name], a.values[name], is_tested=name not in NO_QUALITY)
        for (a, b), names in zip(pairs, measures, strict=True)
        for name in names
    ]
    compared = iter(compare_family(family))
    comparisons = []
    for (a, b), names in zip(pairs, measures, strict=True):
        rows = {name: row for name in names if (row := next(compared))}
        if measure not in rows:
            raise ConfigError(
                f"{a.name} and {b.name} have no {measure} of any query in common; they have "
                f"{', '.join(rows) or 'no measure at all'}."
            )
        different = []
        if connection and store and a.run and b.run:
            different = [c.phrase for c in explain(connection, store, a.run, b.run)]
        queries = _compare_queries(a, b, measure)
        comparisons.append(Comparison(a, b, rows, queries, different))
    return comparisons


def _side(connection: duckdb.DuckDBPyConnection, run: Run) -> Side:
    values: dict[str, dict[str, float]] = {}
    rows = rows_where(connection, "query_measures", **run.key)
    for row in sorted(rows, key=itemgetter("measure", "query_id")):
        values.setdefault(row["measure"], {})[row["query_id"]] = row["value"]
    return Side(run.name, values, read_rankings(connection, run), run)


def _compare_queries(a: Side, b: Side, measure: str) -> list[QueryComparison]:
    old, new = a.values[measure], b.values[measure]
    queries = [
        QueryComparison(
            query,
            old[query],
            new[query],
            compare_rankings(a.rankings.get(query, {}), b.rankings.get(query, {})),
        )
        for query in sorted(old.keys() & new.keys())
    ]
    return sorted(queries, key=lambda query: (query.delta, query.drift.overlap_10, query.query_id))
