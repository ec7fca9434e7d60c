"""Align: stage 1, a projector by which the LLM says passages from their embeddings.

In: training data of stage alignment. Out: the artifact `trained/align/<key>`, or nothing where the
run leaves stage 1 out.
"""

from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.settings import Settings
from perank_tasks.training.kept import keep_training
from perank_tasks.training.options import Training
from perank_tasks.warehouse import registry


def align_projector(training: Training, data: dict[str, str]) -> str | None:
    """Train the projector, or find it trained; returns the reference.

    Raises:
        ConfigError: a base model that does not exist, or a start that does not fit.
        TrainingError: too little data, or a loss that is not finite.
    """
    from perank_tasks.training.align import align
    from perank_tasks.training.data import open_alignment

    if not training.options.align:
        return None
    settings = Settings.from_environment()
    store = Store(settings.root)
    reference = data["alignment"]
    recipe = training.align

    def train(out: Path) -> dict[str, Any]:
        passages = open_alignment(store, reference)
        order = np.random.default_rng(recipe.seed).permutation(len(passages))
        held_out = min(recipe.eval_examples, len(order) // 5)
        return align(
            recipe,
            passages.select(np.sort(order[held_out:])),
            passages.select(order[:held_out]),
            out,
            cache=settings.cache,
            threads=settings.threads,
            start=training.start and registry.local(training.start, store),
            data={"reference": reference},
        )

    return keep_training(
        store,
        "align",
        train,
        recipe=recipe.model_dump(mode="json"),
        inputs={"data": reference},
        content={"start": training.start_hash},
        provenance=training.fingerprint,
    )
