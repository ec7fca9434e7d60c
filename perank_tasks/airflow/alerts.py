"""Alerts: tell people of a night that needs them, once.

In: a night's verdict, or that it failed, and what that rests on. Out: a message to the log, a Slack
or any other webhook, or by e-mail; and for each one delivered the artifact
`alerts/<collection>/<key>`, a manifest without parts, so that a night that is run again does not
alert again.

Notes: a message counts as delivered once its receiver has taken it. One that failed is sent again
with the next run of that night, and one whose sender was killed in between may come twice. An
address may itself be a secret, as a Slack webhook's is: it is in no log and in no error.
"""

import html
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx

from perank_tasks.airflow.run_pages import FAILED
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

ALERTING = (Verdict.SUSPECT, Verdict.INCOMPLETE, Verdict.REGRESSION, FAILED)
"""What people are alerted of. `suspect` is one: the docs' simulation has it on 7 of 2,000
unchanged nights, too few to be noise and early enough to look before it is a regression."""

SLACK = "https://hooks.slack.com/services/"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Alert:
    """One message about one night; a webhook gets it as JSON."""

    run_date: str
    collection: str
    verdict: str
    text: str
    """The answers to four questions, or what failed, a line each."""
    arms: list[str] = field(default_factory=list)
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


def deliver(store: Store, alert: Alert, receivers: Iterable[str]) -> list[str]:
    """Send an alert to every receiver that has not had it; returns those it was sent to.

    Raises:
        AlertError: some did not take it, after all others got theirs.
    """
    delivered, errors = [], []
    for name in receivers:
        delivery = _delivery(store, alert, name)
        if delivery.is_published:
            log.info("%s was alerted of this already: %s", name, alert.subject)
            continue
        try:
            send(alert, name)
        except Exception as error:
            # Another library's words may hold an address or a password.
            ours = isinstance(error, AlertError)
            errors.append(str(error if ours else _undelivered(name, type(error).__name__)))
            continue
        sent_at = datetime.now(UTC).isoformat(timespec="seconds")
        config = {**asdict(alert), "receiver": name, "sent_at": sent_at}
        delivery.publish(expected={}, inputs={}, config=config, counts={}, provenance={})
        delivered.append(name)
    if errors:
        raise AlertError("\n".join(errors))
    return delivered


def send(alert: Alert, name: str) -> None:
    """Send an alert to `log`, or by the Airflow connection of that id."""
    if name == LOG:
        log.warning("%s", alert.body)
        return
    from airflow.sdk import Connection

    connection = Connection.get(name)
    if connection.conn_type == "smtp":
        _mail(alert, connection)
    else:
        post(alert, connection)


def _mail(alert: Alert, connection: "Connection") -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    to = connection.extra_dejson.get("to")
    if not to:
        raise AlertError(
            f"Connection {connection.conn_id} does not say whom to write to: its extra fields "
            'need "to", an address or a list of them, beside "from_email".'
        )
    content = f"<pre>{html.escape(alert.body)}</pre>"
    with SmtpHook(smtp_conn_id=connection.conn_id) as hook:
        hook.send_email_smtp(to=to, subject=alert.subject, html_content=content)


def post(alert: Alert, connection: "Connection") -> None:
    """Send an alert to the webhook of a connection.

    An `http` one gets the alert as JSON, with the headers of its extra fields and with its login,
    if it has one.

    Raises:
        AlertError: it was not taken; names the connection and the status, not the address.
    """
    url = webhook(connection)
    if connection.conn_type == "slackwebhook":
        # As Slack wants &, < and >.
        request: dict[str, Any] = {"json": {"text": html.escape(alert.body, quote=False)}}
    else:
        request = {"json": asdict(alert), "headers": connection.extra_dejson.get("headers")}
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

    Slack's is the password, or what follows it on Slack's host (or the connection's); another one
    is the host.

    Raises:
        AlertError: the connection has another type, or no address.
    """
    address = connection.host or ""
    if connection.conn_type == "slackwebhook":
        secret = connection.password
        address = urljoin(f"{address.rstrip('/')}/" if address else SLACK, secret) if secret else ""
    elif connection.conn_type != "http":
        raise AlertError(
            f"Connection {connection.conn_id} has the type {connection.conn_type!r}; alerts go to "
            "slackwebhook, http and smtp."
        )
    if "://" not in address:
        raise AlertError(
            f"Connection {connection.conn_id} has no address: that of a Slack webhook belongs into "
            "its password, that of another one into its host, whole, as https://example.org/hook."
        )
    return address


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
