"""Pages: what Airflow's UI shows of a night.

In: a night and its verdict. Out: a few lines of Markdown for the run, and the address of the
night's page. The plugin in `dags/plugins` writes the one and serves the other.
"""

from collections import defaultdict
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

MEASURES = ("nDCG@10", "MRR@10")

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
    lines = [f"| arm | {' | '.join(MEASURES)} | |", "|---|---|---|---|"]
    for arm in judged["arms"]:
        values = means.get(arm["arm_hash"], {})
        cells = [f"{values[m]:.4f}" if m in values else "" for m in MEASURES]
        lines.append(f"| {arm['arm']} | {' | '.join(cells)} | {arm['verdict']} |")
    reasons = [f"{arm['arm']}: {arm['text']}" for arm in judged["arms"]]
    text = "\n\n".join(
        [f"**{judged['text']}**", f"[Report]({address})", "\n".join(lines), *reasons]
    )
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def report_address(night: Night) -> str:
    """The address of a night's page on Airflow's API server."""
    from airflow.sdk.configuration import conf

    base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
    collection = quote(night.collection_name, safe="")
    return f"{base}{REPORTS_PREFIX}/{collection}/{night.run_date}.html"
