"""Verdict: the task that judges the night, and shows it in Airflow.

In: a loaded night. Out: its verdict in the task's log, on the task's link to the report, on the
run's note (the plugin in `dags/plugins` writes it), as an event of the asset `perank_verdicts` and,
where Airflow's metrics are switched on, as `perank.verdict` and `perank.measure`.
"""

import re
from typing import Any

from airflow.sdk import Asset, BaseOperatorLink, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.observability import stats

from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.airflow.run_pages import NOTE, Figures, figures, note, report_address
from perank_tasks.airflow.tasks import NIGHT, call_stage, errors_for_airflow
from perank_tasks.config import Night
from perank_tasks.settings import Settings

VERDICT = "verdict"
"""Id of the task."""

VERDICTS = Asset("perank_verdicts")
"""An event for each verdict, with the night's date, collection and verdict in its extra."""


def verdict(**task_options: Any) -> Any:
    """The task that judges the night.

    Where the run's Params say so, a regression fails it, without a retry, unless people are asked
    first. The night's data is loaded by then.
    """

    @task(task_id=VERDICT, outlets=[VERDICTS], **task_options)
    def judge_night() -> Any:
        from perank_tasks.night.verdict import verdict

        context = get_current_context()
        night = NIGHT.planned(context)
        alerts = AlertOptions.of(dict(context["params"]))
        judged = call_stage(verdict, night)
        with errors_for_airflow():
            means = figures(Settings.from_environment(), night.run_date, night.collection_name)
        send_metrics(night, judged, means)
        context["outlet_events"][VERDICTS].extra = {
            "run_date": night.run_date.isoformat(),
            "collection": night.collection_name,
            "verdict": judged["verdict"],
        }
        context["ti"].xcom_push(NOTE, note(judged, means, report_address(night)))
        if judged["verdict"] == "regression" and alerts.fails and not alerts.ask:
            # A task that fails returns nothing, and the alert reads what this one returned.
            context["ti"].xcom_push("return_value", judged)
            raise AirflowFailException(judged["text"])
        return judged

    def with_link() -> Any:
        result: Any = judge_night()
        result.operator.operator_extra_links = (ReportLink(),)
        return result

    return with_link


def send_metrics(night: Night, judged: Any, means: Figures) -> None:
    """Gauges of a night: each arm's means, and its verdict by its place on the ladder, 0 first."""
    from perank_tasks.regression.ladder import Verdict

    ladder = list(Verdict)
    for arm in judged["arms"]:
        tags = {"collection": night.collection_name, "arm": arm["arm"]}
        stats.gauge("perank.verdict", ladder.index(Verdict(arm["verdict"])), tags=tags)
        for measure, value in means.get(arm["arm_hash"], {}).items():
            # StatsD allows no @ in a name.
            name = re.sub(r"\W", "_", measure)
            stats.gauge("perank.measure", value, tags={**tags, "measure": name})


class ReportLink(BaseOperatorLink):
    """The button of the verdict task that opens the night's report."""

    @property
    def name(self) -> str:
        return "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's address; Airflow calls this when the task ends, with its instance."""
        plan = ti_key.xcom_pull(task_ids=NIGHT.planning.__name__)
        return report_address(Night.from_json(plan)) if plan else ""
