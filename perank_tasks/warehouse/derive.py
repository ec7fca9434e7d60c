"""Derive: the tables `verdicts`, `cost_verdicts` and `drift`, from results and acceptances.

In: a connection of the loader, in the transaction of a load. Out: the derived rows of the
loaded date and of every later date of that collection, made again. A date's rows depend on
earlier dates alone, so whatever the order of loading, the rows end up the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from datetime import date
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np

from perank_tasks.config import stable_hash
from perank_tasks.regression.cost import MEMORY, SPEED, TOKENS, judge_cost
from perank_tasks.regression.drift import compare_rankings
from perank_tasks.regression.ladder import Evidence, Judgement, judge_night
from perank_tasks.regression.thresholds import DEFAULT, Thresholds
from perank_tasks.schemas import DERIVED_TABLES, rows_to_table
from perank_tasks.warehouse.nights import Baseline, Nights, Run, Values, read_rankings

VERSION = stable_hash({"rules": 1, **DEFAULT.as_dict()})
"""Of what derives the rows: raise the number of the rules when the same tables give others."""

OVERLAP = "overlap@10"
"""The measure of drift that every result has, judged queries or not."""

NO_QUALITY = ("judged@10",)
"""Measures of the judgements rather than of the rankings."""

Choice = Callable[[Run], Baseline]
"""Which night a run is judged by."""


@dataclass(frozen=True)
class Row:
    """One row of `verdicts`: a judgement with its run and what it was judged by."""

    run: Run
    measure: str
    baseline: Baseline
    judgement: Judgement

    def as_tuple(self) -> tuple:
        """In the order of the table's columns."""
        j, before = self.judgement, self.baseline.run
        interval = astuple(j.interval) if j.interval else (None, None)
        band = astuple(j.band) if j.band else (None, None)
        return (
            *self.run.key,
            self.measure,
            str(j.verdict),
            j.reason,
            self.baseline.kind if before else None,
            before and before.run_date,
            before and before.arm_hash,
            *(j.value, j.baseline_value, j.delta, *interval, *band),
            *(j.nights, j.trend_p, j.p, j.p_holm, j.tests, j.queries, j.better, j.worse),
        )


def derive(
    connection: duckdb.DuckDBPyConnection,
    collection: str,
    since: date,
    loaded: Iterable[date] | None = None,
) -> None:
    """Make the derived rows of a collection's dates from `since` on again.

    Args:
        loaded: the dates whose results are new; None: any may be. Drift between two runs that
            are not is kept, for it depends on nothing else.
    """
    nights = Nights(connection, collection)
    runs = [run for run in nights.runs if run.run_date >= since]
    baselines = {run: nights.baseline(run) for run in runs}
    _derive_drift(connection, nights, since, baselines, None if loaded is None else set(loaded))
    words = _earlier_words(connection, collection, since)
    values = _values(nights, runs, baselines.__getitem__)
    overlaps = _overlaps(connection, collection, since)

    rows = []
    dates = sorted({run.run_date for run in runs})
    for day in dates:
        made = _judge(nights, nights.of(day), baselines.__getitem__, values, overlaps, words)
        rows += made
        _remember(words, made)
    _replace(connection, "verdicts", collection, since, [row.as_tuple() for row in rows])
    costs = _cost_rows(connection, nights, since, baselines)
    _replace(connection, "cost_verdicts", collection, since, costs)


