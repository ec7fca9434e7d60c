"""Cross-validation: what the LLM adds where one labelled collection is all there is.

In: a training run whose lists come from a judged collection's own queries. Out: every query of it
measured by a checkpoint that was not trained on it, LLM on and off, and the paired test between
the two. Folds are by query, queries in the same words together (`training.data.splits`); each is
an artifact, as an ablation's cells are, and what was stopped goes on with the next.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing
from perank_tasks.training.ablation import OFF, ON, measure_cell
from perank_tasks.training.comparing import Values, compare_arms, in_words
from perank_tasks.training.data import folds, open_ranking
from perank_tasks.training.judged import Judged
from perank_tasks.training.options import Training
from perank_tasks.training.stages.data import make_data
from perank_tasks.warehouse.comparison import MeasureComparison

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidation:
    """Values of every query by a checkpoint that has not seen it, and LLM on against off."""

    collection: str
    folds: list[int]
    """Queries measured in each."""
    values: dict[str, Values]
    llm_adds: dict[str, MeasureComparison]
    """By measure."""

    def lines(self) -> list[str]:
        """For people: means of both, and the test, a line for each measure that has one."""
        return [
            f"{measure}: {OFF} {test.a:.4f}, {ON} {test.b:.4f}; {in_words(test)}"
            for measure, test in self.llm_adds.items()
            if test.p is not None
        ]

    def to_json(self) -> str:
        """All of it, values by query included."""
        value = {
            "collection": self.collection,
            "folds": self.folds,
            "values": self.values,
            "llm_adds": {measure: _plain(test) for measure, test in self.llm_adds.items()},
        }
        return json.dumps(value, indent=1) + "\n"


def cross_validate(training: Training, k: int) -> CrossValidation:
    """Train and measure every fold that is not done.

    Args:
        training: its development collection is the one that is trained on.
        k: folds.

    Raises:
        ConfigError: it has no residual, so there is nothing to hold the LLM against.
        TrainingDataError: fewer queries than folds.
    """
    if not training.rank.residual:
        raise ConfigError(
            "Cross-validation holds a checkpoint against its own residual, and this recipe has "
            "none: set rank_residual=true."
        )
    store = Store(Settings.from_environment().root)
    judged = Judged(training.development, training)
    lists = open_ranking(store, make_data(training)["ranking"])
    names = dict(lists.queries)
    mine: dict[str, list[str]] = {}
    for query_id, text in judged.queries:
        mine.setdefault(text, []).append(query_id)
    values: dict[str, dict[str, dict[str, float]]] = {ON: {}, OFF: {}}
    counts = []
    for number, (trained_on, held_out) in enumerate(folds(lists.queries, k, training.rank.seed), 1):
        train = frozenset(lists.queries[place][0] for place in trained_on)
        held = {lists.queries[place][0] for place in held_out}
        measured = frozenset(own for q in held for own in mine.get(names[q], ()))
        log.info("fold %d of %d: %d queries", number, k, len(measured))
        cell, _ = measure_cell(training, judged, (train, measured))
        counts.append(len(measured))
        for state, found in cell.items():
            for measure, by_query in found.items():
                values[state].setdefault(measure, {}).update(by_query)
    tests = compare_arms(values, [(OFF, ON)])
    return CrossValidation(judged.night.collection_name, counts, dict(values), tests[OFF, ON])


def write_result(found: CrossValidation, folder: Path) -> Path:
    """Write `crossvalidation.json`; returns its path.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / "crossvalidation.json"
    with replacing(path, "The folds are kept; run it again, or with another --out.") as temporary:
        temporary.write_text(found.to_json(), encoding="utf-8")
    return path


def _plain(test: MeasureComparison) -> dict[str, Any]:
    return {**vars(test), "interval": [test.interval.low, test.interval.high], "delta": test.delta}
