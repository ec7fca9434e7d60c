"""Report: the night as a page, and the index over nights.

In: the published warehouse, and snapshots for what changed in the collection. Out:
`<collection>/<date>.html` and `index.html` below the reports folder. Pages of later nights are
written again, for their verdicts and trends depend on this one.
"""

import logging

from perank_tasks.config import Night
from perank_tasks.night.site import Site
from perank_tasks.report.page import write_pages

log = logging.getLogger(__name__)


def report(night: Night, site: Site) -> str:
    """Write the night's page; returns its path below the reports folder."""
    settings = site.settings
    path = write_pages(settings, night.run_date, night.collection_name)
    log.info("Page: %s", path)
    return str(path.relative_to(settings.reports))
