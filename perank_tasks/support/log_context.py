"""What a log line is about: the night or the training, the stage and the shard that wrote it.

In: the night or training, a stage's name, the inputs of its task. Out: `fields`, which the Airflow
adapter binds to every line that a task writes, beside Airflow's own run and task; `stage_context`,
which does the same for a night in one process; and `ContextFormatter`, which begins a line with
them.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date
from typing import Any, Protocol

_current: ContextVar[Mapping[str, str] | None] = ContextVar("perank_log_context", default=None)


class Planned(Protocol):
    """A planned night or training."""

    @property
    def run_date(self) -> date:
        """As of which it is made."""

    @property
    def subject(self) -> dict[str, str]:
        """What it is about: `collection`, or the name of the `training`."""


def fields(planned: Planned, stage: str, inputs: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The context of a task, by name: `run_date`, `collection` or `training`, `stage` and, of a
    split one, `shard`.

    Args:
        stage: the module of the stage.
        inputs: what the stage's function is given; `work` or `shard` says which part it does.
    """
    context = {"run_date": planned.run_date.isoformat(), **planned.subject, "stage": stage}
    inputs = inputs or {}
    work = inputs.get("work", inputs.get("shard"))
    if isinstance(work, Mapping):
        # An embedder may be a long path; its range of rows says no more than the shard's number.
        parts = (str(part) for part in work.values() if isinstance(part, str | int))
        context["shard"] = "/".join(part.rpartition("/")[2] for part in parts)
    elif work is not None:
        context["shard"] = str(work)
    return context


@contextmanager
def stage_context(
    planned: Planned, stage: str, inputs: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Begin every log line of the block with what it is about; `fields` says how it is named."""
    token = _current.set(fields(planned, stage, inputs))
    try:
        yield
    finally:
        _current.reset(token)


class ContextFormatter(logging.Formatter):
    """Lines as `2026-01-31 pydocs rerank 8c1f…/3: message`, and just the message elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        context = _current.get()
        text = super().format(record)
        return f"{' '.join(context.values())}: {text}" if context else text
