"""Derive: the tables `comparisons`, `verdicts` and `cost_verdicts`, and those of `pairs.py`, from
results and acceptances of the nights.

In: a connection of the loader, in the transaction of a load. Out: the derived rows of the
loaded date and of every later date of that collection, recomputed. A date's rows depend on
earlier dates alone, so whatever the order of loading, the rows end up the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from typing import Any

import duckdb
import numpy as np

from perank_tasks.config import NIGHTLY, stable_hash
from perank_tasks.regression.ladder import EarlierNight, Evidence, Finding, Verdict, judge_arm
from perank_tasks.regression.measures import NO_QUALITY
from perank_tasks.regression.symptoms import SYMPTOMS, is_found
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.schemas import EXPERIMENT_TABLES
from perank_tasks.warehouse.cost_verdicts import cost_rows
from perank_tasks.warehouse.nights import Baseline, Nights, Run, RunId, Values, read_rankings
from perank_tasks.warehouse.pairs import derive_pairs, drift_rows, rescored_rows
from perank_tasks.warehouse.sql_files import TableRow, ask, grouped, insert_rows, rows_where

VERSION = stable_hash(
    {"rules": 4, **asdict(DEFAULT), **{n: asdict(s) for n, s in SYMPTOMS.items()}}
)
"""Of what derives the rows: raise the number of the rules when the same tables give others."""

OVERLAP = "overlap@10"
"""The measure of drift that every result has, judged queries or not."""

FAMILY = "arm"
"""Tests of all measures of one arm and night are corrected together."""

Baselines = dict[Run, Baseline]
"""By which night each run is judged."""


@dataclass(frozen=True)
class Judged:
    """A finding, with its run and what it was judged by."""

    run: Run
    measure: str
    baseline: Baseline
    finding: Finding

    @property
    def verdict(self) -> TableRow:
        """The row of `verdicts`."""
        before = self.baseline.run
        return {
            **self.run.key,
            "measure": self.measure,
            "against_date": before and before.run_date,
            "against_arm_hash": before and before.arm_hash,
            **self.finding.row,
        }

    @property
    def comparison(self) -> TableRow | None:
        """The row of `comparisons`; None: there is nothing to compare with."""
        before, comparison = self.baseline.run, self.finding.comparison
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
        nothing = dict.fromkeys(EXPERIMENT_TABLES["comparisons"].names)
        return {**nothing, **(self.comparison or {}), **self.verdict}


def derive(
    connection: duckdb.DuckDBPyConnection,
    collection: str,
    since: date,
    loaded: Iterable[date] | None = None,
) -> None:
    """Recompute the derived rows of a collection's nights from `since` on.

    Args:
        loaded: the dates whose results are new; None: any may be. What depends on two runs that
            are not is kept.
    """
    nights = Nights(connection, collection)
    runs = [run for run in nights.runs if run.run_date >= since]
    baselines = {run: nights.baseline(run) for run in runs}
    pairs = {run: baseline.run for run, baseline in baselines.items()}
    derive_pairs(nights, since, pairs, None if loaded is None else set(loaded))
    words = _by_measure(
        ask(connection, "judge/verdicts_before", collection=collection, since=since)
    )
    values = _values(nights, baselines)
    moved = ask(connection, "judge/drift_since", collection=collection, since=since)
    drift = grouped(moved, "run_date", "arm_hash")

    rows: list[Judged] = []
    for day in sorted({run.run_date for run in runs}):
        of_day = {run: baselines[run] for run in nights.of(day)}
        judged = _judge(nights, of_day, values, drift, words)
        rows += judged
        words |= _by_measure(row.verdict for row in judged)
    # What has nothing earlier is shown beside its night's first stage; no verdict rests on that.
    beside = {run: nights.beside(run) for run in runs if baselines[run].run is None}
    comparisons = [row.comparison for row in [*rows, *_judge(nights, beside, values, drift, {})]]
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
) -> dict[str, list[TableRow]]:
    """One night judged against another baseline; nothing is written.

    Args:
        choose: `previous`, or a date as YYYY-MM-DD.

    Returns:
        Rows as of the view `judged`, and of the tables `drift` and `rescored`, by these names.
    """
    nights = Nights(connection, collection)
    baselines = {run: nights.chosen(run, choose) for run in nights.of(run_date)}
    rankings = partial(read_rankings, connection)
    pairs = [(run, baseline.run) for run, baseline in baselines.items() if baseline.run]
    drift, rescored = (
        [row for pair in pairs for row in rows_of(connection, *pair, rankings)]
        for rows_of in (drift_rows, rescored_rows)
    )
    values = _values(nights, baselines, rescored)
    judged = _judge(nights, baselines, values, grouped(drift, "run_date", "arm_hash"), {})
    return {"judged": [row.joined for row in judged], "drift": drift, "rescored": rescored}


_Words = dict[tuple[date, str, str], TableRow]
"""{(date, arm hash, measure): row of `verdicts`}"""
_Drift = dict[RunId, list[TableRow]]
"""{id of a run: its rows of `drift`, by query}"""


def _judge(
    nights: Nights, baselines: Baselines, values: Values, drift: _Drift, words: _Words
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
            "same_rankings": before is not None and run.ranks_as(before, drift[run.id]),
            "missing": missing,
            "accepted": baseline.acknowledged,
        }
        overlap = np.array([row["overlap_10"] for row in drift[run.id]])
        alike = None if before is None else np.ones(len(overlap))
        evidence = {OVERLAP: Evidence(overlap, alike, is_quality=False, **state)}
        since = _since(nights, run, before)
        # What the baseline has and this night has not is missing, not forgotten.
        for measure in dict.fromkeys([*values.measures_of(run), *values.measures_of(before)]):
            now = values.of(run, measure)
            evidence[measure] = Evidence(
                now,
                **_held_against(run, before, measure, now, values),
                earlier=_earlier_nights(since, run, measure, before, values, words, bad_snapshots),
                is_quality=measure not in NO_QUALITY,
                **state,
            )
        findings = judge_arm(list(evidence.values()), DEFAULT)
        rows += [
            Judged(run, measure, baseline, finding)
            for measure, finding in zip(evidence, findings, strict=True)
        ]
        word = Verdict.ACKNOWLEDGED if baseline.acknowledged else Verdict.SUSPECT
        rows += [
            Judged(run, symptom, baseline, Finding(word, "symptom"))
            for symptom in _symptoms(nights, run)
        ]
    return rows


def _held_against(
    run: Run, before: Run | None, measure: str, now: np.ndarray, values: Values
) -> dict[str, Any]:
    """The baseline's values by the run's judgements, and what these alone change in its mean; no
    values where the measure is newer than the baseline."""
    if before is None or np.isnan(own := values.of(before, measure)).all():
        return {"baseline": None}
    then = values.rescored(run, before, measure)
    is_measured = ~np.isnan(now)
    shift = (then - own)[is_measured & ~np.isnan(own)]
    return {
        "baseline": np.where(is_measured, then, np.nan) if run.limited else then,
        "judgements_delta": float(shift.mean())
        if run.judgements != before.judgements and len(shift)
        else None,
    }


def _symptoms(nights: Nights, run: Run) -> list[str]:
    """The symptoms found in a result that it is not to have."""
    rows = rows_where(nights.connection, "symptoms", expected=False, **run.key)
    counts = {row["symptom"]: (row["shown"], row["looked_at"]) for row in rows}
    return sorted(name for name in counts if is_found(name, *counts[name]))


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
    earlier = []
    for run in since:
        difference = values.of(run, measure) - values.rescored(run, before, measure)
        if not np.isnan(difference).all():
            its = words.get((*run.id, measure), {})
            against = its.get("against_date"), its.get("against_arm_hash")
            earlier.append(
                EarlierNight(
                    change=float(np.nanmean(difference)),
                    verdict=its["verdict"] if against == before.id else "",
                    is_alike=run.arm_hash == before.arm_hash
                    and run.judgements == now.judgements
                    and (run.snapshot == before.snapshot or run.snapshot not in bad_snapshots),
                )
            )
    return earlier


def _bad_snapshots(nights: Nights, words: _Words) -> set[str]:
    """Snapshots whose first night was called for any arm."""
    called_dates = {
        day
        for (day, _, measure), row in words.items()
        if row["verdict"] in (Verdict.SUSPECT, Verdict.REGRESSION) and measure not in SYMPTOMS
    }
    first_dates = {run.snapshot: run.run_date for run in reversed(nights.runs)}
    return {snapshot for snapshot, day in first_dates.items() if day in called_dates}


def _values(nights: Nights, baselines: Baselines, rescored: Sequence[TableRow] = ()) -> Values:
    """Values of all dates that judging these runs looks at."""
    dates = {run.run_date for run in baselines}
    for run, baseline in baselines.items():
        if before := baseline.run:
            dates.add(before.run_date)
            dates |= {r.run_date for r in _since(nights, run, before)}
    return Values(nights, dates, rescored)


def _by_measure(verdicts: Iterable[TableRow]) -> _Words:
    return {(row["run_date"], row["arm_hash"], row["measure"]): row for row in verdicts}


def _replace(nights: Nights, table: str, since: date, rows: list[TableRow]) -> None:
    nights.connection.execute(
        f"DELETE FROM {table} WHERE series = ? AND collection = ? AND run_date >= ?",
        [nights.series, nights.collection, since],
    )
    insert_rows(nights.connection, table, rows)
