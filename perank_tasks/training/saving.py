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

from perank_tasks.errors import ConfigError
from perank_tasks.perank.checkpoint import (
    WRITE_REMEDY,
    Checkpoint,
    load_head,
    save_checkpoint,
)
from perank_tasks.perank.checkpoint_config import ENCODER_PREFIX, PerankConfig
from perank_tasks.perank.checkpoint_files import TensorFiles
from perank_tasks.support.files import making_folder
from perank_tasks.training.model import Weights
from perank_tasks.training.recipe import Layout, Storage

DTYPES: dict[Storage, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
TOKENIZER_FILES = (
    *("tokenizer.model", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)


def check_layout(start: Checkpoint, layout: Layout) -> None:
    """Refuse, before anything is trained, a layout that a start cannot be saved in.

    Raises:
        ConfigError: ours, of a checkpoint that is no addition to a base model.
    """
    if layout == "perank" and (start.layout == "published" or start.base_model is None):
        raise ConfigError(
            f"{start.folder} is a checkpoint of the published layout, and what is trained from it "
            f"can only be saved as one: set layout=published (prompt=released-v1, "
            f"query_token=false, residual=false)"
        )


def save_trained(
    folder: Path,
    start: Checkpoint,
    weights: Weights,
    *,
    layout: Layout,
    storage: Storage,
    description: str,
    training: dict[str, Any],
    readme: str,
) -> None:
    """Write what was trained from `start`; a folder that is there is replaced.

    Args:
        folder: where it goes.
        start: what training began with.
        weights: what it came to.
        layout, storage: as in the recipe.
        description: one line for config.json; our format only.
        training: how it was made, for people: JSON-able.
        readme: the model card.

    Raises:
        StorageError: the folder cannot be written.
    """
    if layout == "published":
        _save_published(folder, start, weights, storage, training, readme)
        return
    assert start.base_model is not None
    config = PerankConfig(
        base_model=_absolute(start.folder, start.base_model),
        base_revision=start.base_revision,
        num_layers=start.llm.num_hidden_layers,
        encoder=str(start.encoder.folder or start.encoder.name),
        encoder_pooling=start.encoder.pooling,
        encoder_revision=start.encoder.revision,
        embedding_size=start.embedding_size,
        projector_type=start.projector_type,
        prompt=start.prompt,
        prompt_order=start.prompt_order,
        query_token=start.query_token,
        residual=weights.residual is not None,
        score_residual=weights.score_residual is not None,
        lora_scale=weights.lora_scale,
        description=description,
        training=training,
    )
    save_checkpoint(folder, config, _tensors(start, weights, DTYPES[storage]), readme=readme)


def _tensors(start: Checkpoint, weights: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """What differs from the base model, by names of our format; matrices in `dtype`."""
    tensors = {f"projector.{name}": value for name, value in weights.projector.items()}
    if weights.residual is not None:
        tensors["residual.t"], tensors["residual.b"] = map(torch.tensor, weights.residual)
    if weights.score_residual is not None:
        tensors["residual.s"] = torch.tensor(weights.score_residual)
    base = TensorFiles(start.tokenizer_folder)
    for name, value in weights.frozen_body.items():
        if not torch.equal(value, base.get(f"model.{name}").float()):
            # Vectors are small, and norms multiply everything.
            tensors[f"body.{name}"] = value.to(dtype) if value.dim() > 1 else value.float()
    for name, (a, b) in weights.lora.items():
        tensors[f"lora_a.{name}"], tensors[f"lora_b.{name}"] = a, b
    return tensors


def _save_published(
    folder: Path,
    start: Checkpoint,
    weights: Weights,
    storage: Storage,
    training: dict[str, Any],
    readme: str,
) -> None:
    tensors = {f"model.{name}": value for name, value in weights.body.items()}
    tensors |= {f"model.projector.{name}": value for name, value in weights.projector.items()}
    if not start.llm.tie_word_embeddings:
        tensors["lm_head.weight"] = load_head(start)
    for name, value in (start.encoder_weights or {}).items():
        tensors[ENCODER_PREFIX + name] = value
    config = start.llm.to_dict() | {
        "model_type": f"embed_{start.llm.model_type}",
        "encoder_name": str(start.encoder.folder or start.encoder.name),
        "encoder_pooling": start.encoder.pooling,
        "embedding_size": start.embedding_size,
        "projector_type": start.projector_type,
        "dtype": storage,
    }
    with making_folder(folder, WRITE_REMEDY, replace=True) as scratch:
        (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (scratch / "training.json").write_text(json.dumps(training, indent=2) + "\n")
        (scratch / "README.md").write_text(readme)
        for name in TOKENIZER_FILES:
            if (start.tokenizer_folder / name).is_file():
                shutil.copy(start.tokenizer_folder / name, scratch / name)
        save_torch_state_dict(_stored(tensors, DTYPES[storage]), scratch)


def _stored(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: value.to(dtype).contiguous() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def _absolute(folder: Path, name: str) -> str:
    """A base model's name; where it is a folder, by a path that holds from anywhere."""
    path = folder / Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name
