"""Verdict: one word for the night and one line for each arm, in the log.

In: the loaded warehouse. Out: what `warehouse.night_verdict` makes of this night.
"""

import logging

from perank_tasks.config import Night
from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.night_verdict import NightVerdict, judge

log = logging.getLogger(__name__)


def verdict(night: Night, site: Site) -> NightVerdict:
    """The night's verdict, over the arms that it was to run."""
    with reading(site.settings.warehouse) as warehouse:
        judged = judge(
            warehouse,
            site.store,
            night.run_date,
            night.collection_name,
            {arm.hash: arm.name for arm in night.arms},
            night.options.baseline,
        )
    for arm in judged["arms"]:
        log.info("%s: %s", arm["arm"], arm["text"])
    log.info("%s", judged["text"])
    return judged
