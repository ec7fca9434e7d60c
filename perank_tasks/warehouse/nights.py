"""Nights: what the warehouse holds of a collection, and which night another is judged by.

In: a connection with the result tables. Out: `Nights`: every result as a `Run`, the
acceptances, and the choice of a baseline. What is compared over time is an arm in all its
configurations, so that a changed setting is judged against what was accepted before it. A night
that ranked all queries and measured at least one is *comparable*: a limited one is judged, but is
nobody's baseline and part of no band. Only results of the series `nightly` are judged; those of
another one are nobody's baseline.

Everything here depends on what is in the tables alone and never on the order it came in.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.config import NIGHTLY
from perank_tasks.warehouse.sql_files import TableRow, ask, statement

SAME_NIGHT: Final = "same night"

LLM_OFF = "llm-off"
"""The ranker of an arm that ranks by a checkpoint's residual alone."""

RunId = tuple[date, str]
"""(date, arm hash): what names a result within its series and collection."""


@dataclass(frozen=True)
class Run:
    """One result: a row of `runs`."""

    series: str
    run_date: date
    collection: str
    arm: str
    arm_hash: str
    complete: bool
    measured: bool
    """Whether at least one of its queries has judgements."""
    limited: bool
    """Whether it ranked some of the collection's queries only."""
    ranking_hash: str
    snapshot: str
    judgements: str
    """Names what it was measured by: the judgements and from which grade on they say relevant."""
    relevance_level: int
    ranker: str
    """What kind of thing ranked: `first-stage`, `cosine`, `perank` …, or `llm-off`."""
    first_stage: str
    """What it ranked the candidates of: the settings of its first stage."""

    @property
    def key(self) -> TableRow:
        """The columns that name it in every table."""
        names = ("series", "run_date", "collection", "arm", "arm_hash")
        return {name: getattr(self, name) for name in names}

    def pair_key(self, against: "Run") -> TableRow:
        """The columns that name it and what it is held against."""
        other = {"against_date": against.run_date, "against_arm_hash": against.arm_hash}
        return {**self.key, **other}

    @property
    def id(self) -> RunId:
        return self.run_date, self.arm_hash

    @property
    def name(self) -> str:
        """How a person names it: `2026-01-31/perank`, or `window@2026-01-31/perank`."""
        series = "" if self.series == NIGHTLY else f"{self.series}@"
        return f"{series}{self.run_date}/{self.arm}"

    @property
    def comparable(self) -> bool:
        """Whether others can be judged by it."""
        return self.complete and self.measured and not self.limited

    def ranks_as(self, other: "Run", drift: Iterable[TableRow]) -> bool:
        """Whether each of its queries ranks as the other's.

        Args:
            drift: rows of that table, of the two.
        """
        if self.limited:  # its hash is over fewer queries
            return not any(row["largest_move"] or row["rbo"] < 1 for row in drift)
        return self.ranking_hash == other.ranking_hash


@dataclass(frozen=True)
class Baseline:
    """What a run is judged against. `run` is None where there is nothing earlier."""

    run: Run | None
    kind: Literal["accepted", "first night", "previous", "pinned", "same night"] = "first night"
    acknowledged: bool = False
    """Whether the judged night has itself been accepted."""


