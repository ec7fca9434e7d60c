"""Page: an experiment for people, as one HTML file that needs nothing else, and as docs.

In: the published warehouse. Out: `experiments/<name>/<date>.html` in the reports folder; or, in a
folder of documentation, `<name>.md` and its images. An answer in plain language that somebody wrote
into the Markdown, between the marks, stays when the page is made again.
"""

import json
import re
import shlex
from dataclasses import replace
from datetime import date
from pathlib import Path

from perank_tasks.artifacts.store import Store
from perank_tasks.experiments.contents import (
    Contents,
    OnCollection,
    Variant,
    amount,
    computed_cells,
    findings,
    read_experiment,
    signed,
)
from perank_tasks.experiments.figures import figures_of, to_png, to_svg
from perank_tasks.experiments.options import Experiment, prepared
from perank_tasks.experiments.plan import ExperimentPlan
from perank_tasks.report.page import template
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing
from perank_tasks.support.markdown import markdown_table
from perank_tasks.warehouse.database import reading

_REMEDY = (
    "The experiment's tables are whole. Free space or make the folder writable, then write the "
    "page again: perank experiment NAME --page"
)
MEANS = ("MAP", "recall@100", "judged@10")
"""Measures in the docs' table beside the main one."""

ANSWER, END = "<!-- answer -->", "<!-- end of answer -->"


def write_page(plan: ExperimentPlan) -> str:
    """Write the page of an experiment that was loaded; returns its path below the reports."""
    settings = Settings.from_environment()
    path = write_html(settings, plan.experiment.filed_as, plan.run_date)
    return str(path.relative_to(settings.reports))


def write_html(settings: Settings, name: str, run_date: date | None = None) -> Path:
    """Write one run's page, the newest's unless a date is given; returns its path.

    Raises:
        WarehouseError: nothing has been loaded yet.
        ConfigError: there are no results of that name and date.
        StorageError: the folder cannot be written.
    """
    contents = _read(settings, name, run_date)
    path = settings.reports / "experiments" / name / f"{contents.run_date}.html"
    with replacing(path, _REMEDY) as temporary:
        temporary.write_text(render(contents), encoding="utf-8")
    return path


def _read(settings: Settings, name: str, run_date: date | None) -> Contents:
    with reading(settings.warehouse) as warehouse:
        contents = read_experiment(warehouse, name, run_date)
    computed = computed_cells(Store(settings.root), name, contents.run_date)
    return replace(contents, computed=computed)


def render(contents: Contents) -> str:
    """The page."""
    collections = [
        (
            on,
            findings(contents, on),
            [
                (caption, to_svg(draw, contents, on, f"{on.name} {figure}"))
                for figure, (caption, draw) in figures_of(contents, on).items()
            ],
        )
        for on in contents.collections
    ]
    return str(template("experiment.html").render(it=contents, collections=collections))


def write_docs(
    settings: Settings, name: str, folder: Path, run_date: date | None = None
) -> list[Path]:
    """Write one run as Markdown with images; returns the files' paths.

    Raises:
        WarehouseError, ConfigError, StorageError: as `write_html`.
    """
    contents = _read(settings, name, run_date)
    written = []
    for on in contents.collections:
        for figure, (caption, draw) in figures_of(contents, on).items():
            path = folder / _image(contents, on, figure)
            with replacing(path, _REMEDY) as temporary:
                # The name says what it is to be, not the temporary one's ending.
                target = temporary.with_suffix(".png")
                to_png(draw, contents, on, caption, target)
                target.replace(temporary)
            written.append(path)
    page = folder / f"{name}.md"
    text = as_markdown(contents, _answer_in(page))
    with replacing(page, _REMEDY) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return [page, *written]


