"""Contents: everything that an experiment's pages say, read from the published warehouse.

When cells were computed is not in its tables: that, and no more, is read from their artifacts.

In: a connection, an experiment's name and, where not the newest run is meant, a date. Out:
`Contents`: for each collection its variants in the order of the grid, with means, intervals,
tests and costs, and what follows from them in plain words.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from perank_tasks.artifacts.store import Artifact, Manifest, Store
from perank_tasks.errors import ConfigError
from perank_tasks.experiments.cells import length_measures
from perank_tasks.experiments.options import Experiment
from perank_tasks.regression.statistics import Band, mean_interval
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.database import dicts
from perank_tasks.warehouse.load_log import EXPERIMENT_KIND, collection_of
from perank_tasks.warehouse.sql_files import sql_folder

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
    """One line of a collection's table; costs are means over its cells and their queries."""

    name: str
    cells: list[Row]
    """Rows of `experiment_cells` that have results."""
    intervals: dict[str, Band]
    means: dict[str, float]
    tests: dict[str, Row]
    """Rows of `experiment_tests` by measure; none of the baseline."""
    lowest: float
    highest: float
    """Of its cells' means of the main measure."""

    def cost(self, name: str) -> float | None:
        """Seconds, tokens or decode steps a query, FLOPs a query, bits a passage, or the share of
        queries whose output had to be repaired; None where it has none."""
        amounts = [_AMOUNTS[name](cell) for cell in self.cells]
        return None if any(a is None for a in amounts) else float(np.mean(amounts))


_AMOUNTS: dict[str, Any] = {
    "seconds": lambda c: (c["seconds"] - c["load_seconds"]) / c["queries"],
    "tokens": lambda c: (c["tokens_in"] + c["decode_steps"]) / c["queries"],
    "steps": lambda c: c["decode_steps"] / c["queries"],
    "flops": lambda c: c["flops"] / c["queries"],
    "bits": lambda c: c["bits_a_passage"],
    "malformed": lambda c: c["malformed_queries"] / c["queries"],
    "unranked": lambda c: c["unranked_queries"] / c["queries"],
}


@dataclass(frozen=True)
class OnCollection:
    """What the experiment found on one collection."""

    name: str
    passages: int
    queries: int
    """Judged ones, that the measures are over."""
    variants: list[Variant]
    baseline: Variant | None
    tests: int
    """How many tests Holm's correction was over, on all collections."""

    def front(self, cost: str, measure: str) -> list[Variant]:
        """The variants that none beats in both quality and cost, the cheapest first."""
        front: list[Variant] = []
        best = (0.0, -1.0)
        priced = [(v.cost(cost), v) for v in self.variants]
        known = [(c, v) for c, v in priced if c is not None]
        for price, variant in sorted(known, key=lambda pair: (pair[0], -pair[1].means[measure])):
            value = variant.means[measure]
            # Of two that are alike in both, neither beats the other.
            if value > best[1] or (price, value) == best:
                best = (price, value)
                front.append(variant)
        return front


