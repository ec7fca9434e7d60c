"""Stage 1, alignment: in, passages with embeddings; out, a checkpoint whose projector learnt.

The LLM, which is frozen, says a passage's text from the one token that its projected embedding
makes; the loss is the text's cross-entropy. What the token is worth is measured against a control
in the same evaluation: the same passages, each with another one's embedding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device  # type: ignore[import-untyped]

from perank_tasks.errors import TrainingError
from perank_tasks.perank.checkpoint import Checkpoint, load_head
from perank_tasks.training.batches import AlignmentBatch, AlignmentCollator
from perank_tasks.training.examples import AlignmentExample, Examples, drawn
from perank_tasks.training.losses import IGNORED, reconstruction
from perank_tasks.training.model import AlignmentTrainee
from perank_tasks.training.recipe import AlignRecipe
from perank_tasks.training.saving import finish
from perank_tasks.training.start import begin
from perank_tasks.training.trainer import Task, train
from perank_tasks.training.training_folder import Run

BOOTSTRAP_SAMPLES = 10_000


def align(
    recipe: AlignRecipe,
    passages: Examples[AlignmentExample],
    development: Examples[AlignmentExample],
    run: Run,
) -> dict[str, Any]:
    """Train a projector to align embeddings with the LLM; one that was killed is resumed.

    Args:
        recipe: how.
        passages: to train on.
        development: others, at least 2, to measure on and to choose the best step by.
        run: where, and from what.

    Returns:
        The report, which is also in the folder's `report.json`; `checkpoint` in it is the result.

    Raises:
        ConfigError: a start or base model that does not exist or does not fit.
        TrainingError: examples that do not fit, a loss that is not finite, or another training's
            folder.
        StorageError: the folder cannot be written.
    """
    if len(passages) < 1 or len(development) < 2:
        raise TrainingError(
            f"alignment needs passages to train on and 2 or more others to measure on, found "
            f"{len(passages)} and {len(development)}: make data with more of them"
        )
    begun = begin(run, recipe, passages, passages[0].embedding.size)
    if not isinstance(begun, Checkpoint):
        return begun
    collate, measured = AlignmentCollator(begun, recipe), drawn(development, recipe)
    model = AlignmentTrainee(begun, recipe, load_head(begun))

    def measure(trained: AlignmentTrainee) -> dict[str, float]:
        said = reconstruction_of(trained, measured, collate, recipe)
        return {name: said[name] for name in ("loss", "control")}

    before = reconstruction_of(model, measured, collate, recipe)
    task = Task(
        name="alignment",
        examples=passages,
        collate=collate,
        loss=lambda logits, batch: (reconstruction(logits, batch["targets"]), {}),
        measure=measure,
        select_by="loss",
        length=lambda example: len(example.text),
    )
    outcome = train(model, task, recipe, run)
    after = reconstruction_of(model, measured, collate, recipe)
    in_words = (
        f"**Aligned, not yet trained to rank**: a projector by which {recipe.base_model} says a "
        f"passage's text from its embedding. Stage 2, `perank train rank --start`, begins here.\n\n"
        f"Reconstruction of {after['passages']} development passages, nats a token: "
        f"{after['loss']:.3f} with their own embeddings, {after['control']:.3f} with shuffled "
        f"ones; the difference is {after['gain']:.3f} ({after['low']:.3f} to {after['high']:.3f})."
    )
    return finish(run, recipe, model, outcome | {"before": before, "after": after}, in_words)


def reconstruction_of(
    model: AlignmentTrainee,
    passages: Sequence[AlignmentExample],
    collate: AlignmentCollator,
    recipe: AlignRecipe,
) -> dict[str, float]:
    """Measure how much of passages' texts their embeddings say.

    Args:
        model: of stage 1.
        passages: m of them, at least 2.
        collate: makes batches of them.
        recipe: for batch size and seed.

    Returns:
        In nats a token: `loss` with each passage's own embedding, `control` with another one's;
        `gain`, the control's less the own one's, `low` and `high`, its 95% bootstrap interval over
        passages; and how many `passages` and `tokens` there are.
    """
    # Every passage gets the next one's embedding, in an order of its own: never its own.
    ring = np.random.default_rng(recipe.seed).permutation(len(passages))
    other = np.empty(len(ring), int)
    other[ring] = np.roll(ring, -1)
    order = sorted(range(len(passages)), key=lambda i: len(passages[i].text))
    own, control, tokens = (np.zeros(len(passages)) for _ in range(3))
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        for first in range(0, len(order), recipe.batch_size):
            picked = order[first : first + recipe.batch_size]
            batch = collate([passages[i] for i in picked])
            shuffled = torch.stack(
                [torch.from_numpy(np.array(passages[other[i]].embedding)) for i in picked]
            )
            tokens[picked] = (batch["targets"] != IGNORED).sum(1)
            own[picked] = _nats(model, send_to_device(batch, device))
            batch["embeddings"] = shuffled[:, None].float()
            control[picked] = _nats(model, send_to_device(batch, device))
    random = np.random.default_rng(recipe.seed)
    drawn = random.integers(0, len(passages), (BOOTSTRAP_SAMPLES, len(passages)))
    gains = (control - own)[drawn].sum(1) / tokens[drawn].sum(1)
    low, high = np.quantile(gains, [0.025, 0.975])
    total = tokens.sum()
    return {
        "passages": len(passages),
        "tokens": int(total),
        "loss": float(own.sum() / total),
        "control": float(control.sum() / total),
        "gain": float((control - own).sum() / total),
        "low": float(low),
        "high": float(high),
    }


def _nats(model: AlignmentTrainee, batch: AlignmentBatch) -> np.ndarray:
    """(B,) each text's negative log likelihood."""
    logits, targets = model(batch), batch["targets"]
    nats = F.cross_entropy(
        logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    return nats.sum(1).cpu().numpy()