def derive_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every derived row again, and note by what."""
    for collection, first in connection.execute(
        "SELECT collection, min(run_date) FROM runs GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        derive(connection, collection, first)
    connection.execute("DELETE FROM derivation")
    connection.execute("INSERT INTO derivation VALUES (?)", [VERSION])


def judge_against(
    connection: duckdb.DuckDBPyConnection, collection: str, run_date: date, choose: str
) -> list[Row]:
    """The rows of one night against another baseline; nothing is written.

    Args:
        choose: `previous`, or a date as YYYY-MM-DD.
    """
    nights = Nights(connection, collection)
    runs = nights.of(run_date)

    def choice(run: Run) -> Baseline:
        if choose == "previous":
            return nights.previous(run)
        return nights.pinned(run, date.fromisoformat(choose))

    overlaps = {
        run.key: {row[4]: row[8] for row in drift_rows(connection, run, before)}
        for run in runs
        if (before := choice(run).run)
    }
    values = _values(nights, runs, choice)
    return _judge(nights, runs, choice, values, overlaps, _Words())


def drift_rows(connection: duckdb.DuckDBPyConnection, run: Run, baseline: Run) -> list[tuple]:
    """Rows of `drift`, one for each query that either run has candidates for."""
    return _drift_rows(run, baseline, lambda r: read_rankings(connection, r))


_Words = dict[tuple, tuple[tuple, str]]
"""{(date, arm hash, measure): (key of the baseline, verdict)}"""


def _judge(
    nights: Nights,
    runs: list[Run],
    choose: Choice,
    values: Values,
    overlaps: dict[tuple, dict[str, float]],
    words: _Words,
) -> list[Row]:
    """Judge one night: all arms and measures together."""
    cases: list[tuple[Run, str, Baseline, Evidence]] = []
    for run in runs:
        baseline = choose(run)
        before = baseline.run
        state: dict[str, Any] = {
            "same_rankings": before is not None and run.ranking_hash == before.ranking_hash,
            "complete": run.complete,
            "accepted": baseline.acknowledged,
        }
        overlap = np.array(list(overlaps.get(run.key, {}).values()))
        alike = None if before is None else np.ones(len(overlap))
        evidence = Evidence(overlap, alike, is_quality=False, has_band=False, **state)
        cases.append((run, OVERLAP, baseline, evidence))
        since = nights.since(run, before, DEFAULT.band_nights - 1) if before else []
        for measure in values.measures_of(run):
            then = values.of(before, measure) if before else None
            evidence = Evidence(
                values.of(run, measure),
                then,
                earlier=[] if then is None else _changes(since, measure, before, values, words),
                is_quality=measure not in NO_QUALITY,
                **state,
            )
            cases.append((run, measure, baseline, evidence))
    judgements = judge_night([evidence for *_, evidence in cases], DEFAULT)
    return [
        Row(run, measure, baseline, judgement)
        for (run, measure, baseline, _), judgement in zip(cases, judgements, strict=True)
    ]


def _changes(
    since: list[Run], measure: str, before: Run | None, values: Values, words: _Words
) -> list[tuple[float, str]]:
    """Each night's change against this baseline, with its verdict if that was against it."""
    assert before is not None
    then = values.of(before, measure)
    changes = []
    for run in since:
        difference = values.of(run, measure) - then
        if not np.isnan(difference).all():
            against, word = words.get((run.run_date, run.arm_hash, measure), ((), ""))
            changes.append((float(np.nanmean(difference)), word if against == before.key else ""))
    return changes


def _values(nights: Nights, runs: list[Run], choose: Choice) -> Values:
    """Values of all dates that judging these runs looks at."""
    dates = {run.run_date for run in runs}
    for run in runs:
        if before := choose(run).run:
            dates.add(before.run_date)
            dates |= {r.run_date for r in nights.since(run, before, DEFAULT.band_nights - 1)}
    return Values(nights.connection, nights.collection, dates)


def _earlier_words(connection: duckdb.DuckDBPyConnection, collection: str, since: date) -> _Words:
    rows = connection.execute(
        "SELECT run_date, arm_hash, measure, baseline_date, collection, arm, baseline_arm_hash, "
        "verdict::VARCHAR FROM verdicts WHERE collection = ? AND run_date < ?",
        [collection, since],
    ).fetchall()
    return {
        tuple(key): (tuple(against), word)
        for *key, b, c, a, h, word in rows
        for against in [(b, c, a, h)]
    }


def _remember(words: _Words, rows: list[Row]) -> None:
    for row in rows:
        against = row.baseline.run.key if row.baseline.run else ()
        key = row.run.run_date, row.run.arm_hash, row.measure
        words[key] = against, str(row.judgement.verdict)


