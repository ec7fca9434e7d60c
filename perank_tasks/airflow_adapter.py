"""Where Airflow meets the stages: the only module outside `dags/` that imports Airflow.

`stage` makes a task of a stage function, `night_params` a form of `NightOptions`, and
`plan` the first task, which decides what date a run is for.
"""

import importlib
import inspect
from collections.abc import Callable
from datetime import UTC, date
from typing import Any

from airflow.sdk import Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import PerankError, StorageError, WarehouseError

PLAN = "plan_night"
"""Id of the task that every other task takes the night from."""

TRANSIENT = (StorageError, WarehouseError, OSError, MemoryError)
"""Errors of the infrastructure, worth a retry, as is a worker's death, which Airflow sees
for itself. Any other error would only come back."""


def night_params() -> dict[str, Param]:
    """The form of a night: type, range, default and description of every option."""
    params = {}
    for name, schema in NightOptions.model_json_schema()["properties"].items():
        schema = dict(schema)
        default, description = schema.pop("default"), schema.pop("description")
        kinds = schema.pop("anyOf", None)
        if kinds:  # an option that may be left empty
            schema |= {key: value for kind in kinds for key, value in kind.items() if key != "type"}
            schema["type"] = ["null", *(k["type"] for k in kinds if k["type"] != "null")]
        params[name] = Param(default, description=description, **schema)
    return params


def run_date_of(context: Any) -> date:
    """A run's date: its logical date, or where it has none, when it was due, in UTC."""
    moment = context.get("logical_date") or context["dag_run"].run_after
    return moment.astimezone(UTC).date()


def plan(**task_options: Any) -> Any:
    """The first task: the run's Params and date as a `Night`, in JSON."""

    @task(task_id=PLAN, **task_options)
    def plan_night() -> dict[str, Any]:
        from perank_tasks.stages.plan import plan_night as plan_stage

        context = get_current_context()
        with _AsAirflowErrors():
            options = NightOptions.parse(dict(context["params"]))
            return plan_stage(options, run_date_of(context)).to_json()

    return plan_night


def stage(path: str, **task_options: Any) -> Any:
    """A task that calls a stage function.

    Args:
        path: `module.function` below `perank_tasks.stages`; it is imported when the task
            runs, so that parsing a DAG file stays light. The task is called as the function.
        task_options: what `airflow.sdk.task` takes: pool, outlets, …

    The function's first argument is the night, which the task fetches from the run's plan:
    passed by hand, it would draw a line from the plan to every task of the graph.
    """
    module, _, name = path.rpartition(".")

    def call(**inputs: Any) -> Any:
        function: Callable[..., Any] = getattr(
            importlib.import_module(f"perank_tasks.stages.{module}"), name
        )
        # Airflow adds its whole context to the keywords of a function that takes any.
        wanted = inspect.signature(function).parameters
        night = Night.from_json(get_current_context()["ti"].xcom_pull(task_ids=PLAN))
        with _AsAirflowErrors():
            return function(night, **{k: v for k, v in inputs.items() if k in wanted})

    call.__doc__ = f"See `perank_tasks.stages.{path}`."
    return task(task_id=name, **task_options)(call)


class _AsAirflowErrors:
    """Fail a task at once for an error that a retry cannot cure."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, TRANSIENT):
            message = str(error) if isinstance(error, PerankError) else repr(error)
            raise AirflowFailException(message) from error
