"""Asking a service over HTTP: in, a JSON object; out, the JSON that it answers.

A request is retried where the service is not there, too busy or broken: no connection, no answer
in time, status 429 or 5xx. Waits double from half a second, with jitter, or are as long as a
`Retry-After` says, a minute at most. Whatever else it answers would only come back.
"""

import json
import logging
import time
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they log every request

LONGEST_WAIT_S = 60.0
LARGEST_ANSWER = 64 * 2**20
"""Bytes: scores of a thousand texts are a hundredth of it."""


class OutageError(Exception):
    """The service was not there, or refused; its words are fit for a table."""


class MalformedError(Exception):
    """The service answered something else than what was asked for."""


class _BusyError(OutageError):
    """Worth another try."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


class Client:
    """One service. Threads may share it."""

    def __init__(self, url: str, key: str | None, timeout_s: float, retries: int):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url
        self.timeout_s = timeout_s
        self._key = key
        self._client = httpx.Client(headers=headers, timeout=timeout_s)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_BusyError),
            stop=stop_after_attempt(retries + 1),
            wait=_wait_s,
            reraise=True,
        )

    def post(self, request: dict[str, Any]) -> Any:
        """The answer to a request, as JSON.

        Raises:
            OutageError: the service was not there, or refused.
            MalformedError: the answer is no JSON.
        """
        return self._retrying(self._ask, request)

    def malformed(self, what: str) -> MalformedError:
        """The error for an answer that holds something else than was asked for."""
        return MalformedError(f"{self.url} answered {self._without_key(what)}")

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
                    if len(body) > LARGEST_ANSWER:
                        raise self.malformed(f"more than {LARGEST_ANSWER:,} bytes")
        except httpx.TimeoutException:
            raise _BusyError(f"{self.url} gave no answer in {self.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = self._without_key(str(error) or type(error).__name__)
            raise _BusyError(f"{self.url} cannot be reached: {why}") from None
        text = self._without_key(body[:10_000].decode("utf-8", "replace"))[:200]
        status = answer.status_code
        if status == 429 or status >= 500:
            wait_s = answer.headers.get("Retry-After", "")
            raise _BusyError(
                f"{self.url} answered status {status}: {text!r}",
                float(wait_s) if wait_s.isdecimal() else 0.0,
            )
        if not answer.is_success:
            raise OutageError(f"{self.url} refused with status {status}: {text!r}")
        try:
            return json.loads(body)
        except ValueError:
            raise self.malformed(f"no JSON: {text!r}") from None

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


_DOUBLING = wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT_S, jitter=0.5)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, _BusyError) else 0.0
    return min(max(_DOUBLING(state), asked), LONGEST_WAIT_S)
