"""Comparison: two runs, measure by measure and query by query, judged as a night is.

In: two results of the warehouse, or TREC runs with judgements from anywhere. Out: a `Comparison`:
means, differences, intervals, the paired tests and words of the ladder of verdicts, over which
queries, and what every query gained or lost. What a run lacks of the queries that the other one
ranks is counted and said, never passed over.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeVar

import duckdb
import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.collections import trec
from perank_tasks.errors import ConfigError
from perank_tasks.regression.drift import compare_rankings
from perank_tasks.regression.ladder import Evidence, Finding, Verdict, judge_arm, worst
from perank_tasks.regression.measures import (
    MEASURES,
    NO_QUALITY,
    Grades,
    Scores,
    by_rank,
    evaluate_run,
)
from perank_tasks.regression.thresholds import DEFAULT, Thresholds
from perank_tasks.warehouse.attribution import explain
from perank_tasks.warehouse.nights import Run, read_rankings
from perank_tasks.warehouse.pairs import rescored_rows
from perank_tasks.warehouse.run_names import find_runs
from perank_tasks.warehouse.sql_files import TableRow, rows_where

T = TypeVar("T")

On = Literal["either", "both", "judged"]
"""Which judged queries are measured: those that either run ranks, that both rank, or all. A query
that a run file does not rank counts 0."""


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    values: Mapping[str, Mapping[str, float]]
    """{measure: {query id: value}}, of every judged query."""
    rankings: Scores
    """Best first."""
    run: Run | None = None
    """Its row in the warehouse, where it is from there."""
    judgements_deltas: Mapping[str, float] = field(default_factory=dict)
    """{measure: what the other one's judgements alone changed in its mean}"""
    different: Sequence[str] = ()
    """What was different from the other one, in words, where that was recorded."""

    @property
    def judged(self) -> set[str]:
        """The queries that have a value."""
        return {query for by_query in self.values.values() for query in by_query}

    @property
    def ranked(self) -> set[str]:
        """The judged queries that it ranks."""
        return self.judged & self.rankings.keys()


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side, b against a."""

    a: Side
    b: Side
    measured: list[str]
    """The queries that they are compared over."""
    findings: dict[str, Finding]
    """By measure."""
    queries: list[TableRow]
    """By query: its values `a` and `b` of the measure that is shown, their `delta`, and the fields
    of `Drift`; the one that lost most first."""

    @property
    def verdict(self) -> Verdict:
        return worst([finding.verdict for finding in self.findings.values()])

    @property
    def problem(self) -> str | None:
        """Why it could not be judged; None where it was."""
        if self.verdict != Verdict.INCOMPLETE:
            return None
        if any(finding.reason == "unranked" for finding in self.findings.values()):
            return "too many queries kept their first-stage order"
        return (
            "too few judged queries are ranked by both runs; --on both compares them over these "
            "alone"
        )

    @property
    def rows(self) -> list[TableRow]:
        """A row for each measure that any query has in both: the fields of the paired comparison
        and of the finding."""
        return [
            {"measure": name, **j.row, **asdict(j.comparison)}
            for name, j in self.findings.items()
            if j.comparison
        ]

    @property
    def counts(self) -> dict[str, int]:
        """How many queries are judged, ranked by either run and by both, and measured."""
        a, b = self.a.ranked, self.b.ranked
        sets = {"judged": self.a.judged | self.b.judged, "ranked_a": a, "ranked_b": b}
        sets |= {"ranked_both": a & b, "measured": set(self.measured)}
        return {name: len(queries) for name, queries in sets.items()}


def sides_of(
    connection: duckdb.DuckDBPyConnection, store: Store, a: str, b: str, collection: str | None
) -> tuple[list[tuple[Side, Side]], list[str]]:
    """The pairs of results that two names mean, and the names of a's results that b has not.

    Two nights pair arm by arm; where both names say an arm, those two; where one does, the
    other's is the same arm. Where they were measured by other judgements, a is by b's.

    Raises:
        ConfigError: a name means nothing, or no arm is in both.
    """
    runs_a, runs_b = (find_runs(connection, name, collection) for name in (a, b))
    both_named = "/" in a and "/" in b
    pairs, alone = [], []
    for run in runs_a:
        others = [other for other in runs_b if both_named or other.arm == run.arm]
        # Of two configurations of an arm, the same one where it is there.
        others.sort(key=lambda other: other.arm_hash != run.arm_hash)
        pairs += [(run, other) for other in others[:1]]
        if not others and "/" not in b:
            alone.append(run.name)
    if not pairs:
        raise ConfigError(
            f"{a} has {', '.join(run.arm for run in runs_a)} and {b} has "
            f"{', '.join(run.arm for run in runs_b)}: no arm is in both. Name an arm on either "
            "side, as in 2026-01-31/bm25 2026-01-31/perank."
        )
    return [_like_with_like(connection, store, *pair) for pair in pairs], alone


def _like_with_like(
    connection: duckdb.DuckDBPyConnection, store: Store, one: Run, two: Run
) -> tuple[Side, Side]:
    a, b = side_of_run(connection, one), side_of_run(connection, two)
    rescored = rescored_rows(connection, two, one, lambda _: a.rankings)
    by_b = _nested((row["measure"], row["query_id"], row["value"]) for row in rescored)
    values = {name: {**own, **by_b.get(name, {})} for name, own in a.values.items()}
    deltas = {
        name: float(np.mean([of_b[query] - a.values[name][query] for query in sorted(shared)]))
        for name, of_b in by_b.items()
        if (shared := a.values.get(name, {}).keys() & of_b)
    }
    different = [change.phrase for change in explain(connection, store, one, two)]
    return replace(a, values=values, judgements_deltas=deltas), replace(b, different=different)


def side_of_run(connection: duckdb.DuckDBPyConnection, run: Run) -> Side:
    """A result of the warehouse, with the values that its night measured."""
    rows = rows_where(connection, "query_measures", **run.key)
    values = _nested((row["measure"], row["query_id"], row["value"]) for row in rows)
    return Side(run.name, values, read_rankings(connection, run), run)


def side_of_file(path: Path) -> Side:
    """A TREC run, not measured yet.

    Raises:
        CollectionError: the file has a line that cannot be read.
    """
    # trec_eval's order: of equal scores, the greater id first.
    lines = sorted(trec.read_run(path), key=attrgetter("score", "passage_id"), reverse=True)
    ranked = _nested((line.query_id, line.passage_id, line.score) for line in lines)
    return Side(path.name, {}, ranked)


def read_grades(path: Path) -> dict[str, dict[str, int]]:
    """A qrels file as {query id: {passage id: grade}}.

    Raises:
        CollectionError: the file has a line that cannot be read.
    """
    return _nested((j.query_id, j.passage_id, j.relevance) for j in trec.read_qrels(path))


def _nested(rows: Iterable[tuple[str, str, T]]) -> dict[str, dict[str, T]]:
    """{first: {second: third}}"""
    nested: dict[str, dict[str, T]] = defaultdict(dict)
    for outer, inner, value in rows:
        nested[outer][inner] = value
    return dict(nested)


def measured_by(side: Side, grades: Grades, relevance_level: int) -> Side:
    """A side measured by other judgements.

    Raises:
        ConfigError: it ranks none of the judged queries.
    """
    if not side.rankings.keys() & grades.keys():
        ranked, judged = (sorted(ids) for ids in (side.rankings, grades))
        raise ConfigError(
            f"{side.name} and the judgements share no query: {len(ranked)} are ranked "
            f"({', '.join(ranked[:3])} …) and {len(judged)} are judged ({', '.join(judged[:3])} "
            "…). Give the judgements of these queries, or write their ids in the same way."
        )
    values = evaluate_run(by_rank(side.rankings), grades, relevance_level)
    return Side(side.name, values, side.rankings, side.run)


def compare(
    a: Side, b: Side, measure: str, *, on: On = "either", thresholds: Thresholds = DEFAULT
) -> Comparison:
    """Compare b with a; the tests of all measures are corrected together, as of a night's arm.

    Args:
        measure: whose values by query are given.
        on: over which of the judged queries.

    Raises:
        ConfigError: two runs have no judged query or not that measure in common.
    """
    names = sorted(a.values.keys() & b.values.keys(), key=_place)
    if measure not in names or not a.values[measure].keys() & b.values[measure].keys():
        raise ConfigError(
            f"{a.name} and {b.name} have no {measure} of any query in common; they have "
            f"{', '.join(names) or 'no measure at all'}."
        )
    shared, every = a.ranked & b.ranked, a.ranked | b.ranked
    queries = sorted({"either": every, "both": shared, "judged": a.judged | b.judged}[on])
    if not shared:
        raise ConfigError(
            f"{a.name} and {b.name} rank no judged query in common: {len(a.ranked)} and "
            f"{len(b.ranked)} of the {len(a.judged | b.judged)} that are judged."
        )
    missing = None
    if any(side.run and not side.run.complete for side in (a, b)):
        missing = "unranked"
    elif on != "both" and len(shared) < thresholds.coverage * len(a.ranked | b.ranked):
        missing = "coverage"
    same = all(list(a.rankings.get(q, {})) == list(b.rankings.get(q, {})) for q in queries)
    evidence = [
        Evidence(
            _aligned(b.values[name], queries),
            _aligned(a.values[name], queries),
            same_rankings=same,
            missing=missing,
            judgements_delta=a.judgements_deltas.get(name),
            is_quality=name not in NO_QUALITY,
        )
        for name in names
    ]
    findings = dict(zip(names, judge_arm(evidence, thresholds), strict=True))
    return Comparison(a, b, queries, findings, _by_query(a, b, measure, queries))


def _place(measure: str) -> tuple[int, str]:
    """Where a measure stands: in the order of the tables, others behind."""
    return (MEASURES.index(measure) if measure in MEASURES else len(MEASURES)), measure


def _aligned(by_query: Mapping[str, float], queries: Sequence[str]) -> np.ndarray:
    return np.array([by_query.get(query, np.nan) for query in queries])


def _by_query(a: Side, b: Side, measure: str, queries: Sequence[str]) -> list[TableRow]:
    old, new = a.values[measure], b.values[measure]
    rows: list[TableRow] = [
        {
            "query_id": query,
            "a": old[query],
            "b": new[query],
            "drift": asdict(compare_rankings(a.rankings.get(query, {}), b.rankings.get(query, {}))),
            "delta": new[query] - old[query],
        }
        for query in queries
        if query in old and query in new
    ]
    return sorted(rows, key=lambda q: (q["delta"], q["drift"]["overlap_10"], q["query_id"]))
