"""Alerts: tell people of a night that needs them, once.

In: a night's word and what it rests on. Out: a message to the log, a Slack or any other
webhook, or by e-mail; and for each one delivered the artifact `alerts/<collection>/<key>`, a
manifest without parts, so that a night that is run again does not tell the same again.

Notes: a message counts as sent once its receiver has taken it, so one that failed is tried
again with the next run of that night, and one whose sender was killed in between may come twice.
An address may itself be a secret, as a Slack webhook's is: it is in no log and in no error.
"""

import html
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol

import httpx

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.errors import AlertError
from perank_tasks.regression.ladder import Verdict

log = logging.getLogger(__name__)

# They log addresses.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

KIND = "alerts"
LOG = "log"
"""The receiver that needs no connection."""

TOLD = (Verdict.SUSPECT, Verdict.INCOMPLETE, Verdict.REGRESSION)
"""Words that somebody is told of. `suspect` is one: the docs' simulation has it on 7 of 2,000
unchanged nights, too few to be noise and early enough to look before it is a regression."""

SLACK = "https://hooks.slack.com/services"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Alert:
    """One message about one night."""

    run_date: date
    collection: str
    verdict: str
    text: str
    """One line: what the word rests on."""
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
        return "\n".join([self.subject, self.text, *self.arms, *([self.link] if self.link else [])])

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
        address = html.escape(self.link or "", quote=True)
        link = f'<p><a href="{address}">Report</a></p>' if self.link else ""
        return f"<p><b>{html.escape(self.text)}</b></p><ul>{arms}</ul>{link}"


class Connection(Protocol):
    """What is asked of a connection, as Airflow keeps them."""

    conn_id: str
    conn_type: Any
    host: Any
    schema: Any
    port: Any
    login: Any
    password: Any

    @property
    def extra_dejson(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Webhook:
    """Where and how to post; `kind` is slack or http."""

    name: str
    kind: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    login: tuple[str, str] | None = field(default=None, repr=False)


def webhook(connection: Connection) -> Webhook:
    """The webhook that a connection of type `slackwebhook` or `http` describes.

    Slack's address is the host (its own by default) and the password, as Airflow's Slack
    connections have it, or a password that is the whole address. Another one is schema, host,
    port and, in the extra fields, `endpoint` and `headers`; with login and password, if given.

    Raises:
        AlertError: it has another type, or no address.
    """
    extra = connection.extra_dejson
    if connection.conn_type in ("slackwebhook", "slack"):
        secret = connection.password or ""
        if not secret:
            raise AlertError(
                f"Connection {connection.conn_id} has no password: Slack's webhook address, or "
                "its last three parts, belongs there."
            )
        address = secret if "://" in secret else _join(_base(connection) or SLACK, secret)
        return Webhook(connection.conn_id, "slack", address)
    if connection.conn_type != "http":
        raise AlertError(
            f"Connection {connection.conn_id} has the type {connection.conn_type!r}; alerts go to "
            "slackwebhook, http and smtp."
        )
    base = _base(connection)
    if not base:
        raise AlertError(f"Connection {connection.conn_id} has no host to send alerts to.")
    login = (connection.login, connection.password or "") if connection.login else None
    endpoint = extra.get("endpoint", "")
    address = _join(base, endpoint) if endpoint else base
    return Webhook(connection.conn_id, "http", address, extra.get("headers", {}), login)


def post(alert: Alert, to: Webhook) -> None:
    """Send an alert to a webhook.

    Raises:
        AlertError: it was not taken; names the connection and the status, not the address.
    """
    text = html.escape(alert.body, quote=False)  # as Slack wants &, < and >
    message = {"text": text} if to.kind == "slack" else alert.to_json()
    try:
        answer = httpx.post(
            to.url,
            json=message,
            headers=dict(to.headers),
            auth=to.login,
            timeout=TIMEOUT_S,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _undelivered(to.name, type(error).__name__) from None
    if not answer.is_success:
        raise _undelivered(to.name, f"HTTP status {answer.status_code}")


def deliver(
    store: Store, alert: Alert, receivers: Mapping[str, Callable[[Alert], None]]
) -> list[str]:
    """Send an alert to every receiver that has not had it; returns whom it was sent to.

    Args:
        receivers: {name: how to send it there}.

    Raises:
        AlertError: some did not take it, after all others got theirs.
    """
    told, failed = [], []
    for name, send in receivers.items():
        record = _record(store, alert, name)
        if record.is_published:
            log.info("%s has been told of this already: %s", name, alert.subject)
            continue
        try:
            send(alert)
        except AlertError as error:
            failed.append(str(error))
            continue
        except Exception as error:
            # Another library's words may hold an address or a password.
            failed.append(str(_undelivered(name, type(error).__name__)))
            continue
        sent_at = datetime.now(UTC).isoformat(timespec="seconds")
        config = {**alert.to_json(), "receiver": name, "sent_at": sent_at}
        record.publish(expected={}, inputs={}, config=config, counts={}, provenance={})
        told.append(name)
    if failed:
        raise AlertError("\n".join(failed))
    return told


def to_log(alert: Alert) -> None:
    """Write an alert into the log."""
    log.warning("%s", alert.body)


def _record(store: Store, alert: Alert, receiver: str) -> Artifact:
    key = artifact_key(
        date=alert.run_date, collection=alert.collection, verdict=alert.verdict, receiver=receiver
    )
    # A night that failed before its collection had a name goes by its spec.
    folder = re.sub(r"[^\w.-]+", "-", alert.collection).strip("-.") or "unnamed"
    return store.artifact(KIND, folder, key)


def _base(connection: Connection) -> str:
    host = connection.host or ""
    if not host or "://" in host:
        return host
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{host}{port}"


def _join(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path.lstrip('/')}"


def _undelivered(name: str, why: str) -> AlertError:
    return AlertError(
        f"The alert was not taken by {name} ({why}). Look at that connection in Airflow; running "
        "the night again sends it again."
    )
