"""Random tiny checkpoints on disk, in both layouts, with the golden checkpoint's tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, LlamaTokenizer, MistralConfig, MistralModel

from perank_tasks.perank.checkpoint import save_checkpoint
from perank_tasks.perank.checkpoint_config import PerankConfig
from perank_tasks.perank.model import projector_shapes
from tests.perank.conftest import GOLDEN

EMBEDDING_SIZE = 24
HIDDEN_SIZE = 32
FAMILIES = {"llama": (LlamaConfig, LlamaModel), "mistral": (MistralConfig, MistralModel)}


def llm_config(family: str, layers: int = 2) -> Any:
    return FAMILIES[family][0](
        vocab_size=802,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.3,
    )


def body_tensors(config: Any, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = FAMILIES[config.model_type][1](config)
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def projector_tensors(kind: str, prefix: str, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = projector_shapes(kind, EMBEDDING_SIZE, HIDDEN_SIZE)
    return {
        prefix + name: torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }


def write_published(
    folder: Path, family: str = "mistral", projector: str = "linear", seed: int = 0
) -> Path:
    """A checkpoint of the published layout, its encoder known by name only."""
    folder.mkdir(parents=True)
    config = llm_config(family)
    settings = config.to_dict() | {
        "model_type": f"embed_{family}",
        "encoder_name": "somebody/an-encoder",
        "encoder_pooling": "mean",
        "embedding_size": EMBEDDING_SIZE,
        "projector_type": projector,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(GOLDEN / name, folder / name)
    shutil.copy(GOLDEN / "added_tokens.json", folder / "added_tokens.json")
    tensors = body_tensors(config, seed) | projector_tensors(projector, "model.projector.", seed)
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_own(
    folder: Path,
    family: str = "llama",
    seed: int = 0,
    extra: dict[str, Tensor] | None = None,
    **settings: Any,
) -> Path:
    """A checkpoint of our own format beside a three-layer base model, of which it keeps two."""
    base = folder.parent / f"{folder.name}-base"
    config = llm_config(family, layers=3)
    config.save_pretrained(base)
    LlamaTokenizer.from_pretrained(GOLDEN).save_pretrained(base)
    save_file(body_tensors(config, seed), base / "model.safetensors")
    own = PerankConfig(
        **{
            "base_model": f"../{base.name}",
            "base_revision": None,
            "num_layers": 2,
            "encoder": "all-minilm-l6-v2",
            "encoder_pooling": "mean",
            "embedding_size": EMBEDDING_SIZE,
            "projector_type": "linear",
            **settings,
        }
    )
    tensors = projector_tensors(own.projector_type, "projector.", seed)
    tensors |= {"residual.t": torch.tensor(0.5), "residual.b": torch.tensor(0.25)}
    save_checkpoint(folder, own, tensors | (extra or {}), readme="# tiny\n")
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change settings; None takes one away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    for key in [key for key, value in changes.items() if value is None]:
        del config[key]
    path.write_text(json.dumps(config))


def edit_weights(folder: Path, drop: str = "", **changes: Tensor) -> None:
    tensors = load_file(folder / "model.safetensors") | changes
    tensors.pop(drop, None)
    save_file(tensors, folder / "model.safetensors")


class RunsCode:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))
