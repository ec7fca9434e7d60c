"""Derive: the tables `comparisons`, `verdicts`, `cost_verdicts` and `drift`, from results and
acceptances of the nights.

In: a connection of the loader, in the transaction of a load. Out: the derived rows of the
loaded date and of every later date of that collection, recomputed. A date's rows depend on
earlier dates alone, so whatever the order of loading, the rows end up the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np

from perank_tasks.config import NIGHTLY, stable_hash
from perank_tasks.regression.drift import compare_rankings
from perank_tasks.regression.ladder import EarlierNight, Evidence, Judgement, Verdict, judge_arm
from perank_tasks.regression.symptoms import SYMPTOMS, is_found
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.schemas import DERIVED_TABLES, dicts_to_table
from perank_tasks.warehouse.cost_verdicts import cost_rows
from perank_tasks.warehouse.nights import (
    Baseline,
    Nights,
    Run,
    RunId,
    TableRow,
    Values,
    read_rankings,
)

VERSION = stable_hash(
    {"rules": 4, **asdict(DEFAULT), **{n: asdict(s) for n, s in SYMPTOMS.items()}}
)
"""Of what derives the rows: raise the number of the rules when the same tables give others."""

OVERLAP = "overlap@10"
"""The measure of drift that every result has, judged queries or not."""

NO_QUALITY = ("judged@10",)
"""Measures of the judgements rather than of the rankings."""

FAMILY = "arm"
"""Tests of all measures of one arm and night are corrected together."""

Baselines = dict[Run, Baseline]
"""By which night each run is judged."""


@dataclass(frozen=True)
class Judged:
    """A judgement with its run and what it was judged by."""

    run: Run
    measure: str
    baseline: Baseline
    judgement: Judgement

    @property
    def verdict(self) -> TableRow:
        """The row of `verdicts`."""
        judgement, before = self.judgement, self.baseline.run
        band = judgement.band
        return {
            **self.run.key,
            "measure": self.measure,
            "verdict": str(judgement.verdict),
            "reason": judgement.reason,
            "against_date": before and before.run_date,
            "against_arm_hash": before and before.arm_hash,
            "band_low": band and band.low,
            "band_high": band and band.high,
            "nights": judgement.nights,
            "trend_p": judgement.trend_p,
        }

    @property
    def comparison(self) -> TableRow | None:
        """The row of `comparisons`; None: there is nothing to compare with."""
        before, comparison = self.baseline.run, self.judgement.comparison
        if before is None or comparison is None:
            return None
        return {
            **self.run.key,
            "measure": self.measure,
            "against_kind": self.baseline.kind,
            "against_date": before.run_date,
            "against_arm": before.arm,
            "against_arm_hash": before.arm_hash,
            **asdict(comparison),
            "family": FAMILY,
        }

    @property
    def joined(self) -> TableRow:
        """Both, as the view `judged` has them."""
        nothing = dict.fromkeys(DERIVED_TABLES["comparisons"].names)
        return {**nothing, **(self.comparison or {}), **self.verdict}


def derive(
    connection: duckdb.DuckDBPyConnection,
    collection: str,
    since: date,
    loaded: Iterable[date] | None = None,
) -> None:
    """Recompute the derived rows of a collection's nights from `since` on.

    Args:
        loaded: the dates whose results are new; None: any may be. Drift between two runs that
            are not is kept, for it depends on nothing else.
    """
    nights = Nights(connection, collection)
    runs = [run for run in nights.runs if run.run_date >= since]
    baselines = {run: nights.baseline(run) for run in runs}
    _derive_drift(connection, nights, since, baselines, None if loaded is None else set(loaded))
    words = _earlier_words(nights, since)
    values = _values(nights, baselines)
    overlaps = _overlaps(nights, since)

    rows: list[Judged] = []
    for day in sorted({run.run_date for run in runs}):
        of_day = {run: baselines[run] for run in nights.of(day)}
        judged = _judge(nights, of_day, values, overlaps, words)
        rows += judged
        for row in judged:
            before = row.baseline.run
            words[*row.run.id, row.measure] = (
                before.id if before else None,
                str(row.judgement.verdict),
            )
    comparisons = [row.comparison for row in rows]
    _replace(nights, "verdicts", since, [row.verdict for row in rows])
    _replace(nights, "comparisons", since, [row for row in comparisons if row])
    _replace(nights, "cost_verdicts", since, cost_rows(nights, since, baselines))


def derive_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Recompute every derived row, and note by what."""
    for collection, first in connection.execute(
        "SELECT collection, min(run_date) FROM runs WHERE series = ? GROUP BY ALL ORDER BY ALL",
        [NIGHTLY],
    ).fetchall():
        derive(connection, collection, first)
    connection.execute("DELETE FROM derivation")
    connection.execute("INSERT INTO derivation VALUES (?)", [VERSION])


