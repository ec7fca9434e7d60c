"""Register: the checkpoint goes into the registry with all that it came from.

In: what stage 2 made, its data and its evaluation. Out: the artifact `checkpoints/<name>/<key>`:
the checkpoint with a model card, its curves and the measures of its evaluation; in the manifest the
data, the recipes with their seeds, and the machine. It is registered whether it is promoted or not:
what cost hours to train is not thrown away for losing.
"""

from perank_tasks.night.site import Site
from perank_tasks.training.card import model_card
from perank_tasks.training.evaluation import Evaluation
from perank_tasks.training.kept import RUN, report_of
from perank_tasks.training.run_options import Training
from perank_tasks.warehouse import registry


def register_checkpoint(training: Training, site: Site, trained: str, evaluation: str) -> str:
    """Register the checkpoint, unless it is; returns the reference.

    Raises:
        CheckpointError: it does not load.
        StorageError: it cannot be copied.
    """
    store = site.store
    artifact = store.open(trained)
    return registry.register(
        store,
        training.options.name,
        artifact.local(registry.MODEL),
        tables={"query_measures": store.open(evaluation).read("query_measures")},
        folders={RUN: artifact.local(RUN)},
        card=model_card(training, artifact, Evaluation.read(store, evaluation)),
        inputs={**artifact.manifest.inputs, "trained": trained, "evaluation": evaluation},
        config={
            "training": training.hash,
            "options": training.options.model_dump(mode="json"),
            "start": training.start,
            "align": training.align.model_dump(mode="json") if training.options.align else None,
            "rank": training.rank.model_dump(mode="json"),
        },
        counts={"report": report_of(artifact), "scores": Evaluation.read(store, evaluation).means},
        provenance=artifact.manifest.provenance,
    )
