"""Where Airflow meets the stages: the only module outside `dags/` that imports Airflow.

`stage` makes a task of a stage function, `night_params` a form of `NightOptions` and
`AlertOptions`, `plan` the first task, which decides what date a run is for, `verdict` the task
that says how the night is, `NightAlert` the notifier that tells people, and `retention` the task of
`dags/perank_retention.py`. `training_params`, `plan_training` and `training_stage` are the same for
`dags/perank_train.py`; `experiment_params`, `plan_experiment` and `experiment_stage` for
`dags/perank_experiment.py`.

Every line that a stage logs carries the night, the stage and the shard. Where Airflow's metrics
are switched on, a stage's time goes out as `perank.stage`, and the verdict's task sends
`perank.measure` and `perank.verdict`; `docs/operations.md` has their tags.
"""

import importlib
import inspect
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, date
from typing import Any

from airflow.sdk import (
    Asset,
    BaseNotifier,
    BaseOperatorLink,
    Connection,
    Param,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.observability import stats
from pydantic import BaseModel
from structlog.contextvars import bound_contextvars

from perank_tasks.airflow.run_pages import figures, note, report_path
from perank_tasks.artifacts.storage import in_words
from perank_tasks.config import (
    AlertOptions,
    Night,
    NightOptions,
    RetentionOptions,
    parse_conf,
)
from perank_tasks.errors import (
    AlertError,
    ConfigError,
    DeviceMemoryError,
    PerankError,
    StorageError,
    WarehouseError,
)
from perank_tasks.support.log_context import fields

log = logging.getLogger(__name__)

PLAN = "plan_night"
"""Id of the task that every other task takes the night from."""

TRAINING_PLAN = "plan_run"
"""The same of a training run."""

VERDICT = "verdict"
"""Id of the task that returns the night's word."""

EXPERIMENT_PLAN = "plan_experiment"
"""The same of an experiment."""

NOTE = "note"
"""The verdict task's XCom that the plugin writes on the run."""

VERDICTS = Asset("perank_verdicts")
"""An event for each verdict, with the night's date, collection and word in its extra."""

TRANSIENT = (StorageError, WarehouseError, DeviceMemoryError, OSError, MemoryError)
"""Errors of the infrastructure, worth a retry, as is a worker's death, which Airflow sees
for itself. Any other error would only come back."""


def night_params() -> dict[str, Param]:
    """The form of a night: type, range, default and description of every option."""
    return {**_params(NightOptions), **_params(AlertOptions)}


def retention_params() -> dict[str, Param]:
    """The form of a clean-up."""
    about = "Remove; switched off, only list what would go."
    return {**_params(RetentionOptions), "delete": Param(True, type="boolean", description=about)}


def training_params() -> dict[str, Param]:
    """The form of a training run: its own options, its data's, and both stages'."""
    from perank_tasks.training.run_options import form

    return {name: _param(schema) for name, schema in form().items()}


def experiment_params() -> dict[str, Param]:
    """The form of an experiment."""
    from perank_tasks.experiments.options import RunOptions

    return _params(RunOptions)


def _params(options: type[BaseModel]) -> dict[str, Param]:
    schemas = options.model_json_schema()["properties"]
    return {name: _param(schema) for name, schema in schemas.items()}


def _param(schema: dict[str, Any]) -> Param:
    schema = dict(schema)
    default, description = schema.pop("default"), schema.pop("description")
    kinds = schema.pop("anyOf", None)
    if kinds:  # an option that may be left empty
        schema |= {key: value for kind in kinds for key, value in kind.items() if key != "type"}
        schema["type"] = ["null", *(k["type"] for k in kinds if k["type"] != "null")]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return Param(default, description=description, **schema)


def run_date_of(context: Any) -> date:
    """A run's date: its logical date, or where it has none, when it was due, in UTC."""
    moment = context.get("logical_date") or context["dag_run"].run_after
    return moment.astimezone(UTC).date()


def plan(**task_options: Any) -> Any:
    """The first task: the run's Params and date as a `Night`, in JSON."""

    @task(task_id=PLAN, **task_options)
    def plan_night() -> dict[str, Any]:
        from perank_tasks.night.plan import plan_night as plan_stage

        context = get_current_context()
        with _AsAirflowErrors():
            options = parse_conf(dict(context["params"]))
            return plan_stage(options, run_date_of(context)).to_json()

    return plan_night


def stage(path: str, **task_options: Any) -> Any:
    """A task that calls a stage function.

    Args:
        path: `module.function` below `perank_tasks.night`; it is imported when the task
            runs, so that parsing a DAG file stays light. The task is called as the function.
        task_options: what `airflow.sdk.task` takes: pool, outlets, …

    The function's first argument is the night, which the task fetches from the run's plan:
    passed by hand, it would draw a line from the plan to every task of the graph.
    """
    return _stage(f"perank_tasks.night.{path}", PLAN, Night.from_json, task_options)


def plan_training(**task_options: Any) -> Any:
    """The first task of a training run: its Params and date as a `Training`, in JSON."""

    @task(task_id=TRAINING_PLAN, **task_options)
    def plan_run() -> dict[str, Any]:
        from perank_tasks.training.stages.plan_run import plan_training as plan_stage

        context = get_current_context()
        with _AsAirflowErrors():
            return plan_stage(dict(context["params"]), run_date_of(context)).to_json()

    return plan_run


def training_stage(path: str, **task_options: Any) -> Any:
    """As `stage`, of a function below `perank_tasks.training.stages`."""

    def training(value: dict[str, Any]) -> Any:
        from perank_tasks.training.run_options import Training

        return Training.from_json(value)

    return _stage(f"perank_tasks.training.stages.{path}", TRAINING_PLAN, training, task_options)


def plan_experiment(**task_options: Any) -> Any:
    """The first task of an experiment: its Params and date as an `ExperimentPlan`, in JSON."""

    @task(task_id=EXPERIMENT_PLAN, **task_options)
    def plan_run() -> dict[str, Any]:
        from perank_tasks.experiments.options import RunOptions
        from perank_tasks.experiments.plan import plan_experiment as plan_cells

        context = get_current_context()
        with _AsAirflowErrors():
            options = RunOptions.parse(dict(context["params"]))
            run_date = options.run_date or run_date_of(context)
            return plan_cells(options.experiment_asked(), run_date).to_json()

    return plan_run


def experiment_stage(path: str, **task_options: Any) -> Any:
    """As `stage`, of a function of `perank_tasks.experiments`."""

    def experiment(value: dict[str, Any]) -> Any:
        from perank_tasks.experiments.plan import ExperimentPlan

        return ExperimentPlan.from_json(value)

    module = f"perank_tasks.experiments.{path}"
    return _stage(module, EXPERIMENT_PLAN, experiment, task_options)


def _stage(
    path: str, plan_task: str, parse: Callable[[dict[str, Any]], Any], task_options: dict[str, Any]
) -> Any:
    module, _, name = path.rpartition(".")

    def call(**inputs: Any) -> Any:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        # Airflow adds its whole context to the keywords of a function that takes any.
        wanted = inspect.signature(function).parameters
        inputs = {k: v for k, v in inputs.items() if k in wanted}
        context = get_current_context()
        value = context["ti"].xcom_pull(task_ids=plan_task)
        if value is None:
            raise AirflowFailException(f"Without a plan there is nothing to do: see {plan_task}.")
        planned = parse(value)
        if "begun" in wanted:
            start = context["dag_run"].start_date
            inputs["begun"] = start.timestamp() if start else None
        begin = time.monotonic()
        about = fields(planned, module.rpartition(".")[2], inputs)
        with bound_contextvars(**about), _AsAirflowErrors():
            result = function(planned, **inputs)
        tags = {**planned.subject, "stage": name}
        stats.timing("perank.stage", 1000 * (time.monotonic() - begin), tags=tags)
        return result

    call.__doc__ = f"See `{path}`."
    return task(task_id=name, **task_options)(call)


def retention(**task_options: Any) -> Any:
    """The task that removes old artifacts, and says in its log what and how much."""

    @task(task_id="apply_retention", **task_options)
    def apply_retention() -> dict[str, int]:
        from perank_tasks.artifacts.store import Store
        from perank_tasks.night.retention import apply_retention as apply
        from perank_tasks.settings import Settings

        params = dict(get_current_context()["params"])
        delete = bool(params.pop("delete"))
        with _AsAirflowErrors():
            store = Store(Settings.from_environment().root)
            removals = apply(store, RetentionOptions.parse(params), delete=delete)
        for removal in removals:
            log.info("%s: %s, %s bytes", removal.reference, removal.why, f"{removal.bytes:,}")
        found = {"artifacts": len(removals), "bytes": sum(r.bytes for r in removals)}
        log.info("%s: %s", "removed" if delete else "would be removed", found)
        return found

    return apply_retention


def verdict(**task_options: Any) -> Any:
    """The task that says how the night is, in its log, in XComs, on its link and as an event.

    Where the run's Params say so, a regression fails it, without a retry; the night's data is
    loaded by then.
    """

    @task(task_id=VERDICT, outlets=[VERDICTS], **task_options)
    def judge_night() -> Any:
        from perank_tasks.night.verdict import verdict as verdict_stage
        from perank_tasks.settings import Settings

        context = get_current_context()
        ti = context["ti"]
        night = Night.from_json(ti.xcom_pull(task_ids=PLAN))
        alerts = AlertOptions.of(dict(context["params"]))
        with bound_contextvars(**fields(night, VERDICT)), _AsAirflowErrors():
            found = verdict_stage(night)
            means = figures(Settings.from_environment(), night.run_date, night.collection_name)
        _send_metrics(night, found, means)
        result = {**found, "figures": means}
        context["outlet_events"][VERDICTS].extra = {
            "run_date": night.run_date.isoformat(),
            "collection": night.collection_name,
            "verdict": found["verdict"],
        }
        ti.xcom_push(NOTE, note(found, means, _report_address(night.to_json())))
        if found["verdict"] == "regression" and alerts.on_regression == "fail":
            # A task that fails returns nothing, and whoever tells of it has to know.
            ti.xcom_push("return_value", result)
            raise AirflowFailException(found["text"])
        return result

    def make() -> Any:
        result: Any = judge_night()
        result.operator.operator_extra_links = (ReportLink(),)
        return result

    return make


def _send_metrics(night: Night, found: Any, means: dict[str, dict[str, float]]) -> None:
    """Gauges of a night: each arm's means, and its word by its place on the ladder, 0 the best."""
    from perank_tasks.regression.ladder import Verdict

    ladder = list(Verdict)
    for arm in found["arms"]:
        tags = {"collection": night.collection_name, "arm": arm["arm"]}
        stats.gauge("perank.verdict", ladder.index(Verdict(arm["verdict"])), tags=tags)
        for measure, value in means.get(arm["arm_hash"], {}).items():
            # StatsD knows no @ in a name.
            measured = {**tags, "measure": re.sub(r"\W", "_", measure)}
            stats.gauge("perank.measure", value, tags=measured)


class ReportLink(BaseOperatorLink):
    """The button of the verdict task that opens the night's report."""

    @property
    def name(self) -> str:
        return "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's address; Airflow calls this when the task ends, with its instance."""
        night = ti_key.xcom_pull(task_ids=PLAN)
        return _report_address(night) if night else ""


class NightAlert(BaseNotifier):
    """Tells of a night that is suspect, incomplete or a regression, once, as the Params say.

    As `on_failure_callback` of every task it tells of a night that has no verdict, as
    `on_success_callback` of the verdict task of one that has.
    """

    def notify(self, context: Any) -> None:
        """Send what the task that just ended has to tell.

        Raises:
            AlertError: a receiver did not take it; Airflow writes that into the task's log.
        """
        from perank_tasks.airflow.alerts import TOLD, deliver
        from perank_tasks.artifacts.store import Store
        from perank_tasks.settings import Settings

        alert = _alert(context)
        if alert.verdict not in TOLD:
            return
        options = AlertOptions.of(dict(context["params"]))
        _reach_storage()
        receivers = {name: receiver(name) for name in options.alert_to}
        told = deliver(Store(Settings.from_environment().root), alert, receivers)
        if told:
            self.log.info("told %s: %s", ", ".join(told), alert.subject)


def _alert(context: Any) -> Any:
    """What there is to tell of the run whose task has just ended."""
    from perank_tasks.airflow.alerts import Alert
    from perank_tasks.settings import Settings

    ti, params = context["ti"], context["params"]
    night = ti.xcom_pull(task_ids=PLAN)
    found = ti.xcom_pull(task_ids=VERDICT) if ti.task_id == VERDICT else None
    if night:
        about = (date.fromisoformat(night["run_date"]), night["collection_name"])
    else:
        asked = params.get("run_date")
        run_date = date.fromisoformat(asked) if asked else run_date_of(context)
        spec = params.get("collection") or Settings.from_environment().collection
        about = (run_date, spec)
    link = _report_address(night) if night else None
    if found:
        arms = tuple(f"{arm['arm']}: {arm['text']}" for arm in found["arms"])
        return Alert(*about, found["verdict"], found["text"], arms, link)
    why = f"incomplete: {ti.task_id} failed: {context.get('exception') or 'its process died'}"
    return Alert(*about, "incomplete", why)


def receiver(name: str) -> Callable[[Any], None]:
    """How to send an alert to `log` or by the connection of that id."""
    from perank_tasks.airflow.alerts import LOG, post, to_log, webhook

    if name == LOG:
        return to_log

    def send(alert: Any) -> None:
        connection = Connection.get(name)
        if connection.conn_type == "smtp":
            _mail(alert, connection)
        else:
            post(alert, webhook(connection))

    return send


def _mail(alert: Any, connection: Any) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    to = connection.extra_dejson.get("to")
    if not to:
        raise AlertError(
            f"Connection {connection.conn_id} does not say whom to write to: its extra fields "
            'need "to", an address or a list of them, beside "from_email".'
        )
    with SmtpHook(smtp_conn_id=connection.conn_id) as hook:
        hook.send_email_smtp(to=to, subject=alert.subject, html_content=alert.to_html())


def _report_address(night: dict[str, Any]) -> str:
    from airflow.sdk.configuration import conf

    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    return base + report_path(night["collection_name"], night["run_date"])


def _reach_storage() -> None:
    """Have this process reach S3 by the connection that the settings name.

    The connection's secrets stay in memory: they are in no environment, file, log or XCom.

    Raises:
        ConfigError: there is no such connection, or Amazon's provider is not installed.
    """
    from perank_tasks.settings import Settings

    conn_id = Settings.from_environment().aws_conn_id
    if conn_id is None:
        return
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError as error:
        raise ConfigError(
            f"PERANK_AWS_CONN_ID names the connection {conn_id!r}, and apache-airflow-providers-"
            "amazon, which reads it, is not installed: pip install 'perank[cluster]'."
        ) from error
    from perank_tasks.artifacts.storage.s3_client import Access, use_access

    try:
        Connection.get(conn_id)  # the hook would take the standard chain instead, in silence
    except AirflowNotFoundException:
        raise ConfigError(
            f"PERANK_AWS_CONN_ID names the connection {conn_id!r}, which Airflow does not have. "
            "Add it with the type aws, or unset the variable."
        ) from None
    hook = AwsBaseHook(aws_conn_id=conn_id, client_type="s3")
    endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3")
    use_access(Access(hook.get_session(), endpoint, hook.config, hook.verify))


class _AsAirflowErrors:
    """Around a stage: S3 by the connection, and errors that no retry can cure fail at once."""

    def __enter__(self) -> None:
        try:
            _reach_storage()
        except PerankError as error:
            raise AirflowFailException(str(error)) from error

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and (said := in_words(error)):
            raise said from error
        if isinstance(error, Exception) and not isinstance(error, TRANSIENT):
            message = str(error) if isinstance(error, PerankError) else repr(error)
            raise AirflowFailException(message) from error
