"""Pages: what Airflow's UI shows of a night.

In: a night's verdict; the reports folder. Out: a few lines of Markdown for the run, the address of
the night's page, and the file behind an address. The plugin in `dags/plugins` puts them there.
"""

from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from perank_tasks.settings import Settings
from perank_tasks.warehouse.sql_files import sql_folder

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

    query = (sql_folder() / "report" / "figures.sql").read_text()
    means: Figures = defaultdict(dict)
    with reading(settings.warehouse) as warehouse:
        night = {"run_date": run_date, "collection": collection}
        for arm_hash, measure, value in warehouse.execute(query, night).fetchall():
            means[arm_hash][measure] = value
    return dict(means)


def note(judged: "NightVerdict", means: Figures, address: str) -> str:
    """The verdict, a link to the report, and every arm's figures, verdict and its reason."""
    lines = [f"| arm | {' | '.join(MEASURES)} | |", "|---|---|---|---|"]
    for arm in judged["arms"]:
        values = means.get(arm["arm_hash"], {})
        cells = [f"{values[m]:.4f}" if m in values else "" for m in MEASURES]
        lines.append(f"| {arm['arm']} | {' | '.join(cells)} | {arm['verdict']} |")
    text = f"**{judged['text']}**\n\n[Report]({address})\n\n" + "\n".join(lines)
    for arm in judged["arms"]:
        line = f"\n\n{arm['arm']}: {arm['text']}"
        if len(text) + len(line) > LONGEST:
            break
        text += line
    return text[:LONGEST]


def report_path(collection: str, run_date: str) -> str:
    """The path of a night's page on the API server."""
    return f"{REPORTS_PREFIX}/{quote(collection, safe='')}/{run_date}.html"


def page(folder: Path, path: str) -> Path | None:
    """The file of a page below the reports folder; None where there is no such page.

    Links are followed first, so that none leads out; only HTML files are pages, and a folder's
    is its `index.html`.
    """
    try:
        root = folder.resolve()
        file = (root / path.lstrip("/")).resolve()
        if file.is_dir():
            file = (file / "index.html").resolve()
        inside = file.is_relative_to(root) and file.suffix == ".html"
        return file if inside and file.is_file() else None
    except (OSError, ValueError):  # too long a name, a null byte
        return None
