"""Experiments of seconds: the golden checkpoint over the collection of `tests/small.py`."""

import json
from datetime import date
from pathlib import Path
from typing import Any

from perank_tasks.experiments.options import ExperimentFile
from perank_tasks.experiments.plan import ExperimentPlan, plan_experiment
from perank_tasks.night.site import Site
from tests.small import GOLDEN, NIGHT, write_collection

EMBEDDER = f"checkpoint:{GOLDEN}"
ORDERS = [
    {"label": "as given"},
    {"label": "shuffled, seed 1", "variant": "shuffled", "initial-order": "random"}
    | {"order-seed": 1},
    {"label": "shuffled, seed 2", "variant": "shuffled", "initial-order": "random"}
    | {"order-seed": 2},
    {"label": "cosine", "ranker": "cosine", "embedder": EMBEDDER},
]


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a file would say: four cells, three variants."""
    arm = {"ranker": "perank", "checkpoint": str(GOLDEN), "depth": 12, "window": 6, "step": 3}
    return {
        "name": "orders",
        "question": "Does the order of the candidates matter?",
        "baseline": "as given",
        "collections": [write_collection(folder / "topics")],
        "budget": {"cells": 20, "hours": 1},
        "first_stage": "bm25",
        "first_stages": {
            "bm25": {"kind": "bm25"},
            "dense": {"kind": "dense", "embedder": EMBEDDER},
        },
        "arms": {"perank": arm | changes.pop("arm", {})},
        "axes": {"order": ORDERS},
        **changes,
    }


def small_plan(folder: Path, **changes: Any) -> ExperimentPlan:
    """Its plan as of the night of the other tests."""
    file = ExperimentFile.parse(values(folder, **changes))
    return plan_experiment(file, date.fromisoformat(NIGHT), Site.from_environment())


def write_toml(file: Path, given: dict[str, Any]) -> Path:
    """Write values as TOML, whose strings, numbers and lists are JSON's."""
    plain = {k: v for k, v in given.items() if not isinstance(v, dict)}
    for axis, choices in given["axes"].items():
        if not isinstance(choices[0], dict):
            plain[f"axes.{axis}"] = choices
    lines = [*_lines(plain), "[budget]", *_lines(given["budget"])]
    for group in ("first_stages", "arms"):
        for name, table in given[group].items():
            lines += [f"[{group.replace('_', '-')}.{name}]", *_lines(table)]
    for axis, choices in given["axes"].items():
        for choice in (c for c in choices if isinstance(c, dict)):
            lines += [f"[[axes.{axis}]]", *_lines(choice)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _lines(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
