"""A whole experiment in one process: what `dags/perank_experiment.py` does without Airflow."""

import logging
import time
from collections.abc import Callable

from perank_tasks.experiments import results
from perank_tasks.experiments.cells import Outcome, failed, try_cell
from perank_tasks.experiments.page import write_page
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.night.site import Site
from perank_tasks.support.log_context import stage_context

log = logging.getLogger(__name__)


def run_experiment(
    plan: ExperimentPlan, site: Site, show: Callable[[str], None] = log.info
) -> tuple[str, list[Outcome]]:
    """Rank every cell that is not there, conclude, load and write the page.

    A cell that fails is reported and the others go on; so are those that the budget leaves no
    time for. The same call resumes from what is done.

    Args:
        show: is called with a line about each cell as it ends.

    Returns:
        The reference of the results, and what became of the cells.
    """
    begun = time.time()
    outcomes = []
    for number, cell in enumerate(plan.cells, 1):
        started = time.monotonic()
        with stage_context(plan, "cell", {"shard": cell.name}):
            try:
                outcome = try_cell(plan, site, cell.name, begun=begun)
            except Exception as error:
                outcome = failed(cell.name, error)
        outcomes.append(outcome)
        seconds = time.monotonic() - started
        show(f"{number}/{len(plan.cells)} {cell.name}: {outcome['reason'] or f'{seconds:.1f} s'}")
    with stage_context(plan, "conclude"):
        reference = results.conclude(plan, site, outcomes)
    with stage_context(plan, "load"):
        results.load(plan, site, reference)
    with stage_context(plan, "report"):
        write_page(plan, site)
    return reference, outcomes
