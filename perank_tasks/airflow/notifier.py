"""Notifier: alerts people of a night that needs them, from Airflow's callbacks.

In: the context of the task that just ended. Out: an alert to every receiver that the Param
`alert_to` names, once; `alerts.py` delivers it.
"""

from collections.abc import Callable
from datetime import date
from typing import Any

from airflow.sdk import BaseNotifier, Connection

from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.airflow.connections import reach_storage
from perank_tasks.airflow.tasks import NIGHT, run_date_of
from perank_tasks.airflow.verdict import VERDICT, report_address
from perank_tasks.config import Night
from perank_tasks.errors import AlertError
from perank_tasks.settings import Settings


class NightAlert(BaseNotifier):
    """Alerts of a night that is suspect, incomplete or a regression, once, as the Params say.

    As `on_failure_callback` of every task it alerts of a night that has no verdict, as
    `on_success_callback` of the verdict task of one that has.
    """

    def notify(self, context: Any) -> None:
        """Alert of what the task that just ended shows of the night.

        Raises:
            AlertError: a receiver did not take it; Airflow writes that into the task's log.
        """
        from perank_tasks.airflow.alerts import ALERTING, deliver
        from perank_tasks.artifacts.store import Store

        alert = _alert(context)
        if alert.verdict not in ALERTING:
            return
        options = AlertOptions.of(dict(context["params"]))
        reach_storage()
        receivers = {name: receiver(name) for name in options.alert_to}
        alerted = deliver(Store(Settings.from_environment().root), alert, receivers)
        if alerted:
            self.log.info("alerted %s: %s", ", ".join(alerted), alert.subject)


def receiver(name: str) -> Callable[[Any], None]:
    """How to send an alert to `log`, or by the connection of that id."""
    from perank_tasks.airflow.alerts import LOG, post, to_log

    def send(alert: Any) -> None:
        connection = Connection.get(name)
        if connection.conn_type == "smtp":
            _mail(alert, connection)
        else:
            post(alert, connection)

    return to_log if name == LOG else send


def _mail(alert: Any, connection: Connection) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    to = connection.extra_dejson.get("to")
    if not to:
        raise AlertError(
            f"Connection {connection.conn_id} does not say whom to write to: its extra fields "
            'need "to", an address or a list of them, beside "from_email".'
        )
    with SmtpHook(smtp_conn_id=connection.conn_id) as hook:
        hook.send_email_smtp(to=to, subject=alert.subject, html_content=alert.to_html())


def _alert(context: Any) -> Any:
    """The alert of the run whose task has just ended; its verdict may be one that needs none."""
    from perank_tasks.airflow.alerts import Alert

    ti, params = context["ti"], context["params"]
    plan = ti.xcom_pull(task_ids=NIGHT.planning.__name__)
    judged = ti.xcom_pull(task_ids=VERDICT) if ti.task_id == VERDICT else None
    reason = f"incomplete: {ti.task_id} failed: {context.get('exception') or 'its process died'}"
    if plan is None:
        run_date = params.get("run_date")
        return Alert(
            run_date=date.fromisoformat(run_date) if run_date else run_date_of(context),
            collection=params.get("collection") or Settings.from_environment().collection,
            verdict="incomplete",
            text=reason,
        )
    night = Night.from_json(plan)
    return Alert(
        run_date=night.run_date,
        collection=night.collection_name,
        verdict=judged["verdict"] if judged else "incomplete",
        text=judged["text"] if judged else reason,
        arms=tuple(f"{arm['arm']}: {arm['text']}" for arm in judged["arms"]) if judged else (),
        link=report_address(night),
    )