def _derive_drift(
    connection: duckdb.DuckDBPyConnection,
    nights: Nights,
    since: date,
    baselines: dict[Run, Baseline],
    loaded: set[date] | None,
) -> None:
    """Bring `drift` up to date, computing only pairs of runs that are new."""
    held = connection.execute(
        "SELECT DISTINCT run_date, arm_hash, baseline_date, baseline_arm_hash FROM drift "
        "WHERE collection = ? AND run_date >= ?",
        [nights.collection, since],
    ).fetchall()
    kept = {
        (day, arm): (then, other)
        for day, arm, then, other in held
        if loaded is not None and not {day, then} & loaded
    }
    rankings = lru_cache(maxsize=32)(lambda run: read_rankings(connection, run))
    rows = []
    wanted = set()
    for run, baseline in baselines.items():
        name, before = (run.run_date, run.arm_hash), baseline.run
        if before and kept.get(name) == (before.run_date, before.arm_hash):
            wanted.add(name)
        elif before:
            rows += _drift_rows(run, before, rankings)
    gone = sorted({(day, arm) for day, arm, *_ in held} - wanted)
    connection.executemany(
        "DELETE FROM drift WHERE collection = ? AND run_date = ? AND arm_hash = ?",
        [(nights.collection, *name) for name in gone],
    ) if gone else None
    _insert(connection, "drift", rows)


def _drift_rows(
    run: Run, baseline: Run, rankings: Callable[[Run], dict[str, dict[str, float]]]
) -> list[tuple]:
    before, now = rankings(baseline), rankings(run)
    return [
        (
            *run.key,
            query_id,
            baseline.run_date,
            baseline.arm_hash,
            *astuple(compare_rankings(before.get(query_id, {}), now.get(query_id, {}))),
        )
        for query_id in sorted(before.keys() | now.keys())
    ]


def _overlaps(
    connection: duckdb.DuckDBPyConnection, collection: str, since: date
) -> dict[tuple, dict[str, float]]:
    found: dict[tuple, dict[str, float]] = defaultdict(dict)
    for *key, query_id, overlap in connection.execute(
        "SELECT run_date, collection, arm, arm_hash, query_id, overlap_10 FROM drift "
        "WHERE collection = ? AND run_date >= ? ORDER BY query_id",
        [collection, since],
    ).fetchall():
        found[tuple(key)][query_id] = overlap
    return found


def _cost_rows(
    connection: duckdb.DuckDBPyConnection,
    nights: Nights,
    since: date,
    baselines: dict[Run, Baseline],
    thresholds: Thresholds = DEFAULT,
) -> list[tuple]:
    """Rows of `cost_verdicts`: what reranking took, judged by the same device's past."""
    costs: dict[tuple, tuple[str, dict[str, float]]] = {}
    for day, arm_hash, device, seconds, speed, tokens, memory in connection.execute(
        "SELECT run_date, arm_hash, device, seconds, queries_per_second, tokens_per_query, "
        "peak_memory_bytes FROM rerank_costs WHERE collection = ?",
        [nights.collection],
    ).fetchall():
        found = {TOKENS: tokens, MEMORY: memory}
        if seconds >= thresholds.min_seconds:
            found[SPEED] = speed
        costs[day, arm_hash] = device, {q: v for q, v in found.items() if v}
    words = {
        tuple(key): word
        for *key, word in connection.execute(
            "SELECT run_date, arm_hash, quantity, verdict FROM cost_verdicts "
            "WHERE collection = ? AND run_date < ?",
            [nights.collection, since],
        ).fetchall()
    }
    rows = []
    for run, baseline in baselines.items():  # in the order of their dates
        device, quantities = costs.get((run.run_date, run.arm_hash), ("", {}))
        before = baseline.run
        past = [before, *nights.since(run, before, thresholds.band_nights - 1)] if before else []
        for quantity, value in quantities.items():
            earlier = []
            for then in past:
                its_device, its = costs.get((then.run_date, then.arm_hash), ("", {}))
                if its_device == device and quantity in its:
                    word = words.get((then.run_date, then.arm_hash, quantity), "")
                    # What was accepted is usual, whatever it was called when it was new.
                    earlier.append((its[quantity], "usual" if then == before else word))
            judged = judge_cost(quantity, value, earlier, thresholds)
            words[run.run_date, run.arm_hash, quantity] = judged.word
            band = astuple(judged.band) if judged.band else (None, None)
            row = (*run.key, quantity, judged.word, device, value, *band, judged.nights)
            rows.append(row)
    return rows


def _replace(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    collection: str,
    since: date,
    rows: list[tuple],
) -> None:
    connection.execute(
        f"DELETE FROM {table} WHERE collection = ? AND run_date >= ?", [collection, since]
    )
    _insert(connection, table, rows)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[tuple]) -> None:
    connection.register("derived", rows_to_table(rows, DERIVED_TABLES[table]))
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM derived")
    connection.unregister("derived")
