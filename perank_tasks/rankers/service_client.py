"""Asking a service over HTTP: in, a JSON object; out, the JSON that it answers.

A request is retried where the service is not there, too busy or broken: no connection, no answer
in time, status 429 or 5xx. Waits double from half a second, with jitter, to half a minute.
Whatever else it answers would only come back.
"""

import json
import logging
import time
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from perank_tasks.errors import MalformedError, RankerError

for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they log every request


class _BusyError(RankerError):
    """Worth another try."""


class Client:
    """One service. Threads may share it. What it says in errors is fit for a table."""

    def __init__(self, url: str, key: str | None, timeout_s: float, retries: int):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url
        self.timeout_s = timeout_s
        self._key = key
        self._client = httpx.Client(headers=headers, timeout=timeout_s)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_BusyError),
            stop=stop_after_attempt(retries + 1),
            wait=wait_exponential_jitter(multiplier=0.5, max=30, jitter=0.5),
            reraise=True,
        )

    def post(self, request: dict[str, Any]) -> Any:
        """The answer to a request, as JSON.

        Raises:
            RankerError: the service was not there, or refused.
            MalformedError: the answer is no JSON.
        """
        return self._retrying(self._ask, request)

    def _ask(self, request: dict[str, Any]) -> Any:
        deadline = time.monotonic() + self.timeout_s
        body = b""
        try:
            with self._client.stream("POST", self.url, json=request) as answer:
                for chunk in answer.iter_bytes():
                    body += chunk
                    # httpx's own timeout begins anew with every byte.
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("")
        except httpx.TimeoutException:
            raise _BusyError(f"{self.url} gave no answer in {self.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise _BusyError(self.words(f"cannot be reached: {error!r}")) from None
        status = answer.status_code
        text = body.decode("utf-8", "replace")
        if not answer.is_success:
            is_busy = status == 429 or status >= 500
            error_class = _BusyError if is_busy else RankerError
            raise error_class(self.words(f"answered status {status}: {text}"))
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise MalformedError(self.words(f"answered no JSON: {text}")) from None

    def words(self, what: str) -> str:
        """A sentence about the service, without the key that it may have sent back."""
        return f"{self.url} {what.replace(self._key, '…') if self._key else what}"[:300]