class Nights:
    """All results of one series and collection, and the collection's acceptances."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, collection: str, series: str = NIGHTLY
    ):
        self.connection = connection
        self.collection = collection
        self.series = series
        rows = ask(connection, "judge/runs", series=series, collection=collection)
        self.runs = [Run(**row) for row in rows]
        self._acceptances = ask(connection, "judge/acceptances", collection=collection)
        self._comparable: dict[str, dict[date, list[Run]]] = defaultdict(lambda: defaultdict(list))
        for run in self.runs:
            if run.comparable:
                self._comparable[run.arm][run.run_date].append(run)

    def of(self, run_date: date) -> list[Run]:
        """The results of one date."""
        return [run for run in self.runs if run.run_date == run_date]

    def named(self, run_date: date | None, arm_hash: str | None) -> Run | None:
        """The result of that name, if there is one."""
        return next((run for run in self.runs if run.id == (run_date, arm_hash)), None)

    def like(self, run: Run, run_date: date) -> Run | None:
        """The comparable result of the run's arm on another date.

        Of its own configuration where there is one, else of the one whose hash sorts first.
        """
        there = self._comparable[run.arm].get(run_date, [])
        return next((r for r in there if r.arm_hash == run.arm_hash), there[0] if there else None)

    def _earlier(self, run: Run) -> list[date]:
        """The dates before the run's with a comparable result of its arm."""
        return [d for d in self._comparable[run.arm] if d < run.run_date]

    def since(self, run: Run, baseline: Run, limit: int) -> list[Run]:
        """The comparable results of the arm between the two dates, oldest first.

        Args:
            limit: how many, the newest ones.
        """
        between = sorted(d for d in self._earlier(run) if d > baseline.run_date)
        return [like for d in between[-limit:] if (like := self.like(run, d))]

    def baseline(self, run: Run) -> Baseline:
        """What was accepted as of the run's date; before any acceptance, the first night.

        An acceptance of a date without a comparable result of this arm is passed over. One
        of the run's own date makes it acknowledged, and it is judged against what held
        before.
        """
        acknowledged = False
        for act in self._acceptances:
            if act["as_of"] > run.run_date or act["arm"] not in (None, run.arm):
                continue
            if act["run_date"] == run.run_date:
                acknowledged = True
            elif accepted := self.like(run, act["run_date"]):
                return Baseline(accepted, "accepted", acknowledged)
        earlier = self._earlier(run)
        first = self.like(run, min(earlier)) if earlier else None
        return Baseline(first, "first night", acknowledged)

    def beside(self, run: Run) -> Baseline:
        """Another arm of the same night that ranks by the first stage alone: by the run's own first
        stage, where there is one."""
        controls = [
            other
            for other in self.of(run.run_date)
            if other.ranker == "first-stage" and other.comparable
        ]
        if run in controls or not run.comparable:
            return Baseline(None)
        controls.sort(key=lambda other: other.first_stage != run.first_stage)
        return Baseline(next(iter(controls), None), SAME_NIGHT)

    def chosen(self, run: Run, choose: str) -> Baseline:
        """The newest complete result before the run, or that of a date, if it is earlier.

        Args:
            choose: `previous`, or a date as YYYY-MM-DD.
        """
        earlier = self._earlier(run)
        if choose == "previous":
            return Baseline(self.like(run, max(earlier)) if earlier else None, "previous")
        pinned = date.fromisoformat(choose)
        return Baseline(self.like(run, pinned) if pinned in earlier else None, "pinned")


class Values:
    """Per-query values of all measures of some dates, aligned: NaN where a query has none."""

    def __init__(self, nights: Nights, dates: Iterable[date], rescored: Sequence[TableRow] = ()):
        """Read what the tables hold.

        Args:
            rescored: rows as of the table of that name that it does not have.
        """
        key = {"series": nights.series, "collection": nights.collection}
        result = nights.connection.sql(
            statement("judge/values"), params={**key, "dates": sorted(set(dates))}
        )
        table = result.to_arrow_table()
        name = "{run_date} {arm_hash} {against_date} {against_arm_hash}"
        more = [row | {"run": name.format(**row)} for row in rescored]
        table = pa.concat_tables([table, pa.Table.from_pylist(more, table.schema)])
        codes, names = [], []
        for column in ("run", "measure", "query_id"):
            encoded = pc.dictionary_encode(table[column]).combine_chunks()
            codes.append(encoded.indices.to_numpy())
            names.append({name: i for i, name in enumerate(encoded.dictionary.to_pylist())})
        self._runs, self._measures, self.queries = names
        self._values = np.full([len(n) for n in names], np.nan)
        self._values[tuple(codes)] = table["value"].to_numpy()

    def of(self, run: Run, measure: str) -> np.ndarray:
        """(queries,) values of one run and measure."""
        return self._row(f"{run.run_date} {run.arm_hash}", measure)

    def rescored(self, run: Run, against: Run, measure: str) -> np.ndarray:
        """(queries,) values of what a run is held against, by the run's judgements; those of a
        query that these leave out are its own."""
        values = self.of(against, measure)
        if run.judgements == against.judgements:
            return values
        name = f"{run.run_date} {run.arm_hash} {against.run_date} {against.arm_hash}"
        by_them = self._row(name, measure)
        return np.where(np.isnan(by_them), values, by_them)

    def _row(self, name: str, measure: str) -> np.ndarray:
        r, m = self._runs.get(name), self._measures.get(measure)
        if r is None or m is None:
            return np.full(len(self.queries), np.nan)
        return self._values[r, m]

    def measures_of(self, run: Run | None) -> list[str]:
        """The measures that a run has a value for."""
        return [m for m in self._measures if run and not np.isnan(self.of(run, m)).all()]


def read_rankings(connection: duckdb.DuckDBPyConnection, run: Run) -> dict[str, dict[str, float]]:
    """A run's rankings: {query id: {passage id: score}}, best first."""
    rows = ask(connection, "judge/rankings", **run.key)
    return {row["query_id"]: dict(zip(row["passages"], row["scores"], strict=True)) for row in rows}
