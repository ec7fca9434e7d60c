"""The calls of Airflow's REST API that running a DAG takes.

In: the port of an API server on loopback. Out: its answers, as JSON. All users are admins there,
so no call needs a token.
"""

from typing import Any

import httpx

from perank_tasks.errors import PerankError

ALL = {"limit": 100_000}
"""Parameters of a call for a list: all entries on one page, as `home.environment` allows."""


class Api:
    """Airflow's REST API at one port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=f"{self.url}/api/v2", timeout=30, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded answer; None where there is no such thing (404).

        Raises:
            PerankError: no answer, or Airflow refuses what was asked.
        """
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise PerankError(f"Airflow at {self.url} does not answer ({error!r}).") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            raise PerankError(
                f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}"
            )
        return answer.json() if answer.content else None

    def healthy(self) -> bool:
        """Whether API server, scheduler and DAG processor are all up."""
        try:
            health = self.call("GET", "/monitor/health")
            parts = ("metadatabase", "scheduler", "dag_processor")
            return all(health[part]["status"] == "healthy" for part in parts)
        except (PerankError, ValueError, KeyError, TypeError):
            return False
