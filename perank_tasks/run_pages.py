"""Pages: what Airflow's UI shows of a night.

In: a night's verdict; the reports folder. Out: a few lines of Markdown for the run, the address of
the night's page, and the file behind an address. The plugin in `dags/plugins` puts them there.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:  # DAG files import this one, and are parsed again and again
    from perank_tasks.stages.verdict import NightVerdict

REPORTS_PREFIX = "/perank"
"""Where the plugin serves the nights' pages."""

LONGEST = 1000
"""Characters that Airflow keeps of a note."""

MEASURE = "nDCG@10"


def note(found: "NightVerdict", address: str) -> str:
    """The word, the figures of every arm, what their words rest on, and a link to the report."""
    head = f"**{found['text']}**\n\n[Report]({address})\n\n"
    figures = [f"| arm | {MEASURE} | |", "|---|---|---|"]
    for arm in found["arms"]:
        value = arm["values"].get(MEASURE)
        figures.append(
            f"| {arm['arm']} | {'' if value is None else f'{value:.4f}'} | {arm['verdict']} |"
        )
    text = head + "\n".join(figures)
    for arm in found["arms"]:
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