def judge_against(
    connection: duckdb.DuckDBPyConnection, collection: str, run_date: date, choose: str
) -> tuple[list[TableRow], list[TableRow]]:
    """One night judged against another baseline; nothing is written.

    Args:
        choose: `previous`, or a date as YYYY-MM-DD.

    Returns:
        Rows as of the view `judged`, and of `drift`.
    """
    nights = Nights(connection, collection)
    baselines = {
        run: nights.previous(run)
        if choose == "previous"
        else nights.pinned(run, date.fromisoformat(choose))
        for run in nights.of(run_date)
    }
    drift: list[TableRow] = []
    overlaps: _Overlaps = {}
    for run, baseline in baselines.items():
        if before := baseline.run:
            rows = _drift_rows(run, before, lambda r: read_rankings(connection, r))
            overlaps[run.id] = {row["query_id"]: row["overlap_10"] for row in rows}
            drift += rows
    judged = _judge(nights, baselines, _values(nights, baselines), overlaps, {})
    return [row.joined for row in judged], drift


_Words = dict[tuple[date, str, str], tuple[RunId | None, str]]
"""{(date, arm hash, measure): (id of the baseline, verdict)}"""
_Overlaps = dict[RunId, dict[str, float]]
"""{id of a run: {query id: overlap of its first ten with the baseline's}}"""


def _judge(
    nights: Nights,
    baselines: Baselines,
    values: Values,
    overlaps: _Overlaps,
    words: _Words,
) -> list[Judged]:
    """Judge the arms of one night, each by itself."""
    rows: list[Judged] = []
    bad_snapshots = _bad_snapshots(nights, words)
    for run, baseline in baselines.items():
        before = baseline.run
        missing = None if run.complete else "unranked"
        if missing is None and not run.measured:
            missing = "unmeasured"
        state: dict[str, Any] = {
            "same_rankings": before is not None and run.ranking_hash == before.ranking_hash,
            "missing": missing,
            "accepted": baseline.acknowledged,
        }
        overlap = np.array(list(overlaps.get(run.id, {}).values()))
        alike = None if before is None else np.ones(len(overlap))
        evidence = {OVERLAP: Evidence(overlap, alike, is_quality=False, **state)}
        since = _since(nights, run, before)
        # What the baseline has and this night has not is missing, not forgotten.
        for measure in dict.fromkeys([*values.measures_of(run), *values.measures_of(before)]):
            now = values.of(run, measure)
            then = values.of(before, measure) if before else None
            if then is not None and np.isnan(then).all():
                then = None  # a measure that is newer than the baseline
            elif then is not None and run.limited:
                then = np.where(np.isnan(now), np.nan, then)
            evidence[measure] = Evidence(
                now,
                then,
                earlier=_earlier_nights(since, run, measure, before, values, words, bad_snapshots),
                is_quality=measure not in NO_QUALITY,
                **state,
            )
        judgements = judge_arm(list(evidence.values()), DEFAULT)
        rows += [
            Judged(run, measure, baseline, judgement)
            for measure, judgement in zip(evidence, judgements, strict=True)
        ]
        word = Verdict.ACKNOWLEDGED if baseline.acknowledged else Verdict.SUSPECT
        rows += [
            Judged(run, symptom, baseline, Judgement(word, "symptom"))
            for symptom in _symptoms(nights, run)
        ]
    return rows


def _symptoms(nights: Nights, run: Run) -> list[str]:
    """The symptoms found in a result that it is not to have."""
    rows = nights.connection.execute(
        "SELECT symptom, shown, looked_at FROM symptoms WHERE NOT expected AND series = ? "
        "AND run_date = ? AND collection = ? AND arm_hash = ?",
        [run.series, run.run_date, run.collection, run.arm_hash],
    ).fetchall()
    return sorted(name for name, *counts in rows if is_found(name, *counts))


def _since(nights: Nights, run: Run, before: Run | None) -> list[Run]:
    """The nights that make the band; none of a limited one, which is another measure's."""
    if before is None or run.limited:
        return []
    return nights.since(run, before, DEFAULT.band_nights - 1)


