"""Answer: what follows from an experiment, read from the published warehouse, in plain words.

In: a connection, an experiment's series and, where not the newest run is meant, a date. Out: for
each collection an `Answer`: the variants in the order of the grid, with means, intervals, tests and
costs; and `findings`, what follows from them in sentences (`report/templates/findings.txt`).
"""

import json
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

import duckdb
import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.experiments.lengths import length_measures
from perank_tasks.experiments.options import Experiment
from perank_tasks.regression.statistics import Band, effect_size, mean_interval
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.report.page import template
from perank_tasks.warehouse.sql_files import ask

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
    """What is compared with the baseline: a row of `sql/report/experiment_variants.sql`."""

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
class Answer:
    """One run of an experiment on one collection."""

    run_date: date
    experiment: Experiment
    collection: str
    variants: list[Variant]
    cells: list[Row]
    """Rows of `experiment_cells`, with what ranked."""

    @property
    def main(self) -> str:
        """The measure that decides."""
        return self.experiment.measures[0]

    @property
    def baseline(self) -> Variant | None:
        return next((v for v in self.variants if v.name == self.experiment.baseline), None)

    @property
    def ranked(self) -> list[Row]:
        """The cells that have results, those that were ranked first before the others."""
        return sorted((c for c in self.cells if c["arm_hash"]), key=itemgetter("ranked_at"))

    @property
    def costs(self) -> list[str]:
        """The experiment's costs that two variants have."""
        priced = {c: sum(v.costs[c] is not None for v in self.variants) for c in COSTS}
        return [cost for cost in self.experiment.cost if priced[cost] > 1]

    def front(self, cost: str) -> list[Variant]:
        """The variants that none beats in both quality and cost, the cheapest first."""
        front: list[Variant] = []
        best = (0.0, -1.0)
        priced = [(price, v) for v in self.variants if (price := v.costs[cost]) is not None]
        for price, variant in sorted(priced, key=lambda pair: (pair[0], -pair[1].mean(self.main))):
            value = variant.mean(self.main)
            # Of two that are alike in both, neither beats the other.
            if value > best[1] or (price, value) == best:
                best = (price, value)
                front.append(variant)
        return front


def read_answers(
    connection: duckdb.DuckDBPyConnection, series: str, run_date: date | None = None
) -> list[Answer]:
    """Read one run of an experiment, the newest unless a date is given.

    Raises:
        ConfigError: there is none.
    """
    runs = ask(connection, "report/experiment", series=series, run_date=run_date)
    if not runs:
        names = connection.execute("SELECT DISTINCT series FROM experiments ORDER BY 1")
        others = ", ".join(name for (name,) in names.fetchall()) or "none at all"
        raise ConfigError(
            f"There are no results of an experiment {series!r}"
            f"{f' of {run_date}' if run_date else ''}; there are {others}. Run it first: "
            f"perank experiment {series}"
        )
    key = {"series": series, "run_date": runs[0]["run_date"]}
    experiment = Experiment.parse(json.loads(runs[0]["config"]))
    variants = [Variant(**row) for row in ask(connection, "report/experiment_variants", **key)]
    cells = ask(connection, "report/experiment_cells", **key)
    return [
        Answer(
            key["run_date"],
            experiment,
            collection,
            list(its),
            [cell for cell in cells if cell["collection"] == collection],
        )
        for collection, its in groupby(variants, attrgetter("collection"))
    ]


def findings(answer: Answer) -> list[str]:
    """What follows from a collection's tests, in sentences: never more than they say."""
    main, base = answer.main, answer.baseline
    others = sorted(
        (v for v in answer.variants if main in v.tests), key=lambda v: -abs(v.tests[main]["delta"])
    )
    certain = [v for v in others if v.tests[main]["p_holm"] < DEFAULT.alpha]
    alike = [v for v in others if not v.tests[main]["better"] and not v.tests[main]["worse"]]
    judged = base.mean(JUDGED) - UNJUDGED if base else 0.0
    text = template("findings.txt").render(
        answer=answer,
        main=main,
        base=base,
        alpha=DEFAULT.alpha,
        tests=max((test["tests"] for v in others for test in v.tests.values()), default=0),
        better=[v for v in certain if v.tests[main]["delta"] > 0],
        worse=[v for v in certain if v.tests[main]["delta"] < 0],
        alike=alike,
        unclear=[v for v in others if v not in certain and v not in alike],
        unjudged=[v for v in answer.variants if v.mean(JUDGED) < judged],
        lengths={
            measure: [v for v in answer.variants if measure in v.tests]
            for measure in length_measures(answer.experiment.length_parts)
        },
        costs={cost: COSTS[cost] for cost in answer.costs},
        amount=amount,
    )
    return [line for line in text.splitlines() if line]


def amount(cost: str, value: float) -> str:
    """A cost as people read it."""
    if cost == "flops":
        return f"{value / 1e9:,.3g} GFLOP"
    return {"seconds": "{:,.3g} s", "tokens": "{:,.0f}", "bits": "{:,.0f} bits"}[cost].format(value)
