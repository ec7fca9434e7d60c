"""Names of runs, as a person types them: `DATE`, `DATE/arm` or `DATE/arm/collection`."""

from dataclasses import dataclass
from datetime import date

import duckdb

from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.nights import Nights, Run


@dataclass(frozen=True)
class RunName:
    """A run's name; what is None is not said."""

    run_date: date
    arm: str | None = None
    """Or an arm's hash."""
    collection: str | None = None

    @classmethod
    def parse(cls, text: str) -> "RunName":
        """Read a name.

        Raises:
            ConfigError: it is not of that form.
        """
        day, *rest = text.split("/")
        try:
            run_date = date.fromisoformat(day)
        except ValueError:
            rest = ["", "", ""]
        if len(rest) > 2:
            raise ConfigError(
                f"{text!r} names no run; write DATE, DATE/arm or DATE/arm/collection, as in "
                "2026-01-31/perank/pydocs."
            )
        arm, collection = [*rest, "", ""][:2]
        return cls(run_date, arm or None, collection or None)

    def __str__(self) -> str:
        return "/".join(str(part) for part in (self.run_date, self.arm, self.collection) if part)

    def find(self, connection: duckdb.DuckDBPyConnection) -> list[Run]:
        """The results of that name, all of one collection.

        Raises:
            ConfigError: there are none, or those of several collections.
        """
        collections = [
            name
            for (name,) in connection.execute(
                "SELECT DISTINCT collection FROM runs WHERE run_date = ? ORDER BY ALL",
                [self.run_date],
            ).fetchall()
            if self.collection in (None, name)
        ]
        if len(collections) > 1:
            raise ConfigError(
                f"On {self.run_date} there are results of {', '.join(collections)}; say which: "
                f"{self.run_date}/{self.arm or 'ARM'}/{collections[0]}"
            )
        found = [
            run
            for name in collections
            for run in Nights(connection, name).of(self.run_date)
            if self.arm in (None, run.arm, run.arm_hash)
        ]
        if not found:
            raise ConfigError(
                f"There are no results of {self}. See what there is: "
                'perank sql "SELECT run_date, arm, collection FROM runs ORDER BY ALL"'
            )
        return found