def _earlier_nights(
    since: list[Run],
    now: Run,
    measure: str,
    before: Run | None,
    values: Values,
    words: _Words,
    bad_snapshots: set[str],
) -> list[EarlierNight]:
    """Each night's change against this baseline, with its verdict if that was against it."""
    if before is None:
        return []
    then = values.of(before, measure)
    earlier = []
    for run in since:
        difference = values.of(run, measure) - then
        if not np.isnan(difference).all():
            against, word = words.get((*run.id, measure), (None, ""))
            earlier.append(
                EarlierNight(
                    change=float(np.nanmean(difference)),
                    verdict=word if against == before.id else "",
                    is_alike=run.arm_hash == before.arm_hash
                    and run.qrels_hash == now.qrels_hash
                    and (run.snapshot == before.snapshot or run.snapshot not in bad_snapshots),
                )
            )
    return earlier


def _bad_snapshots(nights: Nights, words: _Words) -> set[str]:
    """Snapshots whose first night was called for any arm."""
    called_dates = {
        day
        for (day, _, measure), (_, word) in words.items()
        if word in (Verdict.SUSPECT, Verdict.REGRESSION) and measure not in SYMPTOMS
    }
    return {run.snapshot for run in nights.runs if nights.first_date(run.snapshot) in called_dates}


def _values(nights: Nights, baselines: Baselines) -> Values:
    """Values of all dates that judging these runs looks at."""
    dates = {run.run_date for run in baselines}
    for run, baseline in baselines.items():
        if before := baseline.run:
            dates.add(before.run_date)
            dates |= {r.run_date for r in _since(nights, run, before)}
    return Values(nights, dates)


def _earlier_words(nights: Nights, since: date) -> _Words:
    rows = nights.connection.execute(
        "SELECT run_date, arm_hash, measure, against_date, against_arm_hash, verdict::VARCHAR "
        "FROM verdicts WHERE collection = ? AND run_date < ?",
        [nights.collection, since],
    ).fetchall()
    return {
        (day, arm_hash, measure): ((against_date, against_hash), word)
        for day, arm_hash, measure, against_date, against_hash, word in rows
    }


def _derive_drift(
    connection: duckdb.DuckDBPyConnection,
    nights: Nights,
    since: date,
    baselines: Baselines,
    loaded: set[date] | None,
) -> None:
    """Bring `drift` up to date, computing only pairs of runs that are new."""
    held: list[tuple[date, str, date, str]] = connection.execute(
        "SELECT DISTINCT run_date, arm_hash, against_date, against_arm_hash FROM drift "
        "WHERE collection = ? AND run_date >= ?",
        [nights.collection, since],
    ).fetchall()
    unchanged = {
        (day, arm): (then, other)
        for day, arm, then, other in held
        if loaded is not None and not {day, then} & loaded
    }
    rankings = lru_cache(maxsize=32)(lambda run: read_rankings(connection, run))
    rows: list[TableRow] = []
    wanted = set()
    for run, baseline in baselines.items():
        before = baseline.run
        if before and unchanged.get(run.id) == before.id:
            wanted.add(run.id)
        elif before:
            rows += _drift_rows(run, before, rankings)
    if outdated := sorted({(day, arm) for day, arm, *_ in held} - wanted):
        connection.executemany(
            "DELETE FROM drift WHERE collection = ? AND run_date = ? AND arm_hash = ?",
            [(nights.collection, *run_id) for run_id in outdated],
        )
    _insert(connection, "drift", rows)


def _drift_rows(
    run: Run, baseline: Run, rankings: Callable[[Run], dict[str, dict[str, float]]]
) -> list[TableRow]:
    """Rows of `drift`, one for each query that either run has candidates for; of a limited run,
    for each query that it ranked."""
    before, now = rankings(baseline), rankings(run)
    return [
        {
            **run.key,
            "query_id": query_id,
            "against_date": baseline.run_date,
            "against_arm_hash": baseline.arm_hash,
            **asdict(compare_rankings(before.get(query_id, {}), now.get(query_id, {}))),
        }
        for query_id in sorted(now.keys() if run.limited else before.keys() | now.keys())
    ]


def _overlaps(nights: Nights, since: date) -> _Overlaps:
    overlaps: _Overlaps = defaultdict(dict)
    for day, arm_hash, query_id, overlap in nights.connection.execute(
        "SELECT run_date, arm_hash, query_id, overlap_10 FROM drift "
        "WHERE collection = ? AND run_date >= ? ORDER BY query_id",
        [nights.collection, since],
    ).fetchall():
        overlaps[day, arm_hash][query_id] = overlap
    return overlaps


def _replace(nights: Nights, table: str, since: date, rows: list[TableRow]) -> None:
    nights.connection.execute(
        f"DELETE FROM {table} WHERE series = ? AND collection = ? AND run_date >= ?",
        [nights.series, nights.collection, since],
    )
    _insert(nights.connection, table, rows)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[TableRow]) -> None:
    connection.register("derived", dicts_to_table(rows, DERIVED_TABLES[table]))
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM derived")
    connection.unregister("derived")
