"""Page: an experiment for people, in HTML as the nights are.

In: the published warehouse. Out: `experiments/<series>/<date>-<collection>.html` in the reports
folder, each a page of results with the question and its answer.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path

from perank_tasks.artifacts.store import Store
from perank_tasks.experiments.answer import findings, read_answers
from perank_tasks.experiments.figures import fronts_of
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.night.site import Site
from perank_tasks.report.contents import read_page
from perank_tasks.report.page import render
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing
from perank_tasks.warehouse.database import reading

_REMEDY = (
    "The experiment's tables are whole. Free space or make the folder writable, then write the "
    "page again: perank experiment NAME --page"
)


def write_page(plan: ExperimentPlan, site: Site) -> list[str]:
    """Write the pages of an experiment that was loaded; returns their paths below the reports."""
    paths = write_html(site.settings, plan.series, plan.run_date)
    return [str(path.relative_to(site.settings.reports)) for path in paths]


def write_html(
    settings: Settings, series: str, run_date: date | None = None, folder: Path | None = None
) -> list[Path]:
    """Write one run's page for each collection, the newest run's unless a date is given.

    Args:
        folder: where else than in the reports.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: there are no results of that name and date.
        StorageError: the folder cannot be written.
    """
    paths = []
    with reading(settings.warehouse) as warehouse:
        for answer in read_answers(warehouse, series, run_date):
            key = (answer.run_date, answer.collection, series)
            contents = replace(
                read_page(warehouse, Store(settings.root), *key),
                question=answer.experiment.question,
                answer=findings(answer),
            )
            name = f"{answer.run_date}-{answer.collection}.html"
            path = (folder or settings.reports / "experiments") / series / name
            html = render(contents, fronts_of(answer), index="../../index.html")
            with replacing(path, _REMEDY) as temporary:
                temporary.write_text(html, encoding="utf-8")
            paths.append(path)
    return paths
