"""Notifier: alerts people of a night that needs them, from Airflow's callbacks.

In: the context of the task that just ended. Out: an alert to every receiver that the Param
`alert_to` names, once; `alerts.py` delivers it.
"""

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowTaskTimeout

from perank_tasks.airflow.approval import NotAcceptedError
from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.airflow.connections import reach_storage
from perank_tasks.airflow.run_pages import FAILED, NOTE, OUT_OF_TIME, failure, report_address
from perank_tasks.airflow.tasks import NIGHT, run_date_of
from perank_tasks.airflow.verdict import VERDICT
from perank_tasks.config import Night
from perank_tasks.settings import Settings

if TYPE_CHECKING:
    from perank_tasks.airflow.alerts import Alert


class NightAlert(BaseNotifier):
    """Alerts of a night that failed, or is suspect, incomplete or a regression, once.

    As `on_failure_callback` of every task it alerts of a night that has no verdict, and leaves the
    reason for the run's note; as that of the DAG, of a run that ran out of time; as
    `on_success_callback` of the verdict task of a night that has one.
    """

    def notify(self, context: Any) -> None:
        """Alert of what the task that just ended shows of the night.

        Raises:
            AlertError: a receiver did not take it; Airflow writes that into the task's log.
        """
        from perank_tasks.airflow.alerts import ALERTING, deliver
        from perank_tasks.artifacts.store import Store

        # Of any other end of a run its tasks have alerted, and of a regression its verdict.
        is_told = isinstance(context.get("exception"), NotAcceptedError)
        if is_told or context.get("reason", OUT_OF_TIME) != OUT_OF_TIME or "ti" not in context:
            return
        alert = _alert(context)
        # A process that died leaves no exception, and whoever runs its callback can leave no XCom.
        if alert.verdict == FAILED and isinstance(context.get("exception"), BaseException):
            context["ti"].xcom_push(NOTE, alert.text)
        if alert.verdict not in ALERTING:
            return
        receivers = AlertOptions.of(dict(context["params"])).alert_to
        reach_storage()
        alerted = deliver(Store(Settings.from_environment().root), alert, receivers)
        if alerted:
            self.log.info("alerted %s: %s", ", ".join(alerted), alert.subject)


def _alert(context: Any) -> "Alert":
    """The alert of the run whose task has just ended; its verdict may be one that needs none."""
    from perank_tasks.airflow.alerts import Alert
    from perank_tasks.warehouse.answers import in_lines

    ti, params = context["ti"], context["params"]
    plan = ti.xcom_pull(task_ids=NIGHT.planning.__name__)
    night = Night.from_json(plan) if plan else None
    collection = params.get("collection") or Settings.from_environment().collection
    ends_with_verdict = ti.task_id == VERDICT or "reason" in context
    judged = ti.xcom_pull(task_ids=VERDICT) if ends_with_verdict else None
    name = " ".join(filter(None, [ti.task_id, ti.rendered_map_index]))
    reason = context.get("exception") or "its process died"
    if "reason" in context:
        reason = "the run ran out of time"
    elif isinstance(reason, AirflowTaskTimeout):
        reason = f"not done within {ti.task.execution_timeout} h"
    return Alert(
        run_date=str(night.run_date if night else params.get("run_date") or run_date_of(context)),
        collection=night.collection_name if night else collection,
        verdict=judged["verdict"] if judged else FAILED,
        text=(
            "\n".join(map(": ".join, in_lines(judged["answers"])))
            if judged
            else failure(name, reason)
        ),
        arms=[f"{arm['arm']}: {arm['text']}" for arm in judged["arms"]] if judged else [],
        link=report_address(night) if night else None,
    )
