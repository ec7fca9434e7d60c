"""Page: results as one HTML file that needs nothing else, and the index over nights.

In: the published warehouse and the store of artifacts. Out: `<collection>/<date>.html` and
`index.html` in the reports folder, each replaced in one step. A page has no script and names no
other host; every text of a collection is escaped. The same tables give the same bytes.
"""

import fcntl
import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from perank_tasks.artifacts.store import Store
from perank_tasks.regression.ladder import MEANINGS, Verdict
from perank_tasks.regression.measures import MEASURES
from perank_tasks.report import plots
from perank_tasks.report.contents import TREND_NIGHTS, Arm, PageContents, read_page, read_summary
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing, storage_errors
from perank_tasks.support.text import shortened
from perank_tasks.warehouse.answers import QUESTIONS
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.night_verdict import MAIN, band_name, short_p
from perank_tasks.warehouse.sql_files import TableRow, ask, grouped

TEMPLATES = Path(__file__).parent / "templates"
_REMEDY = (
    "The night's tables are whole. Free space or make the folder writable (PERANK_REPORTS says "
    "where pages go), then write the page again: perank report --html"
)


def write_pages(
    settings: Settings, run_date: date | None = None, collection: str | None = None
) -> Path:
    """Write a night's page, the pages there are of later nights, and the index.

    Verdicts of later nights may have changed with this one, and their trends show it.

    Args:
        run_date: None: the night evaluated last, of the collection if that is given.

    Returns:
        The path of the night's page.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: there are no results of that night.
        StorageError: the folder cannot be written.
    """
    with _writing(settings) as warehouse:
        first = read_summary(warehouse, run_date, collection)[0]
        path = _write_night(settings, warehouse, first)
        _write_again(settings, warehouse, first["collection"], after=first["run_date"])
    return path


def write_pages_after(settings: Settings, collection: str, day: date) -> int:
    """Write again the pages there are of nights after a date, and the index.

    For what changes their verdicts, but not the night of that date.

    Returns:
        How many nights' pages there were.

    Raises:
        StorageError: the folder cannot be written.
    """
    with _writing(settings) as warehouse:
        return _write_again(settings, warehouse, collection, after=day)


def write_all_pages(settings: Settings, collection: str | None = None) -> Iterator[Path]:
    """Write the page of every night, of one collection or of all, then the index; yields paths.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: there are no results of that collection.
        StorageError: the folder cannot be written.
    """
    with _writing(settings) as warehouse:
        read_summary(warehouse, None, collection)
        for night in reversed(ask(warehouse, "report/nights")):
            if collection in (None, night["collection"]):
                yield _write_night(settings, warehouse, night)
    yield settings.reports / "index.html"


def render(
    contents: PageContents, figures: Iterable[tuple[str, Markup]] = (), index: str = "../index.html"
) -> str:
    """The page of a night, or of another series' results: without a verdict and a past.

    Args:
        figures: more of them, with captions.
        index: where the index over nights is, seen from the page.
    """
    arms = contents.arms
    place = {str(word): -i for i, word in enumerate(Verdict)}
    by_word = sorted(arms, key=lambda arm: (place.get(arm.word or "", 0), not arm.against))
    rows = [arm.comparisons.get(MAIN, {}) for arm in arms]
    nights = [row["nights"] for row in rows if row.get("band_low") is not None]
    shared = set.intersection(*(set(arm.facts.items()) for arm in arms))
    means = [mean for arm in arms if (mean := _mean(arm))]
    changes = [change for arm in arms if (change := _change(arm))]
    costs = [
        (1 / speed, mean)
        for arm in arms
        if (speed := arm.cost.get("queries_per_second")) and (mean := _mean(arm))
    ]
    return template("results.html").render(
        page=contents,
        main=MAIN,
        measures=[m for m in MEASURES if any(m in arm.intervals for arm in arms)],
        sections=[_section(arm, shared) for arm in by_word],
        means=plots.plot_intervals(means, MAIN, "means") if means else None,
        changes=plots.plot_intervals(changes, f"change of {MAIN}", "changes") if changes else None,
        band=band_name(min(nights)) if nights else None,
        costs=plots.plot_costs(costs, MAIN, "costs") if costs else None,
        facts=sorted(shared),
        figures=list(figures),
        index=index,
        questions=QUESTIONS,
    )


