"""Curves: in, what was logged step by step; out, JSON lines and a plot of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perank_tasks.support.files import replacing

_REMEDY = "Curves are written anew at every evaluation; free space and start the training again."

_LABELS = {"loss": "loss", "top1": "agreement on the best", "ndcg": "nDCG@10"}
"""Panels, in order; other measures follow."""


def write_curves(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `curves.jsonl`, whole.

    Args:
        folder: where it goes.
        rows: `step` and any numbers; measures on development examples are `dev_…`.

    Raises:
        StorageError: it cannot be written.
    """
    with (
        replacing(folder / "curves.jsonl", _REMEDY) as path,
        path.open("w", encoding="utf-8") as file,
    ):
        file.writelines(json.dumps(row) + "\n" for row in rows)


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

    names = {name for row in rows for name in row}
    measured = {name.removeprefix("dev_") for name in names if name.startswith("dev_")}
    kinds = [kind for kind in _LABELS if kind in names | measured]
    kinds += sorted(measured - {*_LABELS, "control"})
    kinds = kinds or ["loss"]
    figure = Figure(figsize=(4.5 * len(kinds), 3.4), layout="constrained")
    figure.suptitle(title)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        lines = [(kind, "training", ""), (f"dev_{kind}", "development", ".")]
        if kind == "loss":
            lines.append(("dev_control", "development, shuffled", "x"))
        for name, label, marker in lines:
            if points := [(row["step"], row[name]) for row in rows if name in row]:
                axes.plot(*zip(*points, strict=True), label=label, marker=marker)
        if best is not None:
            axes.axvline(best, color="grey", linewidth=0.8, linestyle=":", label="kept")
        axes.set_xlabel("step")
        axes.set_ylabel(_LABELS.get(kind, kind))
        axes.legend(frameon=False, fontsize=8)
    with replacing(path, _REMEDY) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
