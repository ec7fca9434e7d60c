"""A whole experiment in one process: what `dags/perank_experiment.py` does without Airflow."""

import logging
import time
from collections.abc import Callable, Iterable

from perank_tasks.errors import DeviceMemoryError, PerankError, StorageError, WarehouseError
from perank_tasks.experiments import cells, results
from perank_tasks.experiments.cells import Outcome, Trained
from perank_tasks.experiments.page import write_page
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.night.pipeline import GOES_ON
from perank_tasks.support.log_context import stage_context

log = logging.getLogger(__name__)

OUT_OF_TIME = "not begun: the budget of {hours:g} hours was used up"


def run_experiment(
    plan: ExperimentPlan, tell: Callable[[str], None] = log.info
) -> tuple[str, list[Outcome]]:
    """Compute every cell that is not there, conclude, load and write the page.

    A cell that fails is reported, and the others go on; so are those that the budget leaves no
    time for. The same call goes on from what is done.

    Args:
        tell: is told of each cell as it ends.

    Returns:
        The reference of the results, and what became of the cells.
    """
    begun = time.time()
    outcomes = []
    try:
        for number, cell in enumerate(plan.cells, 1):
            started = time.monotonic()
            outcome = _run(plan, cell.hash, begun)
            outcomes.append(outcome)
            said = outcome["reason"] or f"{time.monotonic() - started:.1f} s"
            tell(f"{number}/{len(plan.cells)} {cell.collection_name}: {cell.label}: {said}")
    except (KeyboardInterrupt, SystemExit):
        log.warning(GOES_ON)
        raise
    with stage_context(plan, "conclude"):
        reference = results.conclude(plan, outcomes)
    with stage_context(plan, "load"):
        results.load(plan, reference)
    with stage_context(plan, "report"):
        write_page(plan)
    return reference, outcomes


def _run(plan: ExperimentPlan, cell: str, begun: float) -> Outcome:
    try:
        with stage_context(plan, "cell", {"shard": cell}):
            return try_cell(plan, cell, begun=begun)
    except Exception as error:
        return _failed(cell, error)


def try_cell(
    plan: ExperimentPlan,
    cell: str,
    checkpoints: Iterable[Trained] | None = None,
    begun: float | None = None,
) -> Outcome:
    """Compute a cell; where that fails, or there is no time left for it, say why.

    Errors of the machine are raised: they say nothing of the cell, and are worth a retry.

    Args:
        cell: its hash.
        checkpoints: what was trained; None: train here what the cell needs.
        begun: when the run began, in seconds since 1970; None: there is time.
    """
    hours = plan.experiment.budget.hours
    try:
        is_late = begun is not None and time.time() - begun > 3600 * hours
        if is_late and cells.find_cell(plan, plan.cell(cell)) is None:
            return Outcome(cell=cell, result=None, reason=OUT_OF_TIME.format(hours=hours))
        return cells.run_cell(plan, cell, checkpoints)
    except (StorageError, WarehouseError, DeviceMemoryError, OSError, MemoryError):
        raise
    except Exception as error:
        return _failed(cell, error)


def _failed(cell: str, error: Exception) -> Outcome:
    if isinstance(error, PerankError):
        log.warning("%s", error)
        return Outcome(cell=cell, result=None, reason=str(error))
    # A bug spoils its own cell alone.
    log.error("cell %s", cell, exc_info=error)
    return Outcome(cell=cell, result=None, reason=repr(error))
