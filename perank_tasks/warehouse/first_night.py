"""First night: what has nothing earlier to compare with is compared with its night's first stage.

In: results without a baseline, and the values of their night. Out: rows of `comparisons`, of the
kind `same night`. They are no verdict: arms differ because they are other arms.
"""

from collections.abc import Mapping
from dataclasses import asdict

from perank_tasks.regression.paired import Pair, compare_family
from perank_tasks.warehouse.nights import Baseline, Nights, Run, TableRow, Values

SAME_NIGHT = "same night"


def compare_with_first_stage(
    nights: Nights,
    baselines: Mapping[Run, Baseline],
    values: Values,
    untested: tuple[str, ...],
    family: str,
) -> list[TableRow]:
    """The rows of all results that have no baseline, each a family of tests of its own.

    Args:
        untested: measures of which nothing is claimed.
    """
    rows: list[TableRow] = []
    for run, baseline in baselines.items():
        control = None if baseline.run else _control(nights, run)
        if control is None or not run.comparable:
            continue
        measures = [m for m in values.measures_of(run) if m in values.measures_of(control)]
        pairs = [
            Pair(values.of(run, m), values.of(control, m), is_tested=m not in untested)
            for m in measures
        ]
        rows += [
            {
                **run.key,
                "measure": measure,
                "against_kind": SAME_NIGHT,
                "against_date": control.run_date,
                "against_arm": control.arm,
                "against_arm_hash": control.arm_hash,
                **asdict(comparison),
                "family": family,
            }
            for measure, comparison in zip(measures, compare_family(pairs), strict=True)
            if comparison
        ]
    return rows


def _control(nights: Nights, run: Run) -> Run | None:
    """The arm that ranks by the first stage alone: by the run's own, where there is one."""
    controls = [
        other
        for other in nights.of(run.run_date)
        if other.ranker == "first-stage" and other.comparable
    ]
    if run in controls:
        return None
    own = [other for other in controls if other.first_stage == run.first_stage]
    return next(iter([*own, *controls]), None)
