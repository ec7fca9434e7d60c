"""Checkpoints that hold only what a training changed: a projector, or a LoRA adapter.

The golden checkpoint is taken apart into a plain base model and such a part, and has to rank as
the reference did once it is put together again.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.perank import CandidateList, PERank, RankingOptions
from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.perank.checkpoint_config import summarize_checkpoint
from tests.perank.conftest import GOLDEN, REFERENCE
from tests.perank.tiny import RunsCode

EMBED_KEYS = ("encoder_name", "encoder_pooling", "embedding_size", "projector_type", "use_proj")
# The tokens <PLACEHOLDER> and <RANK>, which a training adds, are the golden vocabulary's last.
BASE_VOCABULARY = 800


def golden_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())
    return config


def golden_tensors() -> dict[str, Tensor]:
    return load_file(GOLDEN / "model.safetensors")


def write_base(folder: Path, change: Callable[[dict[str, Tensor]], None] | None = None) -> None:
    """The golden LLM as it was before PE-Rank: no projector, encoder, or added tokens."""
    folder.mkdir()
    config = {key: value for key, value in golden_config().items() if key not in EMBED_KEYS}
    config |= {"model_type": "mistral", "vocab_size": BASE_VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    kept = {
        name: tensor
        for name, tensor in golden_tensors().items()
        if not name.startswith(("model.projector.", "model.encoder."))
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        kept[name] = kept[name][:BASE_VOCABULARY].clone()
    if change is not None:
        change(kept)
    save_file(kept, folder / "model.safetensors")
    write_base_tokenizer(folder)


def write_base_tokenizer(folder: Path) -> None:
    shutil.copy(GOLDEN / "tokenizer.model", folder / "tokenizer.model")
    settings = json.loads((GOLDEN / "tokenizer_config.json").read_text())
    del settings["additional_special_tokens"]
    for added in ("800", "801"):
        del settings["added_tokens_decoder"][added]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_part(folder: Path, prefix: str = "", **settings: Any) -> None:
    """What stage 1 of the reference saves: its configuration, and the projector as a pickle."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(golden_config() | settings))
    shutil.copytree(GOLDEN / "encoder", folder / "encoder")
    projector = {
        prefix + name: tensor
        for name, tensor in golden_tensors().items()
        if name.startswith("model.projector.")
    }
    torch.save(projector, folder / "projector.bin")


def write_lora(folder: Path, *, pickled: bool = False, **lora: Any) -> Path:
    """A folder as the reference's LoRA training leaves it; with its base it makes the golden LLM.

    Not only the adapter: the final norm was trained as it is, in non_lora_trainables.bin.
    """
    base = folder.parent / f"{folder.name}-base"
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **lora},
        task_type="CAUSAL_LM",
    )
    plain = MistralForCausalLM(MistralConfig(**golden_config() | {"model_type": "mistral"}))
    plain.load_state_dict(golden_tensors(), strict=False)
    wrapped = peft.get_peft_model(plain, config)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    wrapped.save_pretrained(folder, save_embedding_layers="lm_head" in config.target_modules)
    adapter = load_file(folder / "adapter_model.safetensors")

    def take_out(tensors: dict[str, Tensor]) -> None:
        for key, low in adapter.items():
            if ".lora_A." in key and "lm_head" not in key:
                name = key.removeprefix("base_model.model.").replace(".lora_A.", ".")
                high = adapter[key.replace(".lora_A.", ".lora_B.")]
                tensors[name] -= 2.0 * high @ low
        tensors["model.norm.weight"] = torch.zeros_like(tensors["model.norm.weight"])

    write_base(base, take_out)
    write_part(folder, prefix="base_model.model.")
    norm = golden_tensors()["model.norm.weight"]
    trainables = {"base_model.model.model.norm.weight": norm}
    torch.save(trainables, folder / "non_lora_trainables.bin")
    if pickled:
        (folder / "adapter_model.safetensors").unlink()
        torch.save(adapter, folder / "adapter_model.bin")
    edit(folder / "adapter_config.json", base_model_name_or_path=f"../{base.name}")
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )


def assert_golden(folder: Path, requests: list[CandidateList]) -> None:
    """It has the reference's prompts, weights but for rounding, and rankings."""
    engine = PERank.from_pretrained(folder, cache=folder.parent, device="cpu")
    for case in REFERENCE:
        prompts = engine.prompts(RankingOptions())
        query = prompts.prepare(case["query"])
        prompt = prompts.build(query, min(20, len(case["candidates"])))
        assert prompt.input_ids == case["first_window_input_ids"]
    for name, tensor in load_checkpoint(folder, cache=folder.parent).body.items():
        expected = golden_tensors()[f"model.{name}"][: len(tensor)]
        assert torch.allclose(tensor, expected, atol=1e-6), name
    for case, request in zip(REFERENCE, requests, strict=True):
        result = engine.rerank(request.query, embeddings=request.embeddings)
        assert [request.passage_ids[position] for position in result.order] == case["ranking"]


def refused(folder: Path, *parts: str, error: type[Exception] = CheckpointError) -> None:
    with pytest.raises(error) as caught:
        load_checkpoint(folder, cache=folder.parent)
    for part in parts:
        assert part in str(caught.value)


