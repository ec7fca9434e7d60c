"""Alerts: tell people of a night that needs them, once.

In: a night's verdict and what it rests on. Out: a message to the log, a Slack or any other
webhook, or by e-mail; and for each one delivered the artifact `alerts/<collection>/<key>`, a
manifest without parts, so that a night that is run again does not alert again.

Notes: a message counts as delivered once its receiver has taken it. One that failed is sent again
with the next run of that night, and one whose sender was killed in between may come twice. An
address may itself be a secret, as a Slack webhook's is: it is in no log and in no error.
"""

import html
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import httpx

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.errors import AlertError
from perank_tasks.regression.ladder import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)

# They log addresses.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

KIND = "alerts"
LOG = "log"
"""The receiver that needs no connection."""

ALERTING = (Verdict.SUSPECT, Verdict.INCOMPLETE, Verdict.REGRESSION)
"""Verdicts that people are alerted of. `suspect` is one: the docs' simulation has it on 7 of 2,000
unchanged nights, too few to be noise and early enough to look before it is a regression."""

SLACK = "https://hooks.slack.com/services"
SLACK_TYPES = ("slackwebhook", "slack")
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Alert:
    """One message about one night."""

    run_date: date
    collection: str
    verdict: str
    text: str
    """One line: what the verdict rests on."""
    arms: tuple[str, ...] = ()
    """A line for each arm."""
    link: str | None = None
    """Address of the night's report."""

    @property
    def subject(self) -> str:
        return f"perank: {self.verdict}, {self.collection}, night of {self.run_date}"

    @property
    def body(self) -> str:
        """The whole message as plain text."""
        return "\n".join(filter(None, [self.subject, self.text, *self.arms, self.link]))

    def to_json(self) -> dict[str, Any]:
        """What a webhook gets."""
        return {
            "run_date": self.run_date.isoformat(),
            "collection": self.collection,
            "verdict": self.verdict,
            "text": self.text,
            "arms": list(self.arms),
            "link": self.link,
        }

    def to_html(self) -> str:
        """What an e-mail says."""
        arms = "".join(f"<li>{html.escape(arm)}</li>" for arm in self.arms)
        link = f'<p><a href="{html.escape(self.link)}">Report</a></p>' if self.link else ""
        return f"<p><b>{html.escape(self.text)}</b></p><ul>{arms}</ul>{link}"


def deliver(
    store: Store, alert: Alert, receivers: Mapping[str, Callable[[Alert], None]]
) -> list[str]:
    """Send an alert to every receiver that has not had it; returns those it was sent to.

    Args:
        receivers: {name: how to send it there}.

    Raises:
        AlertError: some did not take it, after all others got theirs.
    """
    delivered, errors = [], []
    for name, send in receivers.items():
        delivery = _delivery(store, alert, name)
        if delivery.is_published:
            log.info("%s was alerted of this already: %s", name, alert.subject)
            continue
        try:
            send(alert)
        except AlertError as error:
            errors.append(str(error))
            continue
        except Exception as error:
            # Another library's words may hold an address or a password.
            errors.append(str(_undelivered(name, type(error).__name__)))
            continue
        sent_at = datetime.now(UTC).isoformat(timespec="seconds")
        config = {**alert.to_json(), "receiver": name, "sent_at": sent_at}
        delivery.publish(expected={}, inputs={}, config=config, counts={}, provenance={})
        delivered.append(name)
    if errors:
        raise AlertError("\n".join(errors))
    return delivered


def to_log(alert: Alert) -> None:
    """Write an alert into the log."""
    log.warning("%s", alert.body)


def post(alert: Alert, connection: "Connection") -> None:
    """Send an alert to the webhook of a connection.

    An `http` one gets the alert as JSON, with the headers of its extra fields and with its login,
    if it has one.

    Raises:
        AlertError: it was not taken; names the connection and the status, not the address.
    """
    url = webhook(connection)
    if connection.conn_type in SLACK_TYPES:
        # As Slack wants &, < and >.
        request: dict[str, Any] = {"json": {"text": html.escape(alert.body, quote=False)}}
    else:
        request = {"json": alert.to_json(), "headers": connection.extra_dejson.get("headers")}
        if connection.login:
            request["auth"] = (connection.login, connection.password or "")
    try:
        answer = httpx.post(url, timeout=TIMEOUT_S, **request)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _undelivered(connection.conn_id, type(error).__name__) from None
    if not answer.is_success:
        raise _undelivered(connection.conn_id, f"HTTP status {answer.status_code}")


def webhook(connection: "Connection") -> str:
    """The address that a connection of type `slackwebhook` or `http` describes.

    Slack's is the host (its own by default) and the password, as Airflow's Slack connections have
    it, or a password that is the whole address. Another one is schema, host, port and, in the
    extra fields, `endpoint`.

    Raises:
        AlertError: the connection has another type, or no address.
    """
    host = connection.host or ""
    if host and "://" not in host:
        port = f":{connection.port}" if connection.port else ""
        host = f"{connection.schema or 'https'}://{host}{port}"
    if connection.conn_type in SLACK_TYPES:
        secret = connection.password or ""
        if not secret:
            raise AlertError(
                f"Connection {connection.conn_id} has no password: Slack's webhook address, or "
                "its last three parts, belongs there."
            )
        return secret if "://" in secret else _join(host or SLACK, secret)
    if connection.conn_type != "http":
        raise AlertError(
            f"Connection {connection.conn_id} has the type {connection.conn_type!r}; alerts go to "
            "slackwebhook, http and smtp."
        )
    if not host:
        raise AlertError(f"Connection {connection.conn_id} has no host to send alerts to.")
    endpoint = connection.extra_dejson.get("endpoint")
    return _join(host, endpoint) if endpoint else host


def _join(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path.lstrip('/')}"


def _delivery(store: Store, alert: Alert, receiver: str) -> Artifact:
    key = artifact_key(
        date=alert.run_date, collection=alert.collection, verdict=alert.verdict, receiver=receiver
    )
    # A night that failed before its collection had a name goes by its spec.
    folder = re.sub(r"[^\w.-]+", "-", alert.collection).strip("-.") or "unnamed"
    return store.artifact(KIND, folder, key)


def _undelivered(name: str, why: str) -> AlertError:
    return AlertError(
        f"The alert was not taken by {name} ({why}). Look at that connection in Airflow; running "
        "the night again sends it again."
    )
