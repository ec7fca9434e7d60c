"""What was trained, as a checkpoint: in, a start and weights; out, a folder that the engine loads.

Our format holds what differs from the base model. The published one holds everything, as the
reference implementation reads it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from perank_tasks.perank.checkpoint import WRITE_REMEDY, Checkpoint, load_head, save_checkpoint
from perank_tasks.perank.checkpoint_config import ENCODER_PREFIX, PerankConfig
from perank_tasks.perank.checkpoint_files import TensorFiles
from perank_tasks.support.files import making_folder
from perank_tasks.training.model import Trainee
from perank_tasks.training.recipe import AlignRecipe, RankRecipe, Storage
from perank_tasks.training.training_folder import Run, end_run, is_main_process

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def finish(
    run: Run,
    recipe: AlignRecipe | RankRecipe,
    model: Trainee,
    outcome: dict[str, Any],
    in_words: str,
) -> dict[str, Any]:
    """Write what was trained and its report, which is returned.

    Args:
        run: whose folder it goes to; a checkpoint that is there is replaced.
        recipe: of either stage.
        model: trained.
        outcome: of its training, as `train` returns it, and further measures: JSON-able.
        in_words: what was measured, for the model card, Markdown.

    Raises:
        StorageError: the folder cannot be written.
    """
    trained = model.checkpoint()
    report = {
        "stage": recipe.stage,
        "checkpoint": str(run.checkpoint),
        "recipe_hash": recipe.hash,
        "residual": trained.residual,
        "score_residual": trained.score_residual,
        **outcome,
    }
    if is_main_process():
        # The same training is the same checkpoint, wherever it was and however long it took.
        own = {name: report[name] for name in report if name not in ("seconds", "checkpoint")}
        training = run.identity() | own
        card = (
            f"# A PE-Rank checkpoint\n\n{in_words}\n\nMade by `perank train {recipe.stage}`: "
            f"{report['steps']} of {report['planned']} steps, step {report['kept_step']} kept, "
            f"recipe {recipe.hash}; config.json has the recipe and names the data.\n"
        )
        if recipe.layout == "published":
            _save_published(run.checkpoint, trained, recipe.storage, training, card)
        else:
            _save_own(run.checkpoint, model, trained, recipe.storage, training, card)
        end_run(run, report)
    return report


def _save_own(
    folder: Path,
    model: Trainee,
    trained: Checkpoint,
    storage: Storage,
    training: dict[str, Any],
    card: str,
) -> None:
    assert trained.base_model is not None
    config = PerankConfig(
        base_model=_absolute(trained.folder, trained.base_model),
        base_revision=trained.base_revision,
        num_layers=trained.llm.num_hidden_layers,
        encoder=str(trained.encoder.folder or trained.encoder.name),
        encoder_pooling=trained.encoder.pooling,
        encoder_revision=trained.encoder.revision,
        embedding_size=trained.embedding_size,
        projector_type=trained.projector_type,
        prompt=trained.prompt,
        prompt_order=trained.prompt_order,
        query_token=trained.query_token,
        residual=trained.residual is not None,
        score_residual=trained.score_residual is not None,
        lora_scale=model.lora_scale,
        description=f"trained by stage {training['stage']} for {training['kept_step']} steps",
        training=training,
    )
    save_checkpoint(folder, config, _tensors(model, trained, getattr(torch, storage)), readme=card)


def _tensors(model: Trainee, trained: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """What differs from the base model, by names of our format; matrices in `dtype`."""
    tensors = {f"projector.{name}": value for name, value in trained.projector.items()}
    if trained.residual is not None:
        tensors["residual.t"], tensors["residual.b"] = map(torch.tensor, trained.residual)
    if trained.score_residual is not None:
        tensors["residual.s"] = torch.tensor(trained.score_residual)
    base, additions = TensorFiles(trained.tokenizer_folder), model.lora()
    for name, value in trained.body.items():
        # Additions are kept apart from what they are added to.
        value = (model.begun.body[name] if name in additions else value).float()
        if not torch.equal(value, base.get(f"model.{name}").float()):
            # Vectors are small, and norms multiply everything.
            tensors[f"body.{name}"] = value.to(dtype) if value.dim() > 1 else value
    for name, (a, b) in additions.items():
        tensors[f"lora_a.{name}"], tensors[f"lora_b.{name}"] = a, b
    return tensors


def _save_published(
    folder: Path, trained: Checkpoint, storage: Storage, training: dict[str, Any], card: str
) -> None:
    tensors = {f"model.{name}": value for name, value in trained.body.items()}
    tensors |= {f"model.projector.{name}": value for name, value in trained.projector.items()}
    if not trained.llm.tie_word_embeddings:
        tensors["lm_head.weight"] = load_head(trained)
    for name, value in (trained.encoder_weights or {}).items():
        tensors[ENCODER_PREFIX + name] = value
    stored = {
        name: value.to(getattr(torch, storage)).contiguous() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    config = trained.llm.to_dict() | {
        "model_type": f"embed_{trained.llm.model_type}",
        "encoder_name": str(trained.encoder.folder or trained.encoder.name),
        "encoder_pooling": trained.encoder.pooling,
        "embedding_size": trained.embedding_size,
        "projector_type": trained.projector_type,
        "dtype": storage,
    }
    with making_folder(folder, WRITE_REMEDY, replace=True) as scratch:
        for name, content in (("config", config), ("training", training)):
            text = json.dumps(content, indent=2) + "\n"
            (scratch / f"{name}.json").write_text(text, encoding="utf-8")
        (scratch / "README.md").write_text(card, encoding="utf-8")
        for file in (f for name in TOKENIZER_FILES for f in trained.tokenizer_folder.glob(name)):
            shutil.copy(file, scratch)
        save_torch_state_dict(stored, scratch)


def _absolute(folder: Path, name: str) -> str:
    """A base model's name; where it is a folder, by a path that holds from anywhere."""
    path = folder / Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name
