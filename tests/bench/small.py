"""A small checkpoint with a compact prompt, beside the golden one."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaTokenizer

from perank_tasks.perank.checkpoint import save_checkpoint
from perank_tasks.perank.checkpoint_config import PerankConfig
from perank_tasks.perank.prompt import COMPACT_V1
from tests.perank.tiny import HIDDEN_SIZE, body_tensors, llm_config
from tests.small import GOLDEN

ENCODER_SIZE = 32


def compact_checkpoint(folder: Path) -> Path:
    """A random tiny Llama in our own format, with the golden checkpoint's encoder."""
    base = folder.parent / f"{folder.name}-base"
    config = llm_config("llama")
    config.save_pretrained(base)
    LlamaTokenizer.from_pretrained(GOLDEN).save_pretrained(base)
    save_file(body_tensors(config, seed=5), base / "model.safetensors")
    own = PerankConfig(
        base_model=str(base),
        base_revision=None,
        num_layers=2,
        encoder=str(GOLDEN / "encoder"),
        encoder_pooling="mean",
        embedding_size=ENCODER_SIZE,
        projector_type="linear",
        prompt=COMPACT_V1.name,
    )
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "projector.weight": torch.randn(HIDDEN_SIZE, ENCODER_SIZE, generator=generator),
        "projector.bias": torch.zeros(HIDDEN_SIZE),
        "residual.t": torch.tensor(0.5),
        "residual.b": torch.tensor(0.25),
    }
    save_checkpoint(folder, own, tensors, readme="# tiny\n")
    return folder
