"""The clean-up's DAG file: when it runs, in which pool, and its form."""

from typing import Any


def test_it_runs_weekly_and_never_beside_the_loader(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "0 12 * * 0"
    assert dag["catchup"] is False
    assert dag["pools"] == {"apply_retention": "warehouse"}
    values = {name: param["value"] for name, param in dag["params"].items()}
    assert values == {"keep_days": 30, "keep_last": 3, "delete": True}
