"""Names of runs, as a person types them.

A night's is `DATE`, `DATE/arm` or `DATE/arm/collection`; that of another series
`SERIES/arm`, with `@DATE` behind the series where not its newest run is meant, and `/collection`
where it has several.
"""

from dataclasses import dataclass
from datetime import date

import duckdb

from perank_tasks.config import NIGHTLY
from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.nights import Nights, Run


@dataclass(frozen=True)
class RunName:
    """A run's name; what is None is not said."""

    run_date: date | None
    """None: the newest of the series."""
    arm: str | None = None
    """Or an arm's hash."""
    collection: str | None = None
    series: str = NIGHTLY

    @classmethod
    def parse(cls, text: str) -> "RunName":
        """Read a name.

        Raises:
            ConfigError: it is not of that form.
        """
        first, *rest = text.split("/")
        arm, collection = [*rest, "", ""][:2]
        run_date = _date(first)
        series, at, day = (NIGHTLY, "", "") if run_date else first.partition("@")
        run_date = run_date or _date(day)
        is_whole = run_date or (arm and not at)
        if len(rest) > 2 or not series or not is_whole:
            raise ConfigError(
                f"{text!r} names no run; write DATE, DATE/arm or DATE/arm/collection, as in "
                "2026-01-31/perank/pydocs, or SERIES/arm or SERIES@DATE/arm for an experiment."
            )
        return cls(run_date, arm or None, collection or None, series)

    def __str__(self) -> str:
        first = self.run_date.isoformat() if self.run_date else self.series
        if self.run_date and self.series != NIGHTLY:
            first = f"{self.series}@{first}"
        return "/".join(part for part in (first, self.arm, self.collection) if part)

    def find(self, connection: duckdb.DuckDBPyConnection) -> list[Run]:
        """The results of that name, all of one date and collection.

        Raises:
            ConfigError: there are none, or those of several collections.
        """
        rows = connection.execute(
            "SELECT run_date, collection FROM runs WHERE series = $1 "
            "AND run_date = coalesce($2, (SELECT max(run_date) FROM runs WHERE series = $1)) "
            "AND collection = coalesce($3, collection) GROUP BY ALL ORDER BY ALL",
            [self.series, self.run_date, self.collection],
        ).fetchall()
        if len(rows) > 1:
            collections = [collection for _, collection in rows]
            raise ConfigError(
                f"{self} has results of {', '.join(collections)}; say which: "
                f"{RunName(self.run_date, self.arm or 'ARM', collections[0], self.series)}"
            )
        runs = [
            run
            for run_date, collection in rows
            for run in Nights(connection, collection, self.series).of(run_date)
            if self.arm in (None, run.arm, run.arm_hash)
        ]
        if not runs:
            raise ConfigError(
                f"There are no results of {self}. See what there is: "
                'perank sql "SELECT series, run_date, arm, collection FROM runs ORDER BY ALL"'
            )
        return runs


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
