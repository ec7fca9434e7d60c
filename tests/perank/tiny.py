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
from perank_tasks.perank.projector import projector_shapes
from tests.perank.conftest import GOLDEN

EMBEDDING_SIZE = 24
HIDDEN_SIZE = 32
FAMILIES = {"llama": (LlamaConfig, LlamaModel), "mistral": (MistralConfig, MistralModel)}


def llm_config(family: str, layers: int = 2, **changes: Any) -> Any:
    settings = {
        "vocab_size": 802,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.3,
    }
    return FAMILIES[family][0](**settings | changes)


def body_tensors(config: Any, seed: int) -> dict[str, Tensor]:
    """Weights without head, or with one where it is not the embedding matrix."""
    torch.manual_seed(seed)
    model = FAMILIES[config.model_type][1](config)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if name.endswith((".bias", "norm.weight")):  # drawn as 0 and 1
            tensors[name] = tensor + torch.randn_like(tensor) / 4
    if not config.tie_word_embeddings:
        tensors["lm_head.weight"] = torch.randn(config.vocab_size, config.hidden_size)
    return tensors


def projector_tensors(
    kind: str, prefix: str, seed: int, embedding_size: int = EMBEDDING_SIZE
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = projector_shapes(kind, embedding_size, HIDDEN_SIZE)
    return {
        prefix + name: torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }


def write_published(
    folder: Path,
    family: str = "mistral",
    projector: str = "linear",
    seed: int = 0,
    embedding_size: int = EMBEDDING_SIZE,
    rope: dict[str, Any] | None = None,
    **llm: Any,
) -> Path:
    """A checkpoint of the published layout, its encoder known by name only.

    `rope` are rotary settings as transformers 4 wrote them.
    """
    folder.mkdir(parents=True)
    config = llm_config(family, **llm)
    settings = config.to_dict() | {
        "model_type": f"embed_{family}",
        "encoder_name": "somebody/an-encoder",
        "encoder_pooling": "mean",
        "embedding_size": embedding_size,
        "projector_type": projector,
    }
    if rope is not None:
        del settings["rope_parameters"]
        settings |= rope
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(GOLDEN / name, folder / name)
    shutil.copy(GOLDEN / "added_tokens.json", folder / "added_tokens.json")
    tensors = body_tensors(config, seed)
    tensors |= projector_tensors(projector, "model.projector.", seed, embedding_size)
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_own(
    folder: Path,
    family: str = "llama",
    seed: int = 0,
    extra: dict[str, Tensor] | None = None,
    llm: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A checkpoint of our own format beside a three-layer base model, of which it keeps two."""
    base = folder.parent / f"{folder.name}-base"
    config = llm_config(family, layers=3, **llm or {})
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
    tensors = projector_tensors(own.projector_type, "projector.", seed, own.embedding_size)
    tensors |= {"residual.t": torch.tensor(0.5), "residual.b": torch.tensor(0.25)}
    tensors |= {"residual.s": torch.tensor(0.75)} if own.score_residual else {}
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
