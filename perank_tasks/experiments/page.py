"""Page: an experiment for people, in HTML as the nights are, and as Markdown for documentation.

In: the published warehouse. Out: `experiments/<series>/<date>-<collection>.html` in the reports
folder, each a page of results with the question and its answer; or, in a folder of documentation,
`<series>.md` and its images. An answer that somebody wrote into the Markdown, between the marks,
stays when the file is written again.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

from perank_tasks.artifacts.store import Store
from perank_tasks.experiments.answer import amount, findings, read_answer
from perank_tasks.experiments.figures import figures_of, fronts_of, write_svg
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.night.site import Site
from perank_tasks.report.contents import read_page
from perank_tasks.report.page import render, template
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing
from perank_tasks.warehouse.database import reading

_REMEDY = (
    "The experiment's tables are whole. Free space or make the folder writable, then write the "
    "page again: perank experiment NAME --page"
)

START, END = "<!-- answer -->", "<!-- end of answer -->"
"""Around what somebody wrote in plain language."""


def write_page(plan: ExperimentPlan, site: Site) -> list[str]:
    """Write the pages of an experiment that was loaded; returns their paths below the reports."""
    paths = write_html(site.settings, plan.series, plan.run_date)
    return [str(path.relative_to(site.settings.reports)) for path in paths]


def write_html(settings: Settings, series: str, run_date: date | None = None) -> list[Path]:
    """Write one run's page for each collection, the newest run's unless a date is given.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: there are no results of that name and date.
        StorageError: the folder cannot be written.
    """
    paths = []
    with reading(settings.warehouse) as warehouse:
        answer = read_answer(warehouse, series, run_date)
        for on in answer.collections:
            contents = replace(
                read_page(warehouse, Store(settings.root), answer.run_date, on.name, series),
                question=answer.experiment.question,
                answer=findings(answer, on),
            )
            path = settings.reports / "experiments" / series / f"{answer.run_date}-{on.name}.html"
            html = render(contents, fronts_of(answer, on).values(), index="../../index.html")
            with replacing(path, _REMEDY) as temporary:
                temporary.write_text(html, encoding="utf-8")
            paths.append(path)
    return paths


def write_docs(
    settings: Settings, series: str, folder: Path, run_date: date | None = None
) -> Iterator[Path]:
    """Write one run as Markdown with images; yields the files' paths.

    Raises:
        WarehouseError, ConfigError, StorageError: as `write_html`.
    """
    with reading(settings.warehouse) as warehouse:
        answer = read_answer(warehouse, series, run_date)
    images = {}
    for on in answer.collections:
        for name, (caption, figure) in figures_of(answer, on).items():
            path = folder / f"{series}-{on.name}-{name}.svg"
            with replacing(path, _REMEDY) as temporary:
                write_svg(figure, temporary)
            images[on.name, name] = (caption, path.name)
            yield path
    page = folder / f"{series}.md"
    written = ""
    if page.is_file() and START in (before := page.read_text(encoding="utf-8")):
        written = before.partition(START)[2].partition(END)[0].strip("\n")
    sentences = {on.name: findings(answer, on) for on in answer.collections}
    text = template("experiment.md").render(
        answer=answer, written=written, sentences=sentences, images=images, amount=amount
    )
    with replacing(page, _REMEDY) as temporary:
        temporary.write_text(text, encoding="utf-8")
    yield page
