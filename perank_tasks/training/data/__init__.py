"""Training data: from collections to sequences of examples, as artifacts.

    collections ─snapshot, embed─▶ passages  (each text once, vectors mapped into memory)
    collection, file or cloze ───▶ queries   (none of an evaluation collection)
    passages + BM25 + teacher ───▶ lists of n candidates, each with a golden ranking

`make.make_training_data` does all of it by the options in `options.DataOptions` and returns
a reference, `training_data/<name>/<key>`; `readers.open_alignment` and `open_ranking` read it,
and `splits` cuts it by query. The artifacts below a reference are named in its manifest's
inputs: `training_passages`, `training_queries`, and the embeddings, indexes and snapshots of
the nightly pipeline, which nights and training share.

The names below load pyarrow and the stages only when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perank_tasks.training.data.make import make_training_data
    from perank_tasks.training.data.options import DataOptions
    from perank_tasks.training.data.readers import open_alignment, open_ranking
    from perank_tasks.training.data.splits import folds, hold_out

__all__ = [
    "DataOptions",
    "folds",
    "hold_out",
    "make_training_data",
    "open_alignment",
    "open_ranking",
]

_MODULES = {
    "make_training_data": "make",
    "DataOptions": "options",
    "open_alignment": "readers",
    "open_ranking": "readers",
    "folds": "splits",
    "hold_out": "splits",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
