"""LoRA adapters of published checkpoints: in, an adapter's folder; out, an LLM with it merged.

`adapter_config.json` and `adapter_model.safetensors` or `.bin` are what the library peft writes,
and peft merges them. They are read here, so that an unsafe pickle is refused and no file is
looked for on the hub.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from perank_tasks.errors import CheckpointError
from perank_tasks.perank.checkpoint_files import TensorFiles, read_json

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory: its tensors by peft's names, read from `path`, and its settings."""

    path: Path
    config: Any
    tensors: dict[str, Tensor]

    @property
    def plain(self) -> dict[str, Tensor]:
        """The tensors that replace whole ones of the base model, by the latter's names.

        peft writes the embedding matrix whole where rows for added tokens make it longer.
        """
        return {
            plain_name(key): tensor
            for key, tensor in self.tensors.items()
            if key.endswith((".embed_tokens.weight", ".embed_tokens.base_layer.weight"))
        }


def read_adapter(folder: Path) -> Adapter | None:
    """The LoRA adapter in a folder, None where there is none.

    Raises:
        CheckpointError: it is damaged, unsafe, or of another kind than LoRA.
    """
    settings = folder / "adapter_config.json"
    if not settings.is_file():
        return None
    kind = read_json(settings).get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{settings}: peft_type is {kind!r}, expected 'LORA'. Merge the adapter with peft and "
            f"save the whole model"
        )
    files = TensorFiles(folder, ADAPTER_WEIGHTS)
    # Heavy, and only these checkpoints need it.
    from peft import LoraConfig

    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{settings} is no configuration of peft's: {error}") from error
    # peft would warn that the model in memory is not called so.
    config.base_model_name_or_path = None
    tensors = {name: files.get(name) for name in files.files}
    return Adapter(files.paths[0], config, tensors)


def merge_adapter(
    llm: PretrainedConfig, body: dict[str, Tensor], adapter: Adapter
) -> dict[str, Tensor]:
    """The body with the adapter merged into it, in the body's own dtypes.

    Args:
        llm: the LLM's configuration.
        body: tensors of its `LlamaModel` or `MistralModel`; changed in place.
        adapter: what to merge.

    Raises:
        CheckpointError: the adapter is not made for such an LLM.
    """
    from peft import get_peft_model, set_peft_model_state_dict

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(llm)
    # PE-Rank scores no vocabulary, but an adapter may change the head: it gets one to change,
    # of random weights and the adapter's size.
    heads = [
        value
        for key, value in adapter.tensors.items()
        if ".lm_head." in key and key.endswith(("lm_head.weight", "lora_B.weight"))
    ]
    rows = len(heads[0]) if heads else llm.vocab_size
    model.lm_head = torch.nn.Linear(llm.hidden_size, rows, bias=False)
    model.model.load_state_dict(body, assign=True)
    try:
        wrapped = get_peft_model(model, adapter.config)
        loaded: Any = set_peft_model_state_dict(wrapped, adapter.tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{adapter.path} does not fit the base model that adapter_config.json beside it "
            f"names: {reason}"
        ) from error
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    unknown = loaded.unexpected_keys
    if missing or unknown:
        raise CheckpointError(
            f"{adapter.path} does not fit adapter_config.json beside it: {len(missing)} tensors "
            f"are missing {missing[:2]}, {len(unknown)} are unknown {unknown[:2]}. "
            f"Fetch the checkpoint anew"
        )
    merged = wrapped.merge_and_unload().model.state_dict()
    return {name: merged[name] for name in body}


def plain_name(key: str) -> str:
    """What a tensor of a model wrapped by peft is called without peft."""
    return key.removeprefix("base_model.model.").replace(".base_layer.", ".")