@dataclass(frozen=True)
class Contents:
    """One run of an experiment."""

    name: str
    run_date: date
    about: Row
    """Its row of `experiments`."""
    experiment: Experiment
    collections: list[OnCollection]
    missing: list[Row]
    """Rows of `experiment_cells` without results."""
    facts: dict[str, str]
    computed: dict[str, list[datetime]] = field(default_factory=dict)
    """When the cells on a collection were (UTC), as `computed_cells` gives it."""

    @property
    def main(self) -> str:
        """The measure that decides."""
        return self.experiment.measures[0]

    @property
    def measures(self) -> list[str]:
        """Those that are shown beside the main one."""
        others = ("nDCG@10", "MRR@10", "recall@100", "MAP", JUDGED)
        return [name for name in others if name != self.main]

    @property
    def lengths(self) -> list[str]:
        return length_measures(self.experiment.length_parts)

    def when(self, on: OnCollection) -> str:
        """When a collection's cells were computed, in a sentence."""
        times = self.computed.get(on.name, [])
        cells = sum(len(variant.cells) for variant in on.variants)
        if not times:
            return f"When the {cells} cells were computed is not known: their artifacts are gone."
        first, last = (f"{time:%Y-%m-%d %H:%M:%S}" for time in (times[0], times[-1]))
        known = f"The {cells}" if len(times) == cells else f"{len(times)} of the {cells}"
        others = "" if len(times) == cells else "; the others' artifacts are gone"
        return f"{known} cells were computed from {first} to {last} UTC{others}."

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints that ranked, each with the hash of its content."""
        arms = [
            json.loads(cell["config"])
            for on in self.collections
            for variant in on.variants
            for cell in variant.cells
        ]
        # A folder's place is this machine's business.
        named = [
            f"{a['checkpoint'].rpartition('/')[2]} ({a['checkpoint_hash']})"
            if Path(a["checkpoint"]).is_absolute()
            else f"{a['checkpoint']} ({a['checkpoint_hash']})"
            for a in arms
            if a["checkpoint"]
        ]
        return list(dict.fromkeys(named))

    @property
    def machine(self) -> str:
        """What computed it, in one line."""
        facts = self.facts
        return (
            f"{facts.get('processor', 'unknown processor')}, {facts.get('threads', '?')} threads, "
            f"accelerators: {facts.get('accelerators', 'none')}; code {facts.get('code', '?')} "
            f"(commit {facts.get('commit', '?')}), Python {facts.get('python', '?')}, "
            f"torch {facts.get('library.torch', '?')}, "
            f"transformers {facts.get('library.transformers', '?')}"
        )


def read_experiment(
    connection: duckdb.DuckDBPyConnection, name: str, run_date: date | None = None
) -> Contents:
    """Read one run of an experiment, the newest unless a date is given.

    Raises:
        ConfigError: there is none.
    """
    found = _ask(connection, "experiment", {"experiment": name, "run_date": run_date})
    if not found:
        names = connection.execute("SELECT DISTINCT experiment FROM experiments ORDER BY 1")
        known = ", ".join(n for (n,) in names.fetchall()) or "none at all"
        raise ConfigError(
            f"There are no results of an experiment {name!r}"
            f"{f' of {run_date}' if run_date else ''}; there are {known}. Run it first: "
            f"perank experiment {name}"
        )
    (about,) = found
    key = {"experiment": name, "run_date": about["run_date"]}
    experiment = Experiment.parse(json.loads(about["config"]))
    cells = _ask(connection, "experiment_cells", key)
    tests = _ask(connection, "experiment_tests", key)
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in _ask(connection, "experiment_queries", key):
        at = (row["collection"], row["variant"], row["measure"])
        values.setdefault(at, []).append(row["value"])
    order = [cell.label for cell in experiment.grid()]
    cells.sort(key=lambda cell: order.index(cell["cell"]))
    with_results = [cell for cell in cells if cell["status"] != "missing"]
    collections = []
    for collection in dict.fromkeys(cell["collection"] for cell in with_results):
        here = [cell for cell in with_results if cell["collection"] == collection]
        variants = [
            _variant(
                variant,
                [cell for cell in here if cell["variant"] == variant],
                {m: v for (c, n, m), v in values.items() if (c, n) == (collection, variant)},
                [t for t in tests if (t["collection"], t["variant"]) == (collection, variant)],
                experiment.measures[0],
            )
            for variant in dict.fromkeys(cell["variant"] for cell in here)
        ]
        collections.append(
            OnCollection(
                name=collection,
                passages=here[0]["passages"],
                queries=here[0]["judged_queries"],
                variants=variants,
                baseline=next((v for v in variants if v.name == experiment.baseline), None),
                tests=max((t["tests"] for t in tests), default=0),
            )
        )
    return Contents(
        name=name,
        run_date=about["run_date"],
        about=about,
        experiment=experiment,
        collections=collections,
        missing=[cell for cell in cells if cell["status"] == "missing"],
        facts={row["key"]: row["value"] for row in _ask(connection, "experiment_facts", key)},
    )


def computed_cells(store: Store, name: str, run_date: date) -> dict[str, list[datetime]]:
    """When the cells of an experiment's run were ranked, or found to be ranked, in UTC.

    A cell that was kept from an earlier run keeps its seconds; the tables do not say from when
    these are, and artifacts do.

    Returns:
        {collection: the cells' times, the first first}; cells whose artifacts are gone have none.
    """
    loads = (load.manifest for load in store.published(EXPERIMENT_KIND, name))
    loaded = next((m for m in loads if m.config["run_date"] == run_date.isoformat()), None)
    times: dict[str, list[datetime]] = {}
    for results in _manifests(store, [loaded.inputs["results"]] if loaded else []):
        cells = _manifests(store, results.inputs.values())
        rankings = _manifests(store, [cell.inputs["rankings"] for cell in cells])
        ranked = {ranking.reference: ranking.created_at for ranking in rankings}
        for cell in cells:
            moment = ranked.get(cell.inputs["rankings"], cell.created_at)
            on = times.setdefault(collection_of(cell.reference), [])
            on.append(datetime.fromisoformat(moment))
    return {collection: sorted(on) for collection, on in times.items()}


def findings(contents: Contents, on: OnCollection) -> list[str]:
    """What follows from a collection's tests, in sentences: never more than they say."""
    main, base = contents.main, on.baseline
    if base is None:
        return ["The baseline has no results, so that nothing can be compared."]
    interval = base.intervals[main]
    said = [
        f"Baseline: {base.name}, {main} {_value(base.means[main])} "
        f"[{_value(interval.low)}, {_value(interval.high)}] over {on.queries} judged queries."
    ]
    others = [v for v in on.variants if main in v.tests]
    certain = [v for v in others if v.tests[main]["p_holm"] < DEFAULT.alpha]
    alike = [v for v in others if not v.tests[main]["better"] and not v.tests[main]["worse"]]
    open_ = [v for v in others if v not in certain and v not in alike]
    for word, sign in (("better", 1), ("worse", -1)):
        found = [v for v in certain if sign * v.tests[main]["delta"] > 0]
        found.sort(key=lambda v: -sign * v.tests[main]["delta"])
        if found:
            said.append(
                f"{word.capitalize()} than it beyond chance, p < {_p(DEFAULT.alpha)} after Holm's "
                f"correction over {on.tests} tests: {'; '.join(_change(v, main) for v in found)}."
            )
    if not any(v.tests[main]["delta"] > 0 for v in certain):
        said.append(
            f"Nothing is better than it beyond chance: whether anything is cannot be answered at "
            f"this scale, {on.queries} queries."
        )
    if alike:
        said.append(
            f"No query's {main} differs from the baseline's with "
            f"{'; '.join(v.name for v in alike)}."
        )
    if open_:
        reach = max(max(abs(v.tests[main][end]) for end in ("ci_low", "ci_high")) for v in open_)
        said.append(
            f"No difference could be shown for {'; '.join(_change(v, main) for v in open_)}. "
            f"Their intervals leave room for differences up to {_value(reach)}."
        )
    judged = base.means[JUDGED]
    if fewer := [v for v in on.variants if v.means[JUDGED] < judged - UNJUDGED]:
        shares = "; ".join(f"{v.name} ({v.means[JUDGED]:.0%})" for v in fewer)
        said.append(
            f"Of the first ten of {shares}, fewer were ever judged than of the baseline's "
            f"({judged:.0%}). What nobody judged counts as not relevant, so that a loss of theirs "
            "may be the judgements'."
        )
    if len(on.variants) > 2:
        ranked = sorted(on.variants, key=lambda v: v.means[main])
        said.append(
            f"From {ranked[0].name} to {ranked[-1].name} the mean moves by "
            f"{_value(ranked[-1].means[main] - ranked[0].means[main])}."
        )
    for variant in on.variants:
        if len(variant.cells) > 1:
            said.append(
                f"{variant.name}: {len(variant.cells)} cells, whose means go from "
                f"{_value(variant.lowest)} to {_value(variant.highest)}."
            )
    for cost in contents.experiment.cost:
        if sum(v.cost(cost) is not None for v in on.variants) < 2:
            continue
        front = on.front(cost, main)
        steps = "; ".join(
            f"{v.name} ({amount(cost, v.cost(cost))}: {_value(v.means[main])})" for v in front
        )
        not_beaten = "Not beaten" if len(front) > 1 else "The only one not beaten"
        said.append(f"{not_beaten} in both {main} and {COSTS[cost]}: {steps}.")
    return said


def amount(cost: str, value: float | None) -> str:
    """A cost as people read it."""
    if value is None:
        return "–"
    if cost in ("malformed", "unranked"):
        return f"{value:.0%}"
    if cost == "seconds":
        return f"{value:.2g} s" if value < 10 else f"{value:.1f} s"
    if cost == "flops":
        return f"{value / 1e9:,.3g} GFLOP" if value else "0"
    return f"{value:,.0f}" + (" bits" if cost == "bits" else "")


def _variant(
    name: str,
    cells: list[Row],
    values: dict[str, list[float]],
    tests: Sequence[Row],
    main: str,
) -> Variant:
    of_cells = [cell["means"][main] for cell in cells]
    return Variant(
        name=name,
        cells=cells,
        intervals={measure: mean_interval(np.array(v)) for measure, v in values.items()},
        means={measure: float(np.mean(v)) for measure, v in values.items()},
        tests={test["measure"]: test for test in tests},
        lowest=min(of_cells),
        highest=max(of_cells),
    )


def _ask(connection: duckdb.DuckDBPyConnection, name: str, bound: dict[str, Any]) -> list[Row]:
    statement = (sql_folder() / "report" / f"{name}.sql").read_text()
    return dicts(connection.execute(statement, bound))


def _manifests(store: Store, references: Iterable[str]) -> list[Manifest]:
    """Those that are there, read at once and not counted as used."""
    artifacts = [Artifact(store, reference) for reference in references]
    contents = store.storage.read([artifact.manifest_key for artifact in artifacts])
    pairs = zip(artifacts, contents, strict=True)
    return [artifact.parse(content) for artifact, content in pairs if content is not None]


def _change(variant: Variant, measure: str) -> str:
    test = variant.tests[measure]
    return (
        f"{variant.name} ({signed(test['delta'])} [{signed(test['ci_low'])}, "
        f"{signed(test['ci_high'])}])"
    )


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def _value(value: float) -> str:
    return f"{value:.4f}"


def _p(value: float) -> str:
    return f"{value:g}".replace("0.", ".")
