"""Register: the checkpoint goes into the registry with all that it came from.

In: what stage 2 made, its data and its evaluation. Out: the artifact `checkpoints/<name>/<key>`:
the checkpoint with a model card, its curves, its scores and tests; in the manifest the data, the
recipes with their seeds, and the machine. It is registered whether it is promoted or not: what
cost hours to train is not thrown away for losing.
"""

from perank_tasks.artifacts.store import Store
from perank_tasks.settings import Settings
from perank_tasks.training.card import model_card
from perank_tasks.training.kept import RUN, report_of
from perank_tasks.training.options import Training
from perank_tasks.warehouse import registry


def register_checkpoint(training: Training, trained: str, evaluation: str) -> str:
    """Register the checkpoint, or find it registered; returns the reference.

    Raises:
        CheckpointError: it does not load.
        StorageError: it cannot be copied.
    """
    store = Store(Settings.from_environment().root)
    made, measured = store.open(trained), store.open(evaluation)
    return registry.register(
        store,
        training.options.name,
        registry.model_folder(made),
        tables={
            "curves": made.read("curves"),
            "scores": measured.read("scores"),
            "tests": measured.read("tests"),
        },
        folders={RUN: registry.files(made, RUN)},
        card=model_card(training, made, measured),
        inputs={**made.manifest.inputs, "trained": trained, "evaluation": evaluation},
        config={
            "training": training.hash,
            "options": training.options.model_dump(mode="json"),
            "start": training.start,
            "align": training.align.model_dump(mode="json") if training.options.align else None,
            "rank": training.rank.model_dump(mode="json"),
        },
        counts={"report": report_of(made), "scores": measured.manifest.counts},
        provenance=made.manifest.provenance,
    )
