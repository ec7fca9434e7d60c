"""Answer: what an experiment found, read from the published warehouse and put in plain words.

In: a connection, an experiment's series and, where not the newest run is meant, a date. Out:
`Answer`: for each collection its variants in the order of the grid, with means, intervals, tests
and costs; and `findings`, what follows from them in sentences (`report/templates/findings.txt`).
"""

import json
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.experiments.lengths import length_measures
from perank_tasks.experiments.options import Experiment
from perank_tasks.regression.statistics import Band, effect_size, mean_interval
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.report.page import template
from perank_tasks.warehouse.database import ask

COSTS = {
    "seconds": "seconds a query",
    "tokens": "tokens a query",
    "flops": "FLOPs a query",
    "bits": "bits a passage",
}

JUDGED = "judged@10"
UNJUDGED = 0.05
"""How much less of the first ten may be judged before it is said."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One line of a collection's table: a row of `sql/report/experiment_variants.sql`."""

    collection: str
    number: int
    name: str
    cells: int
    lowest: float
    """Of its cells' means of nDCG@10."""
    highest: float
    costs: dict[str, float | None]
    """By the names in `COSTS`; `repaired`: numbers of an answer that were missing or repeated, a
    query."""
    values: dict[str, list[float]]
    """A query's, by measure."""
    tests: dict[str, Row]
    """Rows of `comparisons` by measure; none of the baseline."""

    def mean(self, measure: str) -> float:
        return float(np.mean(self.values[measure]))

    def interval(self, measure: str) -> Band:
        return mean_interval(np.array(self.values[measure]))

    def effect(self, measure: str) -> float | None:
        """Cohen's d of the change."""
        test = self.tests[measure]
        interval = Band(test["ci_low"], test["ci_high"])
        return effect_size(test["delta"], interval, test["queries"])


@dataclass(frozen=True)
class OnCollection:
    """What the experiment found on one collection."""

    name: str
    variants: list[Variant]
    cells: list[Row]
    """Rows of `experiment_cells`, with what ranked."""
    baseline: Variant | None

    @property
    def ranked(self) -> list[Row]:
        """The cells that have results, those that were ranked first before the others."""
        return sorted((c for c in self.cells if c["arm_hash"]), key=itemgetter("ranked_at"))

    def front(self, cost: str, measure: str) -> list[Variant]:
        """The variants that none beats in both quality and cost, the cheapest first."""
        front: list[Variant] = []
        best = (0.0, -1.0)
        priced = [(price, v) for v in self.variants if (price := v.costs[cost]) is not None]
        for price, variant in sorted(priced, key=lambda pair: (pair[0], -pair[1].mean(measure))):
            value = variant.mean(measure)
            # Of two that are alike in both, neither beats the other.
            if value > best[1] or (price, value) == best:
                best = (price, value)
                front.append(variant)
        return front


@dataclass(frozen=True)
class Answer:
    """One run of an experiment."""

    series: str
    run_date: date
    fingerprint: str
    experiment: Experiment
    collections: list[OnCollection]
    missing: list[Row]
    """Rows of `experiment_cells` without results."""

    @property
    def main(self) -> str:
        """The measure that decides."""
        return self.experiment.measures[0]

    @property
    def lengths(self) -> list[str]:
        return length_measures(self.experiment.length_parts)

    @property
    def checkpoints(self) -> list[str]:
        """Those that ranked; a folder's place is this machine's business."""
        cells = [cell for on in self.collections for cell in on.cells if cell["checkpoint"]]
        names = (cell["checkpoint"] for cell in cells)
        return list(dict.fromkeys(Path(n).name if Path(n).is_absolute() else n for n in names))

    def priced(self, on: OnCollection) -> list[str]:
        """The experiment's costs that two variants of a collection have."""
        known = {c: sum(v.costs[c] is not None for v in on.variants) for c in self.experiment.cost}
        return [cost for cost, variants in known.items() if variants > 1]


def read_answer(
    connection: duckdb.DuckDBPyConnection, series: str, run_date: date | None = None
) -> Answer:
    """Read one run of an experiment, the newest unless a date is given.

    Raises:
        ConfigError: there is none.
    """
    runs = ask(connection, "experiment", series=series, run_date=run_date)
    if not runs:
        names = connection.execute("SELECT DISTINCT series FROM experiments ORDER BY 1")
        known = ", ".join(name for (name,) in names.fetchall()) or "none at all"
        raise ConfigError(
            f"There are no results of an experiment {series!r}"
            f"{f' of {run_date}' if run_date else ''}; there are {known}. Run it first: "
            f"perank experiment {series}"
        )
    (about,) = runs
    experiment = Experiment.parse(json.loads(about["config"]))
    key = {"series": series, "run_date": about["run_date"]}
    cells = ask(connection, "experiment_cells", **key)
    variants = [Variant(**row) for row in ask(connection, "experiment_variants", **key)]
    collections = []
    for name, its in groupby(variants, attrgetter("collection")):
        here = list(its)
        baseline = next((v for v in here if v.name == experiment.baseline), None)
        its_cells = [cell for cell in cells if cell["collection"] == name]
        collections.append(OnCollection(name, here, its_cells, baseline))
    missing = [cell for cell in cells if cell["arm_hash"] is None]
    return Answer(series, about["run_date"], about["fingerprint"], experiment, collections, missing)


def findings(answer: Answer, on: OnCollection) -> list[str]:
    """What follows from a collection's tests, in sentences: never more than they say."""
    main, base = answer.main, on.baseline
    others = sorted(
        (v for v in on.variants if main in v.tests), key=lambda v: -abs(v.tests[main]["delta"])
    )
    certain = [v for v in others if v.tests[main]["p_holm"] < DEFAULT.alpha]
    alike = [v for v in others if not v.tests[main]["better"] and not v.tests[main]["worse"]]
    judged = base.mean(JUDGED) - UNJUDGED if base else 0.0
    text = template("findings.txt").render(
        answer=answer,
        on=on,
        main=main,
        base=base,
        alpha=DEFAULT.alpha,
        tests=max((test["tests"] for v in others for test in v.tests.values()), default=0),
        better=[v for v in certain if v.tests[main]["delta"] > 0],
        worse=[v for v in certain if v.tests[main]["delta"] < 0],
        alike=alike,
        unclear=[v for v in others if v not in certain and v not in alike],
        unjudged=[v for v in on.variants if v.mean(JUDGED) < judged],
        missing=[cell for cell in answer.missing if cell["collection"] == on.name],
        fronts={COSTS[cost]: (cost, on.front(cost, main)) for cost in answer.priced(on)},
        amount=amount,
    )
    return [line for line in text.splitlines() if line]


def amount(cost: str, value: float | None) -> str:
    """A cost as people read it."""
    if value is None:
        return "–"
    if cost == "seconds":
        return f"{value:.2g} s" if value < 10 else f"{value:.1f} s"
    if cost == "flops":
        return f"{value / 1e9:,.3g} GFLOP" if value else "0"
    forms = {"repaired": "{:.2g}", "bits": "{:,.0f} bits", "tokens": "{:,.0f}"}
    return forms[cost].format(value)
