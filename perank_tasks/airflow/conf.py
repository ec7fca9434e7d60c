"""What a run of the nightly DAG is given: the options of its night, and of its alerts.

In: the run's parameters, as Airflow's form or `--conf` has them. Out: checked options.

Notes: imports no Airflow, so that `make nightly` can refuse an option before Airflow starts.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from perank_tasks.config import NightOptions, Options

_VERDICT: JsonDict = {"section": "Verdict"}


class AlertOptions(Options):
    """What a run does about its verdict; results do not depend on it."""

    on_regression: Literal["alert", "fail"] = Field("alert", json_schema_extra=_VERDICT)
    """alert: the run succeeds. fail: the verdict task fails, without a retry and after the night's
    data is loaded."""
    alert_to: tuple[Annotated[str, StringConstraints(pattern=r"^[\w.\-]+$")], ...] = Field(
        ("log",), title="Alert", json_schema_extra=_VERDICT
    )
    """Who is alerted, once, of a night that is suspect, incomplete or a regression: log, or ids of
    Airflow connections of the types slackwebhook, smtp and http. Empty: nobody."""
    ask: bool = Field(False, title="Ask for acceptance", json_schema_extra=_VERDICT)
    """Where the means changed, the run waits up to 12 hours for somebody to accept the night in
    Airflow (Required Actions). A regression fails its run only where it is not accepted."""

    @property
    def fails(self) -> bool:
        """Whether a regression fails its run."""
        return self.on_regression == "fail"

    @classmethod
    def of(cls, conf: dict[str, Any]) -> Self:
        """Those among a run's parameters, whatever the others are.

        Raises:
            ConfigError: as `parse`.
        """
        return cls.parse({name: conf[name] for name in cls.model_fields if name in conf})


def parse_conf(conf: dict[str, Any]) -> NightOptions:
    """The options of a run's night; those of its alerts are checked as well.

    Raises:
        ConfigError: names each option that is wrong, the value it got and what it accepts.
    """
    AlertOptions.of(conf)
    return NightOptions.parse({k: v for k, v in conf.items() if k not in AlertOptions.model_fields})
