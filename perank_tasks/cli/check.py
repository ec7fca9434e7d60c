"""`perank check`: two runs side by side, the verdict on the second, and an exit status.

In: two TREC run files with a qrels file, or two names of results. Out: a verdict, a table of
measures with intervals and tests, what was different, and the queries that lost and gained most; as
text, Markdown or JSON.
"""

import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from perank_tasks.cli import open_site
from perank_tasks.cli.command import Format, Guarded, printer
from perank_tasks.cli.gate import FailOnOption, guarded
from perank_tasks.cli.options import takes_options
from perank_tasks.config import Options
from perank_tasks.errors import ConfigError
from perank_tasks.regression.thresholds import DEFAULT, Thresholds

if TYPE_CHECKING:
    from perank_tasks.warehouse.comparison import Comparison


class ThresholdOptions(Options):
    """What decides the word on two runs; `regression.thresholds` has the reasons."""

    alpha: float = Field(DEFAULT.alpha, gt=0, lt=1)
    """Below which corrected p a change is significant."""
    relevance: float = Field(DEFAULT.relevance, ge=0)
    """Least significant change that is a regression."""
    band_floor: float = Field(DEFAULT.band_floor, ge=0)
    """Change of a mean from which a run is suspect."""
    coverage: float = Field(DEFAULT.coverage, ge=0, le=1)
    """Least share of RUN_A's judged queries that RUN_B has to rank."""


ThresholdsFile = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with alpha, relevance, band_floor and coverage, or some of them.",
        rich_help_panel="Thresholds",
    ),
]
OnOption = Annotated[
    Literal["either", "both", "judged"],
    typer.Option(
        help="Measure judged queries that either run ranks, that both rank, or all. One that a "
        "file does not rank counts 0."
    ),
]


@takes_options(ThresholdOptions, panel="Thresholds")
def check(
    options: ThresholdOptions,
    run_a: Annotated[
        str, typer.Argument(help="A TREC run file, or DATE[/arm[/collection]], or SERIES/arm.")
    ],
    run_b: Annotated[str, typer.Argument(help="The same: what is judged by it.")],
    qrels: Annotated[
        Path | None,
        typer.Option(help="Judgements to measure both by; without, those of RUN_B's night."),
    ] = None,
    relevance_level: Annotated[
        int, typer.Option(min=1, help="Least relevant grade of binary measures; 2 for TREC DL.")
    ] = 1,
    on: OnOption = "either",
    collection: Annotated[
        str | None, typer.Option(help="Of which collection, where a date has results of several.")
    ] = None,
    fail_on: FailOnOption = "regression",
    thresholds: ThresholdsFile = None,
    measure: Annotated[str, typer.Option(help="The measure shown by query.")] = "nDCG@10",
    queries: Annotated[int, typer.Option(min=0, help="How many queries of either end.")] = 10,
    format: Annotated[Format, typer.Option(help="How to print.")] = "text",
) -> Guarded:
    """Judge RUN_B by RUN_A: verdict, means, tests, and every query's gain or loss.

    Leaves with 0 where it is fine, with 1 where it is as bad as --fail-on says, with 2 where it
    could not be judged.

    Runs are TREC files with --qrels, and need no warehouse; or results of the warehouse:
    2026-01-30 and 2026-01-31 or 2026-01-31/bm25 and 2026-01-31/perank of nights, "window/window
    20" and "window/window 100" of an experiment (window@2026-01-31/… of its run of that date).
    """
    from perank_tasks.regression.ladder import worst

    limits = _thresholds(options, thresholds)
    sides = (run_a, run_b, qrels, relevance_level, collection)
    comparisons, alone = _compare(*sides, measure=measure, on=on, thresholds=limits)
    results = [_result(comparison, queries) for comparison in comparisons]
    for result in results:
        _print(result, measure)
    words = [(result["b"], result["verdict"]) for result in results]
    words += [(f"{name}, which {run_b} has no results of", "incomplete") for name in alone]
    found = {
        "verdict": worst([word for _, word in words]),
        "thresholds": {name: getattr(limits, name) for name in ThresholdOptions.model_fields},
        "comparisons": results,
    }
    return guarded(found, words, fail_on)


