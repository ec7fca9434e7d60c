"""Names of experiments' cells, as a person types them: `EXPERIMENT/CELL`, with `@DATE` behind the
experiment where not the newest run is meant, and `/COLLECTION` where it has several."""

from dataclasses import dataclass
from datetime import date

import duckdb

from perank_tasks.errors import ConfigError
from perank_tasks.warehouse.database import dicts


@dataclass(frozen=True)
class FoundCell:
    """A cell of the warehouse."""

    experiment: str
    run_date: date
    cell_hash: str
    cell: str
    collection: str


@dataclass(frozen=True)
class CellName:
    """A cell's name; what is None is not said."""

    experiment: str
    cell: str
    """Its label or its hash."""
    run_date: date | None = None
    collection: str | None = None

    @classmethod
    def parse(cls, text: str) -> "CellName | None":
        """Read a name; None where it begins with a date, as a night's does, or has no slash.

        Raises:
            ConfigError: what is behind the @ is no date.
        """
        experiment, slash, rest = text.partition("/")
        if not slash or _date(experiment):
            return None
        name, at, day = experiment.partition("@")
        run_date = _date(day)
        if at and not run_date:
            raise ConfigError(f"{text!r}: {day!r} is no date; write it as YYYY-MM-DD.")
        cell, _, collection = rest.partition("/")
        return cls(name, cell, run_date, collection or None)

    def find(self, connection: duckdb.DuckDBPyConnection) -> FoundCell:
        """The one cell of that name.

        Raises:
            ConfigError: there is none, or there are several.
        """
        known = connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'experiment_cells'"
        ).fetchone()
        rows = []
        if known and known[0]:
            found = connection.execute(
                "SELECT * FROM experiment_cells WHERE experiment = $1 AND run_date = coalesce($2, "
                "(SELECT max(run_date) FROM experiments WHERE experiment = $1))",
                [self.experiment, self.run_date],
            )
            rows = dicts(found)
        when = f" of {self.run_date}" if self.run_date else ""
        if not rows:
            raise ConfigError(
                f"There are no results of an experiment {self.experiment!r}{when}. See what there "
                'is: perank sql "SELECT experiment, run_date FROM experiments ORDER BY ALL"'
            )
        named = [
            row
            for row in rows
            if self.cell in (row["cell"], row["cell_hash"])
            and self.collection in (None, row["collection"])
        ]
        if not named:
            cells = "; ".join(dict.fromkeys(row["cell"] for row in rows))
            raise ConfigError(
                f"The experiment {self.experiment}{when} has no cell {self.cell!r}"
                f"{f' on {self.collection}' if self.collection else ''}; it has {cells}."
            )
        if len(named) > 1:
            first = named[0]["collection"]
            raise ConfigError(
                f"{self.experiment} has {self.cell!r} on "
                f"{', '.join(row['collection'] for row in named)}; say which: "
                f"{self.experiment}/{self.cell}/{first}"
            )
        (row,) = named
        if row["status"] == "missing":
            raise ConfigError(f"{self.experiment}/{self.cell} has no results: {row['reason']}")
        return FoundCell(
            row["experiment"], row["run_date"], row["cell_hash"], row["cell"], row["collection"]
        )


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
