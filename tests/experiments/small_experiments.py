"""Experiments of seconds: the golden checkpoint over the collection of `tests/small.py`."""

from datetime import date
from pathlib import Path
from typing import Any

from perank_tasks.experiments.options import Experiment
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from tests.small import GOLDEN, NIGHT, write_collection

ORDERS = [
    {"label": "as given"},
    {"label": "shuffled, seed 1", "variant": "shuffled", "initial_order": "random"}
    | {"order_seed": 1},
    {"label": "shuffled, seed 2", "variant": "shuffled", "initial_order": "random"}
    | {"order_seed": 2},
    {"label": "cosine", "arm": "cosine"},
]


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a file would say: four cells, three variants."""
    base = {
        "depth": 12,
        "window": 6,
        "step": 3,
        "checkpoint": str(GOLDEN),
        "embedder": f"checkpoint:{GOLDEN}",
        **changes.pop("base", {}),
    }
    return {
        "name": "orders",
        "question": "Does the order of the candidates matter?",
        "baseline": "as given",
        "collections": [write_collection(folder / "topics")],
        "budget": {"cells": 20, "hours": 1},
        "base": base,
        "axes": {"order": ORDERS},
        **changes,
    }


def small_plan(folder: Path, **changes: Any) -> ExperimentPlan:
    """Its plan as of the night of the other tests."""
    return plan_experiment(Experiment.parse(values(folder, **changes)), date.fromisoformat(NIGHT))
