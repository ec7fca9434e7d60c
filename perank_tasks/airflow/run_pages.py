"""Pages: what Airflow's UI shows of a night.

In: a night and its verdict. Out: a few lines of Markdown for the run, and the address of the
night's page. The plugin in `dags/plugins` writes the one and serves the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import quote

from perank_tasks.config import Night
from perank_tasks.settings import Settings

if TYPE_CHECKING:  # DAG files import this one, and are parsed again and again
    from perank_tasks.warehouse.night_verdict import NightVerdict

REPORTS_PREFIX = "/perank"
"""Where the plugin serves the nights' pages."""

LONGEST = 1000
"""Characters that Airflow keeps of a note."""

NOTE = "note"
"""The XCom that the plugin writes on the run: of the task that judged, and of those that failed."""

FAILED = "failed"
"""What an alert calls a night that ended without a verdict."""

OUT_OF_TIME = "timed_out"
"""Airflow's word for a run that its time limit ended."""

SHOWN = ("nDCG@10", "MRR@10")

Task = tuple[str, int]
"""Id and map index."""

Figures = dict[str, dict[str, float]]
"""{arm hash: {measure: mean}}"""


def figures(settings: Settings, run_date: date, collection: str) -> Figures:
    """The means of a loaded night."""
    from perank_tasks.warehouse.database import reading
    from perank_tasks.warehouse.sql_files import ask

    means: Figures = defaultdict(dict)
    with reading(settings.warehouse) as warehouse:
        for row in ask(warehouse, "report/figures", run_date=run_date, collection=collection):
            means[row["arm_hash"]][row["measure"]] = row["value"]
    return dict(means)


def note(judged: "NightVerdict", means: Figures, address: str) -> str:
    """The verdict, a link to the report, and every arm's figures, verdict and its reason."""
    lines = [f"| arm | {' | '.join(SHOWN)} | |", "|---|---|---|---|"]
    for arm in judged["arms"]:
        values = means.get(arm["arm_hash"], {})
        cells = [f"{values[m]:.4f}" if m in values else "" for m in SHOWN]
        lines.append(f"| {arm['arm']} | {' | '.join(cells)} | {arm['verdict']} |")
    reasons = [f"{arm['arm']}: {arm['text']}" for arm in judged["arms"]]
    return "\n\n".join(
        [f"**{judged['text']}**", f"[Report]({address})", "\n".join(lines), *reasons]
    )


def failure(task_id: str, why: object) -> str:
    """A failed task and its reason, as a run's note begins."""
    return f"**{task_id} failed**: {why}"


def note_of(notes: Mapping[Task, str], failed: Iterable[Task], msg: str) -> str:
    """The note of a run that ended: which tasks failed and why, and its verdict if it has one.

    Args:
        notes: what tasks left for it, by task.
        failed: the failed tasks.
        msg: Airflow's word for why the run ended.
    """
    unsaid = "its process died; see its log"
    lines = [notes.get(task) or failure(task[0], unsaid) for task in failed]
    # Of a verdict and the one after an acceptance, the later.
    lines += [text for task, text in notes.items() if task not in failed][-1:]
    if not lines:
        why = "it ran out of time" if msg == OUT_OF_TIME else "somebody ended it"
        lines = [f"**ended before its verdict**: {why}. Run again, it resumes."]
    text = "\n\n".join(dict.fromkeys(lines))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def page_path(night: Night) -> str:
    """A night's page below the plugin's prefix."""
    return f"{quote(night.collection_name, safe='')}/{night.run_date}.html"


def report_address(night: Night) -> str:
    """The address of a night's page on Airflow's API server."""
    from airflow.sdk.configuration import conf

    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    return f"{base}{REPORTS_PREFIX}/{page_path(night)}"
