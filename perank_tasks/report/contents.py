"""Contents: everything that a page says, read from the published warehouse.

In: a connection, the store of artifacts for the snapshots that tell what changed, a series, a date
and a collection. Out: `PageContents`. Of a night, only it, earlier ones and acceptances are looked
at, so that its page does not change when later nights are loaded. Results of another series have
no verdict and no past; what each of their arms was held against is in `comparisons` alone.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date

import duckdb
import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.config import NIGHTLY
from perank_tasks.errors import ConfigError
from perank_tasks.regression.ladder import Verdict
from perank_tasks.regression.measures import MEASURES
from perank_tasks.regression.statistics import Band, mean_interval
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.report.looks import Look, looks_of
from perank_tasks.warehouse.answers import ArmVerdict
from perank_tasks.warehouse.attribution import facts_of
from perank_tasks.warehouse.derive import OVERLAP
from perank_tasks.warehouse.night_verdict import NightVerdict, judge
from perank_tasks.warehouse.nights import Nights, Run
from perank_tasks.warehouse.query_changes import query_changes, with_passages
from perank_tasks.warehouse.sql_files import TableRow, ask, grouped, rows_where

TREND_NIGHTS = DEFAULT.band_nights


@dataclass(frozen=True)
class Arm:
    """One result and everything about it."""

    label: str
    look: Look
    run: Run
    said: ArmVerdict | None
    """None: results of this series are not judged."""
    summary: TableRow
    """Its row of `run_summary`."""
    line: TableRow
    """Its row of `arm_verdicts`; empty where it is not judged."""
    against: Run | None
    """What it was held against."""
    comparisons: dict[str, TableRow]
    """By measure: its rows of `judged` or, where it is not, of `comparisons`."""
    means: dict[str, float]
    intervals: dict[str, Band]
    """Of the means."""
    trends: dict[str, list[TableRow]]
    """By measure: rows of `sql/report/trend.sql`."""
    cost: TableRow
    deltas: list[float]
    """What each query gained or lost of the main measure."""
    worst: list[TableRow]
    facts: dict[str, str]
    changes: list[TableRow]
    """Rows of `changes`: what differs from what it was held against."""

    @property
    def against_name(self) -> str:
        """What it was held against: a night's date, or an arm of the same run."""
        assert self.against
        is_earlier = self.against.run_date < self.run.run_date
        return str(self.against.run_date) if is_earlier else self.against.arm

    @property
    def against_label(self) -> str:
        """The same, and how it came to be that."""
        kind = next(iter(self.comparisons.values()))["against_kind"]
        return f"{self.against_name}, {kind}"

    @property
    def word(self) -> str | None:
        """Its verdict."""
        return self.said["verdict"] if self.said else None


@dataclass(frozen=True)
class PageContents:
    """The results of one series, date and collection, the best arm first."""

    series: str
    run_date: date
    collection: str
    said: NightVerdict | None
    """None: results of this series are not judged."""
    arms: list[Arm]
    remarks: list[str]
    previous: date | None
    """The night before."""
    question: str | None = None
    """What an experiment asks."""
    answer: list[str] = field(default_factory=list)
    """What follows from its results, in sentences."""


def read_summary(
    connection: duckdb.DuckDBPyConnection,
    run_date: date | None,
    collection: str | None,
    series: str = NIGHTLY,
) -> list[TableRow]:
    """The rows of `run_summary` of one page, the best first.

    Args:
        run_date: None: of the results evaluated last, limited ones only where there are no others;
            of the collection if that is given.

    Raises:
        ConfigError: there are none.
    """
    key = {"series": series, "run_date": run_date, "collection": collection}
    if rows := ask(connection, "report/results", **key):
        return rows
    raise ConfigError(
        f"No results of {run_date or 'any date'} for {collection or 'any collection'}"
        f"{f' in {series}' if series != NIGHTLY else ''}. See what there is: "
        'perank sql "SELECT DISTINCT series, run_date, collection FROM runs"'
    )


def read_page(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    run_date: date,
    collection: str,
    series: str = NIGHTLY,
) -> PageContents:
    """Everything about the results of one series, date and collection.

    Raises:
        ConfigError: there are none.
    """
    rows = read_summary(connection, run_date, collection, series)
    nights = Nights(connection, collection, series)
    said = None
    if series == NIGHTLY:
        names = {row["arm_hash"]: row["arm"] for row in rows}
        said = judge(connection, store, run_date, collection, names)
    arms = _read_arms(connection, nights, rows, said)
    return PageContents(
        series,
        run_date,
        collection,
        said,
        arms,
        remarks(connection, rows),
        max((r.run_date for r in nights.runs if r.run_date < run_date), default=None),
    )


