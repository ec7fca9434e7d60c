"""Equal tables: what two warehouses of the same nights have in common.

In: two warehouse folders. Out: where they differ, table by table. Left out are columns that two
runs never share: moments, seconds, memory, and what is derived from these.
"""

from datetime import date
from pathlib import Path

import duckdb

MEASURED = {
    "runs": ("evaluated_at",),
    "baselines": ("accepted_at",),
    "efficiency": (
        "seconds",
        "items_per_second",
        "peak_memory_bytes",
        "load_seconds",
        "tokenise_seconds",
        "prefill_seconds",
        "decode_seconds",
    ),
    # Bands and words of speed and memory, which differ from run to run.
    "cost_verdicts": ("verdict", "value", "band_low", "band_high"),
}

# Rows that are there or not by how long ranking took.
UNCLOCKED = {"cost_verdicts": "quantity <> 'queries/s'"}

Tables = dict[str, list[tuple]]


def tables(warehouse: Path, before: date = date.max) -> Tables:
    """Every table of the copy for readers, in order, without what was measured by a clock.

    Args:
        before: rows of nights of this date and later are left out.
    """
    with duckdb.connect(str(warehouse / "perank.duckdb"), read_only=True) as connection:
        names = connection.execute(
            "SELECT table_name, bool_or(column_name = 'run_date') FROM duckdb_columns() "
            "WHERE NOT internal AND table_name IN (SELECT table_name FROM duckdb_tables()) "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        found = {}
        for name, dated in names:
            left_out = ", ".join(MEASURED.get(name, ()))
            columns = f"* EXCLUDE ({left_out})" if left_out else "*"
            asked = [f"run_date < DATE '{before}'"] if dated else []
            asked += [UNCLOCKED[name]] if name in UNCLOCKED else []
            where = f"WHERE {' AND '.join(asked)}" if asked else ""
            rows = connection.execute(
                f"SELECT {columns} FROM {name} {where} ORDER BY ALL"
            ).fetchall()
            # NaN is not equal to itself.
            found[name] = [tuple(map(repr, row)) for row in rows]
        return found


def differences(found: Tables, expected: Tables) -> list[str]:
    """One line for each table that is not the same, with the first row that differs."""
    lines = []
    for name in sorted(found.keys() | expected.keys()):
        ours, theirs = found.get(name, []), expected.get(name, [])
        if ours != theirs:
            odd = sorted(set(ours) ^ set(theirs))[:1]
            lines.append(f"{name}: {len(ours)} rows instead of {len(theirs)}, such as {odd}")
    return lines
