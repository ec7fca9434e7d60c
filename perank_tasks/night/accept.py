"""Acceptance: a night becomes what later ones are judged by.

In: an acceptance, as `warehouse.decisions` makes it. Out: its row, the verdicts that it changes,
and the pages that show them.
"""

from datetime import timedelta

from perank_tasks.night.site import Site
from perank_tasks.report.page import write_pages_after
from perank_tasks.warehouse.database import load_acceptance
from perank_tasks.warehouse.sql_files import TableRow


def accept_night(site: Site, act: TableRow) -> int:
    """Write an acceptance down, and again the pages there are of nights it holds for.

    Args:
        act: a row of `schemas.BASELINES`.

    Returns:
        How many pages.

    Raises:
        WarehouseError: somebody else writes, for too long.
        ConfigError: what it accepts is not in the warehouse, or is incomplete.
    """
    load_acceptance(site.settings.warehouse, site.store, act)
    return write_pages_after(site.settings, act["collection"], act["as_of"] - timedelta(days=1))