def render_index(connection: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """The index: every night of the warehouse, with a link where its page has been written."""
    nights = ask(connection, "report/nights")
    for night in nights:
        page = settings.page(night["collection"], night["run_date"])
        link = quote(page.relative_to(settings.reports).as_posix())
        night["link"] = link if page.exists() else None
    collections = grouped(nights, "collection")
    newest = {"measure": MAIN, "nights": TREND_NIGHTS}
    figures = {
        name: plots.plot_arms(series, f"arms {name}")
        for name in collections
        if (series := ask(connection, "report/arms_by_date", collection=name, **newest))
    }
    return template("index.html").render(collections=collections, figures=figures, main=MAIN)


def _write_night(settings: Settings, warehouse: duckdb.DuckDBPyConnection, night: TableRow) -> Path:
    """Write a night's page.

    Args:
        night: a row of any table, of which the date and the collection are read.
    """
    key = night["run_date"], night["collection"]
    path = settings.page(night["collection"], night["run_date"])
    _write(path, render(read_page(warehouse, Store(settings.root), *key)))
    return path


def _write_again(
    settings: Settings, warehouse: duckdb.DuckDBPyConnection, collection: str, *, after: date
) -> int:
    """Write every page there is of a later night; returns how many there are."""
    nights = [
        night
        for night in ask(warehouse, "report/nights")
        if night["collection"] == collection and night["run_date"] > after
        if settings.page(collection, night["run_date"]).exists()
    ]
    for night in nights:
        _write_night(settings, warehouse, night)
    return len(nights)


def _section(arm: Arm, shared: set[tuple[str, str]]) -> dict[str, Any]:
    """What a page shows of one arm alone: where there are two nights at least, its trends by
    measure; and the facts that not every arm has."""
    salt, changed = arm.run.arm_hash, [delta for delta in arm.deltas if delta]
    return {
        "arm": arm,
        "gains": plots.plot_gains(changed, f"change of {MAIN}", f"gains {salt}")
        if changed
        else None,
        "trends": [
            (measure, points, plots.plot_trend(points, arm.look, f"trend {salt} {measure}"))
            for measure, points in arm.trends.items()
            if len(points) > 1
        ],
        "facts": sorted(set(arm.facts.items()) - shared),
    }


def _mean(arm: Arm) -> plots.Interval | None:
    if MAIN not in arm.means:
        return None
    return plots.Interval(arm.label, arm.look, arm.means[MAIN], **asdict(arm.intervals[MAIN]))


def _change(arm: Arm) -> plots.Interval | None:
    row = arm.comparisons.get(MAIN)
    if not row or row["delta"] is None:
        return None
    low, high = row.get("band_low"), row.get("band_high")
    band = None if low is None or high is None else (low, high)
    return plots.Interval(arm.label, arm.look, row["delta"], row["ci_low"], row["ci_high"], band)


@functools.cache
def template(name: str) -> Any:
    """A page's template, with the filters that all of them use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = MEANINGS
    environment.globals["signs"] = {word: sign for word, (sign, _, _) in plots.WORDS.items()}
    environment.globals["tones"] = {word: tone for word, (_, _, tone) in plots.WORDS.items()}
    environment.filters |= {"number": _number, "signed": _signed, "p": short_p}
    environment.filters["shortened"] = shortened
    return environment.get_template(name)


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)


def _signed(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.4f}".replace("-", "−") if value else "0"


@contextmanager
def _writing(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Be the only one who writes pages, so that what is written last was read last; the index is
    written after the pages."""
    with storage_errors(settings.reports, _REMEDY):
        settings.reports.mkdir(parents=True, exist_ok=True)
        lock = (settings.reports / ".lock").open("w", encoding="utf-8")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with reading(settings.warehouse) as warehouse:
            yield warehouse
            _write(settings.reports / "index.html", render_index(warehouse, settings))


def _write(path: Path, text: str) -> None:
    with replacing(path, _REMEDY) as temporary:
        temporary.write_text(text, encoding="utf-8")
