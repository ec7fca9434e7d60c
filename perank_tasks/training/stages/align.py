"""Align: stage 1, a projector by which the LLM says passages from their embeddings.

In: training data of stage alignment. Out: the artifact `trained/align/<key>`, or nothing where the
run leaves stage 1 out.
"""

from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.training.alignment import align
from perank_tasks.training.data.readers import AlignmentExamples
from perank_tasks.training.kept import keep_training, run_in
from perank_tasks.training.run_options import Training
from perank_tasks.warehouse.registry import open_store


def align_projector(training: Training, data: dict[str, str]) -> str | None:
    """Train the projector, unless that was done; returns the reference.

    Raises:
        ConfigError: a base model that does not exist, or a start that does not fit.
        TrainingError: too little data, or a loss that is not finite.
    """
    if not training.options.align:
        return None
    store, reference, recipe = open_store(), data["alignment"], training.align

    def train(folder: Path) -> dict[str, Any]:
        passages = AlignmentExamples(store, reference)
        order = np.random.default_rng(recipe.seed).permutation(len(passages))
        held_out = min(recipe.eval_examples, len(order) // 5)
        return align(
            recipe,
            passages.select(np.sort(order[held_out:])),
            passages.select(order[:held_out]),
            run_in(folder, store, start=training.start, reference=reference),
        )

    return keep_training(
        store,
        recipe,
        train,
        inputs={"data": reference},
        content={"start": training.start_hash},
        provenance=training.fingerprint,
    )
