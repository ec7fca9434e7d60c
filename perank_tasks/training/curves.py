"""Curves: in, what was logged step by step; out, CSV, JSON lines and a plot of it."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perank_tasks.support.files import replacing

COLUMNS = ("step", "seconds", "loss", "top1", "learning_rate", "grad_norm")
"""Come first; measures on development examples, `dev_…`, follow."""

_REMEDY = "Curves are written anew at every evaluation; free space and start the training again."

_LABELS = {
    "loss": "loss",
    "top1": "agreement on the best",
    "ndcg": "nDCG@10",
    "control": "loss, embeddings shuffled",
}


def write_curves(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write `curves.csv` and `curves.jsonl`, whole; returns their paths.

    Args:
        folder: where they go.
        rows: `step` and any numbers.

    Raises:
        StorageError: they cannot be written.
    """
    names = [*COLUMNS, *sorted({name for row in rows for name in row} - set(COLUMNS))]
    table, lines = folder / "curves.csv", folder / "curves.jsonl"
    with replacing(table, _REMEDY) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    with replacing(lines, _REMEDY) as path, path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return [table, lines]


def plot_curves(path: Path, rows: Sequence[dict[str, Any]], title: str, best: int | None) -> None:
    """Draw training and development measures by step, a panel for each kind, into a PNG.

    Args:
        path: of the PNG.
        rows: as for `write_curves`.
        title: of the figure.
        best: the step that was kept, None where it is the last.

    Raises:
        StorageError: it cannot be written.
    """
    from matplotlib.figure import Figure

    kinds = ["loss", "top1"]
    measured = {
        name.removeprefix("dev_") for row in rows for name in row if name.startswith("dev_")
    }
    kinds += sorted(measured - {"loss", "top1", "control"})
    kinds = [kind for kind in kinds if any(kind in row or f"dev_{kind}" in row for row in rows)]
    figure = Figure(figsize=(4.5 * max(1, len(kinds)), 3.4), layout="constrained")
    figure.suptitle(title)
    for axes, kind in zip(
        figure.subplots(1, max(1, len(kinds)), squeeze=False)[0], kinds, strict=False
    ):
        for name, label, style in (
            (kind, "training", {"linewidth": 0.9, "alpha": 0.6}),
            (f"dev_{kind}", "development", {"marker": "o", "markersize": 3}),
            ("dev_control", "development, shuffled", {"marker": "x", "markersize": 4}),
        ):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points and (kind == "loss" or name != "dev_control"):
                axes.plot(*zip(*points, strict=True), label=label, **style)
        if best is not None:
            axes.axvline(best, color="grey", linewidth=0.8, linestyle=":", label="kept")
        axes.set_xlabel("step")
        axes.set_ylabel(_LABELS.get(kind, kind))
        axes.legend(frameon=False, fontsize=8)
    with replacing(path, _REMEDY) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
