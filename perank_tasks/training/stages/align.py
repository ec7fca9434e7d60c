"""Align: stage 1, a projector by which the LLM says passages from their embeddings.

In: training data of stage alignment. Out: the artifact `trained/align/<key>`, or nothing where the
run leaves stage 1 out.
"""

from typing import Any

from torch.utils.data import Subset

from perank_tasks.night.site import Site
from perank_tasks.training.alignment import align
from perank_tasks.training.data import splits
from perank_tasks.training.data.readers import AlignmentExamples
from perank_tasks.training.kept import keep_training
from perank_tasks.training.run_options import Training
from perank_tasks.training.training_folder import Run


def align_projector(training: Training, site: Site, data: dict[str, str]) -> str | None:
    """Train the projector, unless that was done; returns the reference.

    Raises:
        ConfigError: a base model that does not exist, or a start that does not fit.
        TrainingError: too little data, or a loss that is not finite.
    """
    if not training.options.align:
        return None
    reference, recipe = data["alignment"], training.align

    def train(run: Run) -> dict[str, Any]:
        passages = AlignmentExamples(site.store, reference)
        count = min(recipe.eval_examples, len(passages) // 5)
        places = splits.hold_out_some(len(passages), count, recipe.seed)
        trained_on, held_out = (Subset(passages, side) for side in places)
        return align(recipe, trained_on, held_out, run)

    return keep_training(training, site, recipe, train, data=reference)
