"""Training data: from collections to sequences of examples, as artifacts.

    collections ─snapshot, embed─▶ passages  (each text once, vectors mapped into memory)
    collection, file or cloze ───▶ queries   (none of an evaluation collection)
    passages + BM25 + teacher ───▶ lists of n candidates, each with a golden ranking

`make.make_training_data` does all of it by the options in `options.DataOptions` and returns
a reference, `training_data/<name>/<key>`; `readers.open_alignment` and `open_ranking` read it,
and `splits` cuts it by query. The artifacts below a reference are named in its manifest's
inputs: `training_passages`, `training_queries`, and the embeddings, indexes and snapshots of
the nightly pipeline, which nights and training share.

The readers below load Parquet's library only when they are first used: a form of the options is
light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perank_tasks.training.data.options import DataOptions
    from perank_tasks.training.data.readers import open_alignment, open_ranking
    from perank_tasks.training.data.splits import folds, hold_out

__all__ = ["DataOptions", "folds", "hold_out", "open_alignment", "open_ranking"]

_MODULES = {
    "DataOptions": "options",
    "folds": "splits",
    "hold_out": "splits",
    "open_alignment": "readers",
    "open_ranking": "readers",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
