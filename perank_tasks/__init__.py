"""PE-Rank as an offline pipeline: `cli/` has the commands, `night/` what a night does.

In a notebook, `open_warehouse()` gives the result tables.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perank_tasks.warehouse.notebook import Warehouse


def open_warehouse(folder: Path | str | None = None) -> "Warehouse":
    """The result tables, read-only: SQL in, pandas DataFrames out.

    Args:
        folder: the warehouse's; None: where PERANK_WAREHOUSE or PERANK_HOME says.

    Raises:
        WarehouseError: there is none yet, or it cannot be read.
    """
    from perank_tasks.warehouse.notebook import Warehouse

    return Warehouse.open(folder)
