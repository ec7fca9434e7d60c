"""Tasks: stage functions as Airflow's tasks, and the plan that a run's tasks begin from.

A `Pipeline` is one DAG's: its `plan` makes the first task, which turns the run's Params and date
into a plan; its `stage` makes a task of a stage function, which is called with that plan.
`NIGHT`, `TRAINING` and `EXPERIMENT` are those of the DAGs; `retention` is the one task of
`dags/perank_retention.py`.

Every line that a stage logs carries the night, the stage and the shard. Where Airflow's metrics
are switched on, a stage's time goes out as `perank.stage`; `docs/deployment.md` has its tags.
"""

import inspect
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date
from pkgutil import resolve_name
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.observability import stats
from structlog.contextvars import bound_contextvars

from perank_tasks.airflow.conf import parse_conf
from perank_tasks.airflow.connections import hand_over_keys, reach_storage
from perank_tasks.artifacts.storage import in_words
from perank_tasks.config import RetentionOptions
from perank_tasks.errors import DeviceMemoryError, PerankError, StorageError, WarehouseError
from perank_tasks.support.log_context import fields

log = logging.getLogger(__name__)

TRANSIENT = (StorageError, WarehouseError, DeviceMemoryError, OSError, MemoryError)
"""Errors of the infrastructure, worth a retry, as is a worker's death, which Airflow sees
for itself. Any other error would only come back."""


@dataclass(frozen=True)
class Pipeline:
    """What the tasks of one DAG share.

    Everything is imported when a task runs: parsing a DAG file stays light.
    """

    planning: Callable[[dict[str, Any], date], Any]
    """From a run's Params and date to its plan. Its name is the id of the first task."""
    record: str
    """The plan's class, as `module:name`; a plan travels between tasks as JSON."""
    package: str
    """Where the stage functions are."""

    def plan(self, **task_options: Any) -> Any:
        """The first task: returns the run's plan.

        Args:
            task_options: what `airflow.sdk.task` takes: pool, queue, outlets, …
        """

        @task(task_id=self.planning.__name__, **task_options)
        def plan() -> dict[str, Any]:
            context = get_current_context()
            with errors_for_airflow():
                planned = self.planning(dict(context["params"]), run_date_of(context))
            result: dict[str, Any] = planned.to_json()
            return result

        return plan

    def stage(self, path: str, **task_options: Any) -> Any:
        """A task that calls a stage function, and is itself called as that function.

        The function's first argument is the plan, which the task fetches: passed by hand, it
        would draw a line from the first task to every other one of the graph. A function that
        takes `begun` gets the moment at which the run began, in seconds since 1970, or None.

        Args:
            path: `module.function` below `package`.
            task_options: as for `plan`.
        """
        module, _, name = path.rpartition(".")

        def stage(**inputs: Any) -> Any:
            function = resolve_name(f"{self.package}.{module}:{name}")
            context = get_current_context()
            # Airflow adds its whole context to the keywords of a function that takes any.
            parameters = inspect.signature(function).parameters
            inputs = {k: v for k, v in inputs.items() if k in parameters}
            if "begun" in parameters:
                start = context["dag_run"].start_date
                inputs["begun"] = start.timestamp() if start else None
            return call_stage(function, self.planned(context), **inputs)

        stage.__doc__ = f"See `{self.package}.{path}`."
        return task(task_id=name, **task_options)(stage)

    def planned(self, context: Any) -> Any:
        """The plan of the run that a task belongs to.

        Raises:
            AirflowFailException: the first task returned none.
        """
        plan = context["ti"].xcom_pull(task_ids=self.planning.__name__)
        if plan is None:
            raise AirflowFailException(
                f"There is no plan, so there is nothing to do: see {self.planning.__name__}."
            )
        return resolve_name(self.record).from_json(plan)


def plan_night(params: dict[str, Any], run_date: date) -> Any:
    """The night of a run."""
    from perank_tasks.night.plan import plan_night
    from perank_tasks.night.site import Site

    return plan_night(parse_conf(params), run_date, Site.from_environment())


def plan_training(params: dict[str, Any], run_date: date) -> Any:
    """The training of a run."""
    from perank_tasks.night.site import Site
    from perank_tasks.training.stages.plan_run import plan_training

    return plan_training(params, run_date, Site.from_environment())


def plan_experiment(params: dict[str, Any], run_date: date) -> Any:
    """The experiment of a run."""
    from perank_tasks.experiments.options import RunOptions
    from perank_tasks.experiments.plan import plan_experiment
    from perank_tasks.night.site import Site

    options, site = RunOptions.parse(params), Site.from_environment()
    return plan_experiment(options.file(), options.run_date or run_date, site)


NIGHT = Pipeline(plan_night, "perank_tasks.config:Night", "perank_tasks.night")
TRAINING = Pipeline(
    plan_training, "perank_tasks.training.run_options:Training", "perank_tasks.training.stages"
)
EXPERIMENT = Pipeline(
    plan_experiment, "perank_tasks.experiments.plan:ExperimentPlan", "perank_tasks.experiments"
)


def retention(**task_options: Any) -> Any:
    """The task that removes old artifacts, and logs which and how much."""

    @task(task_id="apply_retention", **task_options)
    def apply_retention() -> dict[str, int]:
        from perank_tasks.artifacts.store import Store
        from perank_tasks.night.retention import apply_retention
        from perank_tasks.settings import Settings

        params = dict(get_current_context()["params"])
        delete = bool(params.pop("delete"))
        with errors_for_airflow():
            store = Store(Settings.from_environment().root)
            removals = apply_retention(store, RetentionOptions.parse(params), delete=delete)
        for removal in removals:
            log.info("%s: %s, %s bytes", removal.reference, removal.why, f"{removal.bytes:,}")
        totals = {"artifacts": len(removals), "bytes": sum(r.bytes for r in removals)}
        log.info("%s: %s", "removed" if delete else "would be removed", totals)
        return totals

    return apply_retention


def call_stage(function: Callable[..., Any], planned: Any, **inputs: Any) -> Any:
    """Call a stage function with a run's plan: every stage of every DAG is called here."""
    begin = time.monotonic()
    module = function.__module__.rpartition(".")[2]
    with bound_contextvars(**fields(planned, module, inputs)), errors_for_airflow():
        hand_over_keys(planned)
        if "site" in inspect.signature(function).parameters:
            from perank_tasks.night.site import Site

            site = Site.from_environment()
            is_one_of_many = get_current_context()["ti"].map_index not in (-1, None)
            inputs["site"] = site.of_a_piece if is_one_of_many else site
        result = function(planned, **inputs)
    tags = {**planned.subject, "stage": function.__name__}
    stats.timing("perank.stage", 1000 * (time.monotonic() - begin), tags=tags)
    return result


@contextmanager
def errors_for_airflow() -> Iterator[None]:
    """S3 by the settings' connection; an error that no retry can cure fails the task at once."""
    try:
        reach_storage()
        yield
    except Exception as error:
        if isinstance(error, OSError) and (storage_error := in_words(error)):
            raise storage_error from error
        if isinstance(error, TRANSIENT):
            raise
        message = str(error) if isinstance(error, PerankError) else repr(error)
        raise AirflowFailException(message) from error


def run_date_of(context: Any) -> date:
    """A run's date: its logical date, or where it has none, when it was due, in UTC."""
    moment = context.get("logical_date") or context["dag_run"].run_after
    return moment.astimezone(UTC).date()