def as_markdown(contents: Contents, answer: str = "") -> str:
    """The page for the docs.

    Args:
        answer: what somebody wrote in plain language.
    """
    about = contents.about
    lines = [
        f"# {contents.name}",
        "",
        f"> {contents.experiment.question}",
        "",
        f"Run of {contents.run_date}, {about['cells']} cells, "
        f"{about['missing_cells'] or 'none'} missing; fingerprint `{about['fingerprint']}`. "
        f"{contents.machine}. Made by `{command_of(contents.experiment)}`. "
        f"Checkpoint: {', '.join(contents.checkpoints) or 'none'}.",
        "",
        ANSWER,
        answer.strip("\n"),
        END,
        "",
    ]
    for on in contents.collections:
        lines += [
            f"## {on.name}",
            "",
            f"{on.passages:,} passages, {on.queries} judged queries.",
            "",
            *(f"- {sentence}" for sentence in findings(contents, on)),
            "",
            _table(contents, on),
            "",
            contents.when(on),
            "",
        ]
        for measure in contents.experiment.measures[1:]:
            lines += [f"{measure}, tested too:", "", _tests(on, measure), ""]
        if contents.lengths:
            lines += ["Passages of a length, ranked among themselves:", ""]
            lines += [_lengths(contents, on), ""]
        for figure, (caption, _) in figures_of(contents, on).items():
            lines += [f"![{caption}, {on.name}]({_image(contents, on, figure)})", ""]
    if contents.missing:
        lines += ["## Cells without results", ""]
        lines += [f"- {c['collection']}: {c['cell']}: {c['reason']}" for c in contents.missing]
        lines += [""]
    lines += [
        "Paired randomisation tests against the baseline, two-sided, Holm's correction over all "
        "tests of the experiment; intervals of differences: Student's t, 95%; d: mean difference "
        "over the differences' standard deviation. Seconds are of ranking alone, loading left out, "
        "and from when the cell was computed: between cells that were not computed in one sitting "
        "they also tell what else the machine did.",
        "",
    ]
    return "\n".join(lines)


def command_of(experiment: Experiment) -> str:
    """What to type to run it: of a prepared experiment with what was changed."""
    words = ["perank", "experiment", experiment.name]
    if experiment.name not in prepared():
        words[-1] = f"{experiment.name}.toml"
    else:
        own = Experiment.read(experiment.name)
        for name, value in experiment.base.items():
            if own.base.get(name) != value:
                text = value if isinstance(value, str) else json.dumps(value)
                words += ["--set", shlex.quote(f"{name}={text}")]
        if experiment.collections != own.collections:
            for spec in experiment.collections:
                # Where it lies is this machine's business.
                words += [
                    "--collection",
                    shlex.quote(re.sub(r"^files:[^?]*", "files:FOLDER", spec)),
                ]
    return " ".join([*words, *(["--smoke"] if experiment.is_smoke else [])])


def _table(contents: Contents, on: OnCollection) -> str:
    main = contents.main
    heading = (*_tested(main), *MEANS, *("s a query", "tokens a query", "FLOPs a query"))
    rows = []
    for v in on.variants:
        shown = ("seconds", "tokens", "flops", "malformed", "bits")
        costs = [amount(name, v.cost(name)) for name in shown]
        means = [f"{v.means[name]:.4f}" for name in MEANS]
        rows.append((*_test(v, main), *means, *costs))
    return markdown_table((*heading, "malformed", "bits a passage"), rows)


def _tests(on: OnCollection, measure: str) -> str:
    return markdown_table(_tested(measure), [_test(v, measure) for v in on.variants])


def _tested(measure: str) -> tuple[str, ...]:
    return ("variant", measure, "change [95%]", "d", "p, Holm", "better / worse")


def _test(v: Variant, measure: str) -> tuple[str, ...]:
    """A variant's mean and its test, below the headings of `_tested`."""
    test = v.tests.get(measure)
    if test is None:
        return (v.name, f"{v.means[measure]:.4f}", "baseline", "–", "–", "–")
    effect = test["effect_size"]
    return (
        v.name,
        f"{v.means[measure]:.4f}",
        f"{signed(test['delta'])} [{signed(test['ci_low'])}, {signed(test['ci_high'])}]",
        "–" if effect is None else f"{effect:.2f}".replace("-", "−"),
        "< .001" if test["p_holm"] < 0.001 else f"{test['p_holm']:.3f}",
        f"{test['better']} / {test['worse']}",
    )


def _lengths(contents: Contents, on: OnCollection) -> str:
    names = contents.lengths
    rows = []
    for v in on.variants:
        cells = []
        for name in names:
            test = v.tests.get(name)
            beside = f" ({signed(test['delta'])}, p {test['p_holm']:.2g})" if test else ""
            cells.append(f"{v.means[name]:.4f}{beside}" if name in v.means else "–")
        rows.append((v.name, *cells))
    return markdown_table(("variant", *(name.rpartition(" ")[2] for name in names)), rows)


def _image(contents: Contents, on: OnCollection, figure: str) -> str:
    return f"{contents.name}-{on.name}-{figure}.png"


def _answer_in(page: Path) -> str:
    """What somebody wrote between the marks of a page that is there."""
    if not page.is_file():
        return ""
    _, found, rest = page.read_text(encoding="utf-8").partition(ANSWER)
    return rest.partition(END)[0] if found else ""
