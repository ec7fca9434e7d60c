"""What `perank train align` and `perank train rank` may be asked for, beside their recipes."""

from pathlib import Path

from pydantic import Field

from perank_tasks.config import Options
from perank_tasks.training.recipe import Preset


class StageOptions(Options):
    """What both stages are asked for."""

    data: tuple[str, ...] = Field(min_length=1)
    """Reference of training data, as perank train data prints it."""
    out: Path
    """Folder of the training, new or to be resumed."""
    hold_out: float = Field(0.1, ge=0, le=0.9)
    """Share of the data kept to measure on; of lists, by queries."""
    preset: Preset = "tiny"
    """Where the recipe begins: paper, tiny or feedback."""
    set: tuple[str, ...] = ()
    """NAME=VALUE of the recipe."""
    start: str | None = None
    """Checkpoint to begin with: a folder, a shipped name, a hub id."""
