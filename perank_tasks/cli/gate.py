"""`--fail-on`: the exit status of commands that judge. 0 fine, 1 as bad as asked for, 2 could not
be judged, an error included."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perank_tasks.cli import print_line
from perank_tasks.cli.command import Guarded
from perank_tasks.regression.thresholds import FailOn

if TYPE_CHECKING:
    from perank_tasks.night.site import Site

FailOnOption = Annotated[
    FailOn | None,
    typer.Option(
        help="Leave with exit status 1 where a verdict is as bad as that (drift: whatever changed "
        "and nobody accepted), with 2 where one could not be judged, a first night included.",
        rich_help_panel="Verdict",
    ),
]


def guarded(
    found: dict[str, Any], words: Sequence[tuple[str, str]], fail_on: FailOn | None
) -> Guarded:
    """What a command found, with the exit status of the verdicts; says which and why.

    Args:
        words: each arm's name and verdict.
    """
    if fail_on is None:
        return Guarded(found, 0)
    from perank_tasks.regression.gate import gate

    status, why = gate(words, fail_on)
    print_line(f"Exit status {status}: {why}")
    return Guarded({**found, "fail_on": fail_on, "status": status, "why": why}, status)


def whole_night(
    site: "Site", run_date: date, collection: str | None
) -> tuple[str, list[tuple[str, str]]]:
    """The collection of a night, and the arms of the whole night before that it has no results of,
    each with a verdict: incomplete.

    Raises:
        ConfigError: there are no results, or those of several collections.
    """
    from perank_tasks.warehouse.database import reading
    from perank_tasks.warehouse.nights import Nights
    from perank_tasks.warehouse.run_names import find_runs

    with reading(site.settings.warehouse) as warehouse:
        here = find_runs(warehouse, str(run_date), collection)
        nights = Nights(warehouse, here[0].collection)
    before = [run for run in nights.runs if run.run_date < run_date and not run.limited]
    last = max((run.run_date for run in before), default=None)
    gone = {run.arm for run in before if run.run_date == last} - {run.arm for run in here}
    return nights.collection, [(arm, "incomplete") for arm in sorted(gone)]