def _thresholds(options: ThresholdOptions, file: Path | None) -> Thresholds:
    """The options given, before the file's, before the defaults."""
    values = options.model_dump(exclude_unset=True)
    if file is not None:
        try:
            read = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{file} cannot be read as a TOML file: {error}") from None
        parsed = ThresholdOptions.parse(read, where=f"The thresholds of {file}")
        values = parsed.model_dump(exclude_unset=True) | values
    return replace(DEFAULT, **values)


def _compare(
    run_a: str,
    run_b: str,
    qrels: Path | None,
    relevance_level: int,
    collection: str | None,
    **how: Any,
) -> tuple[list["Comparison"], list[str]]:
    """The comparisons that two names mean, one of files, one an arm of nights; and the results that
    have no counterpart."""
    from perank_tasks.warehouse import comparison as sides
    from perank_tasks.warehouse.database import reading

    files = [Path(run) for run in (run_a, run_b) if Path(run).is_file()]
    if files and qrels is None:
        raise ConfigError(f"{files[0]} is a file: name its judgements with --qrels FILE.")
    if len(files) == 1:
        raise ConfigError(f"{run_b if files[0] == Path(run_a) else run_a}: no such run file")
    alone: list[str] = []
    if files:
        pairs = [(sides.side_of_file(files[0]), sides.side_of_file(files[1]))]
    else:
        site = open_site()
        with reading(site.settings.warehouse) as warehouse:
            pairs, alone = sides.sides_of(warehouse, site.store, run_a, run_b, collection)
    if qrels is not None:
        grades = sides.read_grades(qrels)
        measured = partial(sides.measured_by, grades=grades, relevance_level=relevance_level)
        pairs = [(measured(a), measured(b)) for a, b in pairs]
    return [sides.compare(a, b, **how) for a, b in pairs], alone


def _result(comparison: "Comparison", most: int) -> dict[str, Any]:
    """A comparison as data, with as many queries that lost and gained most."""
    queries = comparison.queries
    return {
        "a": comparison.a.name,
        "b": comparison.b.name,
        "verdict": str(comparison.verdict),
        "problem": comparison.problem,
        "queries": comparison.counts,
        "measures": comparison.rows,
        "different": comparison.b.different,
        "lost": [query for query in queries if query["delta"] < 0][:most],
        "gained": [query for query in reversed(queries) if query["delta"] > 0][:most],
    }


def _print(result: dict[str, Any], measure: str) -> None:
    from perank_tasks.warehouse.night_verdict import measures_in_words

    rows = result["measures"]
    printer.heading("{verdict}: {b} against {a}".format(**result))
    if result["problem"]:
        printer.line(f"could not be judged: {result['problem']}")
    else:
        for sentence in measures_in_words(result["verdict"], rows):
            printer.line(sentence)
    printer.line(
        "queries: {queries[judged]} judged; {queries[ranked_a]} of them ranked by {a}, "
        "{queries[ranked_b]} by {b}, {queries[ranked_both]} by both; measured over "
        "{queries[measured]}".format(**result)
    )
    if result["different"]:
        printer.line(f"different: {', '.join(result['different'])}")
    headings = ["measure", "A", "B", "B - A", "95% interval", "p", "Holm's p", "better", "worse"]
    printer.table(headings, [_row(row) for row in rows])
    for heading in ("lost", "gained"):
        if queries := result[heading]:
            printer.line(f"{measure} {heading} most:", "bold")
            headings = ["query", "A", "B", "B - A", "overlap@10"]
            printer.table(headings, [_query_row(query) for query in queries])
    tests = max(row["tests"] for row in rows)
    printer.line(
        f"A and B by the same judgements; p: paired randomisation test; Holm's p: corrected over "
        f"all {tests} that differ; interval: 95% of the difference, Student's t\n",
        "dim",
    )


def _row(row: dict[str, Any]) -> list[str]:
    return [
        row["measure"],
        f"{row['against_value']:.4f}",
        f"{row['value']:.4f}",
        f"{row['delta']:+.4f}",
        f"{row['ci_low']:+.3f} … {row['ci_high']:+.3f}",
        *("–" if p is None else f"{p:.4f}" for p in (row["p"], row["p_holm"])),
        str(row["better"]),
        str(row["worse"]),
    ]


def _query_row(query: dict[str, Any]) -> list[str]:
    numbers = (f"{query['a']:.3f}", f"{query['b']:.3f}", f"{query['delta']:+.3f}")
    return [query["query_id"], *numbers, f"{query['drift']['overlap_10']:.1f}"]
