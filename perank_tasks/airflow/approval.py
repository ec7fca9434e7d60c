"""Approval: a run asks people, in Airflow's UI, whether to accept its night.

In: a night that is judged, and whose run's Param `ask` is on. Out: once somebody approves, what
`perank baseline accept` does, in that person's name; the run's note says the new verdict.

Notes: the task waits in Airflow's database, in no process and no slot of a pool.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.airflow.run_pages import NOTE, figures, note, report_address
from perank_tasks.airflow.tasks import NIGHT, call_stage, errors_for_airflow
from perank_tasks.airflow.verdict import VERDICT

ASKED = ("unusual", "improvement", "suspect", "regression")
"""Verdicts that need a person: means changed, and the night is whole."""

PATIENCE = timedelta(hours=12)
"""Over a working day; the run has ended, by its limit, before the next night is due."""

NOBODY = "Anonymous"
"""Whoever answers in an Airflow without a login."""


class NotAcceptedError(AirflowFailException):
    """A regression that is to fail its run was not accepted."""


class NightApproval(ApprovalOperator):
    """Asks whether a night is as it should be. No answer in time is none: it is not accepted."""

    def execute(self, context: Any) -> Any:
        """Ask, where the run's Params say so and the verdict needs it; else the task is skipped."""
        night, judged = NIGHT.planned(context), context["ti"].xcom_pull(task_ids=VERDICT)
        if not AlertOptions.of(dict(context["params"])).ask or judged["verdict"] not in ASKED:
            raise AirflowSkipException("Nobody is asked of this night.")
        asked = f"Accept the night of {night.run_date}, {night.collection_name}?"
        self.subject = f"{asked} {judged['text']}"
        self.body = context["ti"].xcom_pull(task_ids=VERDICT, key=NOTE)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Accept the night, if that was the answer; if not, the run's note says whose it was.

        Raises:
            NotAcceptedError: a regression that is to fail its run was not accepted.
        """
        answer = super().execute_complete(context, event)
        ti, who = context["ti"], _who(answer)
        if answer["chosen_options"] == [self.APPROVE]:
            with errors_for_airflow():
                _accept(context, who or NOBODY, answer["params_input"])
            return answer
        within = f"nobody answered within {self.response_timeout} h"
        why = f"**not accepted**: {f'{who} rejected it' if who else within}"
        judged = ti.xcom_pull(task_ids=VERDICT)
        if judged["verdict"] == "regression" and AlertOptions.of(dict(context["params"])).fails:
            ti.xcom_push(NOTE, why)
            raise NotAcceptedError(why)
        verdict, _, rest = ti.xcom_pull(task_ids=VERDICT, key=NOTE).partition("\n\n")
        ti.xcom_push(NOTE, f"{verdict}\n\n{why}\n\n{rest}")
        return answer


def approval(**task_options: Any) -> NightApproval:
    """The task that asks."""
    reason = Param("as it should be", type="string", minLength=1, title="Reason")
    about = "Who accepts, where Airflow asks for no login."
    name = Param(NOBODY, type="string", minLength=1, title="Name", description=about)
    return NightApproval(
        task_id="approval",
        subject="Is this night as it should be?",
        defaults=NightApproval.REJECT,
        response_timeout=PATIENCE,
        params={"reason": reason, "name": name},
        **task_options,
    )


def _who(answer: Any) -> str | None:
    """The name of who answered: of the login, or as typed where there is none; None: nobody did."""
    name = (answer["responded_by_user"] or {}).get("name")
    return answer["params_input"].get("name", NOBODY) if name == NOBODY else name


def _accept(context: Any, name: str, said: dict[str, Any]) -> None:
    from perank_tasks.night.accept import accept_night
    from perank_tasks.night.site import Site
    from perank_tasks.night.verdict import verdict
    from perank_tasks.warehouse.decisions import acceptance

    site, night = Site.from_environment(), NIGHT.planned(context)
    reason = said.get("reason") or "as it should be"
    accept_night(site, acceptance(night.collection_name, night.run_date, name, reason))
    judged = call_stage(verdict, night)
    means = figures(site.settings, night.run_date, night.collection_name)
    context["ti"].xcom_push(NOTE, note(judged, means, report_address(night)))