def _read_arms(
    connection: duckdb.DuckDBPyConnection,
    nights: Nights,
    rows: list[TableRow],
    said: NightVerdict | None,
) -> list[Arm]:
    """The arms of a page.

    Args:
        rows: of `run_summary`, one an arm.
        said: of these arms.
    """
    key = {name: rows[0][name] for name in ("series", "run_date", "collection")}
    runs = {run.arm_hash: run for run in nights.of(key["run_date"])}
    names = [row["arm"] for row in rows]
    labels = [
        row["arm"] if names.count(row["arm"]) == 1 else f"{row['arm']} {row['arm_hash'][:6]}"
        for row in rows
    ]
    looks = looks_of(labels)
    by_query: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for row in ask(connection, "report/means_by_query", **key):
        by_query[row["arm_hash"]][row["measure"]] = row["by_query"]
    tables = {
        name: grouped(rows_where(connection, name, **key), "arm_hash")
        for name in ("arm_verdicts", "comparisons", "judged", "rescored", "changes")
    }
    costs = grouped(ask(connection, "report/costs", **key), "arm_hash")
    words = {word["arm_hash"]: word for word in said["arms"]} if said else {}
    arms = []
    for row, label in zip(rows, labels, strict=True):
        run = runs[row["arm_hash"]]
        values = by_query[run.arm_hash]
        word = words.get(run.arm_hash)
        # What is the first of its kind is compared with another arm, as in an experiment.
        is_judged = word is not None and word["verdict"] != Verdict.FIRST
        its = tables["judged" if is_judged else "comparisons"][run.arm_hash]
        ids = {(c["against_date"], c["against_arm_hash"]) for c in its}
        before = next((other for other in nights.runs if other.id in ids), None)
        rescored = tables["rescored"][run.arm_hash]
        changed = query_changes(connection, run, before, rescored) if before else []
        measures = [m for m in MEASURES if m in values]
        changes = tables["changes"][run.arm_hash] if is_judged or not said else []
        arms.append(
            Arm(
                label=label,
                look=looks[label],
                run=run,
                said=word,
                summary=row,
                line=next(iter(tables["arm_verdicts"][run.arm_hash]), {}),
                against=before,
                comparisons={c["measure"]: c for c in its if c.get("reason") != "symptom"},
                means={m: float(np.mean(values[m])) for m in measures},
                intervals={m: _interval(values[m]) for m in measures},
                trends={
                    m: ask(connection, "report/trend", measure=m, nights=TREND_NIGHTS, **run.key)
                    for m in (*measures, OVERLAP)
                    if said
                },
                cost=next(iter(costs[run.arm_hash]), {}),
                deltas=[query["delta"] for query in changed],
                worst=with_passages(connection, run, before, changed) if before else [],
                facts=facts_of(connection, run),
                changes=sorted(changes, key=lambda change: change["key"]),
            )
        )
    return arms


def remarks(connection: duckdb.DuckDBPyConnection, rows: list[TableRow]) -> list[str]:
    """What a reader of a night's numbers has to know about them.

    Args:
        rows: the night's rows of `run_summary`.
    """
    first = rows[0]
    key = {name: first[name] for name in ("series", "run_date", "collection")}
    counts = {
        "queries have no judgements and do not count in the measures": first["queries"]
        - first["judged_queries"],
        "judgements are of texts that this collection does not have (another version); they were "
        "left out": first["stale_judgements"],
        "judgements name passages outside the collection": first["unknown_judgements"],
    }
    said = [_llm_gain(**row) for row in ask(connection, "report/llm_gains", **key)]
    if first["queries"] < first["collection_queries"]:
        limited = "limited to {queries} of {collection_queries} queries: no baseline, band or trend"
        said.append(limited.format(**first))
    said += [f"{n} {what}" for what, n in counts.items() if n > 0]
    return [*said, *_odd(rows), *_unjudged(rows)] + [
        f"{row['arm']}: {row['unranked_queries']} queries could not be ranked and kept their "
        f"first-stage order ({row['unranked_reason']})"
        for row in rows
        if row["unranked_queries"]
    ]


def _llm_gain(arm: str, switched_off: str, deltas: list[float]) -> str:
    interval = mean_interval(np.array(deltas))
    return (
        f"{arm}: its LLM changes nDCG@10 by {np.mean(deltas):+.4f} [{interval.low:+.4f}, "
        f"{interval.high:+.4f}] against {switched_off}, the same checkpoint without it"
    )


def _odd(rows: list[TableRow]) -> list[str]:
    """What is odd in the data, and of which arms, where it is not of all."""
    arms: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for sentence in row["odd"] or []:
            arms[sentence].append(row["arm"])
    return [
        sentence if len(its) == len(rows) else f"{', '.join(its)}: {sentence}"
        for sentence, its in arms.items()
    ]


def _unjudged(rows: list[TableRow]) -> list[str]:
    counts = [
        f"{row['arm']} {row['top_10_unjudged']} of {row['top_10_results']}"
        for row in rows
        if row["top_10_unjudged"]
    ]
    if not counts:
        return []
    where = "run_date = '{run_date}' AND collection = '{collection}'".format(**rows[0])
    return [
        f"top-10 results not judged: {', '.join(counts)}; a ranker that finds new passages lowers "
        f'judged@10, which is no loss. To judge: perank sql "FROM unjudged WHERE {where}"'
    ]


def _interval(values: list[float]) -> Band:
    """Of a mean of values between 0 and 1, which it stays between."""
    interval = mean_interval(np.array(values))
    return Band(max(interval.low, 0.0), min(interval.high, 1.0))
