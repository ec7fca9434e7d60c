"""`perank compare`: two runs side by side, in a terminal.

In: two names of results, or two TREC run files with a qrels file. Out: a table of measures with
intervals and tests, what was different, and the queries that lost and gained most.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from perank_tasks.cli import console, open_site, print_line
from perank_tasks.errors import ConfigError

if TYPE_CHECKING:
    from perank_tasks.warehouse.comparison import Comparison

BAR = 24
"""Characters of the longest bar."""


def compare(
    run_a: Annotated[
        str,
        typer.Argument(help="DATE[/arm[/collection]], SERIES/arm, or a TREC run file."),
    ],
    run_b: Annotated[str, typer.Argument(help="The same: what is compared with it.")],
    qrels: Annotated[Path | None, typer.Option(help="Judgements of two TREC run files.")] = None,
    relevance_level: Annotated[
        int, typer.Option(min=1, help="Least relevant grade of binary measures; 2 for TREC DL.")
    ] = 1,
    measure: Annotated[str, typer.Option(help="The measure shown by query.")] = "nDCG@10",
    queries: Annotated[int, typer.Option(min=0, help="How many queries of either end.")] = 10,
) -> None:
    """Compare two runs: means, a test, and every query's gain or loss.

    RUN_A and RUN_B are results of the warehouse: 2026-01-30 and 2026-01-31 or
    2026-01-31/bm25 and 2026-01-31/perank of nights, "window/window 20" and "window/window 100" of
    an experiment (window@2026-01-31/… of its run of that date). Or TREC run files from anywhere
    with --qrels.
    """
    from perank_tasks.warehouse.comparison import compare as compare_sides
    from perank_tasks.warehouse.comparison import side_of_file, sides_of
    from perank_tasks.warehouse.database import reading

    if qrels:
        side_a, side_b = (side_of_file(Path(run), qrels, relevance_level) for run in (run_a, run_b))
        comparisons = compare_sides([(side_a, side_b)], measure)
    else:
        for run in (run_a, run_b):
            if Path(run).is_file():
                raise ConfigError(f"{run} is a file: name its judgements with --qrels FILE.")
        site = open_site()
        with reading(site.settings.warehouse) as warehouse:
            pairs = sides_of(warehouse, run_a, run_b)
            comparisons = compare_sides(pairs, measure, warehouse, site.store)
    for comparison in comparisons:
        _print_measures(comparison)
        if comparison.different:
            print_line(f"Different: {', '.join(comparison.different)}")
        _print_queries(comparison, measure, queries)
    tests = max(row.tests for comparison in comparisons for row in comparison.measures.values())
    print_line(
        f"p: paired randomisation test; Holm's correction over {tests} tests; "
        "interval: 95% of the difference, Student's t",
        "dim",
    )


def _print_measures(comparison: "Comparison") -> None:
    title = f"{comparison.b.name} against {comparison.a.name}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("measure", no_wrap=True)
    for heading in ("A", "B", "B - A", "interval", "p", "Holm", "better", "worse"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in comparison.measures.items():
        table.add_row(
            name,
            f"{row.against_value:.4f}",
            f"{row.value:.4f}",
            f"{row.delta:+.4f}",
            f"{row.ci_low:+.3f} {row.ci_high:+.3f}",
            "–" if row.p is None else f"{row.p:.4f}",
            "–" if row.p_holm is None else f"{row.p_holm:.4f}",
            str(row.better),
            str(row.worse),
        )
    console.print(table)


def _print_queries(comparison: "Comparison", measure: str, most: int) -> None:
    changed = [query for query in comparison.queries if query.delta]
    losses = [query for query in changed if query.delta < 0][:most]
    gains = [query for query in reversed(changed) if query.delta > 0][:most]
    longest = max((abs(query.delta) for query in changed), default=1.0)
    for heading, queries in (("lost", losses), ("gained", gains)):
        if not queries:
            continue
        print_line(f"\n{measure} {heading} most:")
        width = max(len(query.query_id) for query in queries)
        for query in queries:
            bar = "█" * max(1, round(BAR * abs(query.delta) / longest))
            colour = "red" if query.delta < 0 else "blue"
            console.print(
                f"  {escape(query.query_id):{width}}  {query.a:.3f} → {query.b:.3f}  "
                f"{query.delta:+.3f}  overlap {query.drift.overlap_10:.1f}  [{colour}]{bar}[/]",
                highlight=False,
                soft_wrap=True,
            )
    print_line("")