def test_a_projector_in_the_base_models_folder(
    tmp_path: Path, golden_requests: list[CandidateList]
) -> None:
    write_base(tmp_path / "ranker")
    write_part(tmp_path / "ranker")
    assert_golden(tmp_path / "ranker", golden_requests)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_projector_that_names_its_base_model(
    tmp_path: Path, golden_requests: list[CandidateList], absolute: bool
) -> None:
    write_base(tmp_path / "base")
    name = str(tmp_path / "base") if absolute else "../base"
    write_part(tmp_path / "ranker", _name_or_path=name)
    assert_golden(tmp_path / "ranker", golden_requests)


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"pickled": True},
        {"use_rslora": True, "lora_alpha": 4},  # 4 / sqrt(4), again a factor of two
        {"target_modules": r"model\.layers\.1\.(self_attn|mlp)\..*_proj"},
        {"target_modules": ["o_proj", "lm_head"]},
    ],
    ids=["safetensors", "pickle", "rslora", "pattern", "head"],
)
def test_a_lora_adapter_is_merged(
    tmp_path: Path, golden_requests: list[CandidateList], lora: dict[str, Any]
) -> None:
    folder = write_lora(tmp_path / "ranker", **lora)
    base = load_file(tmp_path / "ranker-base" / "model.safetensors")
    changed = [
        name for name, tensor in base.items() if not torch.equal(tensor, golden_part(name, tensor))
    ]
    assert len(changed) >= 3
    assert_golden(folder, golden_requests)


def golden_part(name: str, like: Tensor) -> Tensor:
    return golden_tensors()[name][: len(like)]


def test_an_adapter_that_brings_its_longer_embedding_matrix(tmp_path: Path) -> None:
    """peft saves the whole matrix where tokens were added to the vocabulary."""
    folder = write_lora(tmp_path / "ranker")
    path = folder / "adapter_model.safetensors"
    matrix = golden_tensors()["model.embed_tokens.weight"]
    assert len(matrix) == BASE_VOCABULARY + 2
    save_file(load_file(path) | {"base_model.model.model.embed_tokens.weight": matrix}, path)
    assert torch.equal(load_checkpoint(folder, cache=tmp_path).body["embed_tokens.weight"], matrix)


def test_a_part_is_summarised_without_loading_and_hashed_with_its_base(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "ranker")
    summary = summarize_checkpoint(folder, cache=tmp_path)
    loaded = vars(load_checkpoint(folder, cache=tmp_path))
    assert vars(summary) == {key: loaded[key] for key in vars(summary)}
    assert Path(summary.base_model or "") == (tmp_path / "ranker-base").resolve()
    assert summary.encoder.folder == (folder / "encoder").resolve()
    edit(tmp_path / "ranker-base" / "config.json", note="changed")
    assert summarize_checkpoint(folder, cache=tmp_path).hash != summary.hash


def test_a_part_embeds_with_the_encoder_it_names(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "ranker")
    engine = PERank.from_pretrained(folder, cache=tmp_path, device="cpu")
    assert engine.encode(["how long does a flea live"]).shape == (1, 32)


@pytest.mark.parametrize("name", ["projector.bin", "adapter_model.bin", "non_lora_trainables.bin"])
def test_no_pickle_runs_code(tmp_path: Path, name: str) -> None:
    folder = write_lora(tmp_path / "ranker", pickled=True)
    trace = tmp_path / "trace"
    torch.save({"base_model.model.model.norm.weight": RunsCode(trace)}, folder / name)
    refused(folder, name, "would run code")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"peft_type": "IA3"}, ["adapter_config.json", "'IA3'", "'LORA'"]),
        ({"use_dora": True, "megatron_config": {}, "r": 0}, ["adapter_config.json", "r"]),
        ({"base_model_name_or_path": None}, ["adapter_config.json", "base_model_name_or_path"]),
        ({"r": 8}, ["adapter_model.safetensors", "size mismatch"]),
        ({"target_modules": ["q_proj"]}, ["unknown", "v_proj"]),
        ({"target_modules": ["q_proj", "k_proj", "v_proj"]}, ["missing", "k_proj"]),
        ({"target_modules": ["query"]}, ["adapter_config.json", "query"]),
    ],
)
def test_an_adapter_that_does_not_fit(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    folder = write_lora(tmp_path / "ranker")
    edit(folder / "adapter_config.json", **changes)
    refused(folder, *parts)


def test_an_adapter_without_weights(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "ranker")
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, "adapter_model.safetensors", "adapter_model.bin")


def test_a_base_model_that_is_not_there(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "ranker")
    shutil.rmtree(tmp_path / "ranker-base")
    refused(
        folder,
        "../ranker-base",
        "adapter_config.json",
        "base_model_name_or_path",
        error=ConfigError,
    )
    write_part(tmp_path / "projector", _name_or_path="./checkpoints/of-somebody")
    refused(
        tmp_path / "projector",
        "./checkpoints/of-somebody",
        "config.json",
        "_name_or_path",
        error=ConfigError,
    )


def test_a_base_model_of_another_size(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    write_part(tmp_path / "ranker", _name_or_path="../base", intermediate_size=96)
    refused(tmp_path / "ranker", "mlp.gate_proj.weight", "(128, 64)", "(96, 64)")


def test_a_projector_alone_names_no_base(tmp_path: Path) -> None:
    write_part(tmp_path / "ranker")
    refused(tmp_path / "ranker", "config.json", "_name_or_path")
