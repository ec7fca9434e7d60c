"""Checkpoints: both layouts load; what does not fit is refused with file, found and expected."""

import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor

from perank_tasks.config import DEFAULT_CHECKPOINT as NAME
from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.perank import PERank, RankingOptions
from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.perank.checkpoint_config import (
    CheckpointSummary,
    shipped_checkpoints,
    summarize_checkpoint,
)
from perank_tasks.perank.prompt import PASSAGE_TOKEN
from tests.perank.conftest import GOLDEN
from tests.perank.tiny import (
    EMBEDDING_SIZE,
    HIDDEN_SIZE,
    RunsCode,
    edit_config,
    edit_weights,
    projector_tensors,
    write_own,
    write_published,
)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write_published(tmp_path / "ranker")


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, cache=folder.parent)
    for part in parts:
        assert part in str(caught.value)


def test_shards_load_as_one_file_does(published: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(published, sharded)
    tensors = load_file(published / "model.safetensors")
    names = sorted(tensors)
    for shard in range(3):
        part = {name: tensors[name] for name in names[shard::3]}
        save_file(part, sharded / f"model-{shard + 1:05}-of-00003.safetensors")
    (sharded / "model.safetensors").unlink()
    one, many = (load_checkpoint(path, cache=tmp_path) for path in (published, sharded))
    assert all(torch.equal(one.body[name], many.body[name]) for name in one.body)
    assert torch.equal(one.projector["weight"], many.projector["weight"])

    (sharded / "model-00002-of-00003.safetensors").unlink()
    refused(sharded, "tensor 'model.", "missing", "download may be incomplete")


def test_a_projector_beside_the_weights_wins(published: Path, tmp_path: Path) -> None:
    weight = torch.ones(HIDDEN_SIZE, EMBEDDING_SIZE)
    torch.save({"model.projector.weight": weight}, published / "projector.bin")
    assert torch.equal(load_checkpoint(published, cache=tmp_path).projector["weight"], weight)


def test_a_pickle_that_runs_code_is_refused_and_not_run(published: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"projector.weight": RunsCode(trace)}, published / "projector.bin")
    refused(published, "projector.bin", "would run code", "safetensors")
    with (published / "projector.bin").open("wb") as file:
        pickle.dump({"projector.weight": RunsCode(trace)}, file, protocol=2)
    refused(published, "projector.bin")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("family", "rope"), [("mistral", {"rope_theta": 1e6}), ("llama", {"rope_theta": 5e5})]
)
def test_the_llms_own_settings_are_kept(tmp_path: Path, family: str, rope: dict[str, Any]) -> None:
    """Mistral-7B-Instruct-v0.2 has a rope_theta of 1e6, at the top level as in transformers 4."""
    folder = write_published(tmp_path / "ranker", family)
    edit_config(folder, rope_parameters=None, rms_norm_eps=1e-5, **rope)
    engine = PERank.from_pretrained(folder, cache=tmp_path, device="cpu")
    assert engine.model.llm.epsilon == 1e-5
    frequencies = engine.model.llm.rotary.inv_freq
    assert frequencies[1].item() == pytest.approx(rope["rope_theta"] ** (-2 / 8), rel=1e-5)


def test_llama_3s_rope_scaling_is_kept(tmp_path: Path) -> None:
    """As transformers 4 wrote it: low frequencies are divided by `factor`, high ones stay."""
    folder = write_published(tmp_path / "ranker", "llama")
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    edit_config(folder, rope_parameters=None, rope_theta=5e5, rope_scaling=scaling)
    engine = PERank.from_pretrained(folder, cache=tmp_path, device="cpu")
    plain = [5e5 ** (-i / 4) for i in range(4)]
    wavelengths = [2 * math.pi / frequency for frequency in plain]
    # Between 512 / 4 and 512 / 1 there is a smooth passage; these frequencies lie outside.
    assert [length < 128 for length in wavelengths] == [True, False, False, False]
    assert [length > 512 for length in wavelengths] == [False, False, True, True]
    found = engine.model.llm.rotary.inv_freq.tolist()
    assert found[0] == pytest.approx(plain[0])
    assert found[2:] == pytest.approx([frequency / 8 for frequency in plain[2:]])
    assert plain[1] / 8 < found[1] < plain[1]


def test_a_tokenizer_model_alone_is_a_tokenizer(published: Path, tmp_path: Path) -> None:
    """Nothing but SentencePiece's file: the reference's template, and tokens added in memory."""
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (published / name).unlink()
    engine = PERank.from_pretrained(published, cache=tmp_path, device="cpu")
    prompts = engine.prompts(RankingOptions())
    prompt = prompts.build(prompts.prepare("what do fleas eat"), 3)

    pieces = SentencePieceProcessor(model_file=str(GOLDEN / "tokenizer.model"))
    message = prompts.message("what do fleas eat", 3).strip()
    segments = f"[INST] {message} [/INST]".split(PASSAGE_TOKEN)
    expected = [pieces.bos_id(), *pieces.encode(segments[0])]
    slots = []
    for segment in segments[1:]:
        slots.append(len(expected))
        expected += [pieces.vocab_size(), *pieces.encode(segment)]
    assert prompt.input_ids == expected
    assert prompt.passage_slots == slots


def test_a_hub_ids_revision_is_the_one_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a cache as huggingface_hub keeps it, without network."""
    repository = tmp_path / "hub" / "models--somebody--ranker"
    commits = {"main": "a" * 40, "v2": "b" * 40}
    for number, (branch, commit) in enumerate(commits.items()):
        write_published(repository / "snapshots" / commit, seed=number)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    for revision, commit in [(None, "a"), ("main", "a"), ("v2", "b"), ("b" * 40, "b")]:
        loaded = load_checkpoint("somebody/ranker", cache=tmp_path, revision=revision)
        expected = load_file(repository / "snapshots" / (commit * 40) / "model.safetensors")
        assert loaded.revision == commit * 40
        assert torch.equal(loaded.projector["weight"], expected["model.projector.weight"])
        summary = summarize_checkpoint("somebody/ranker", cache=tmp_path, revision=revision)
        assert (summary.revision, summary.hash) == (loaded.revision, loaded.hash)
    with pytest.raises(ConfigError, match="somebody/ranker"):
        load_checkpoint("somebody/ranker", cache=tmp_path, revision="v3")


def test_a_folder_has_no_revisions(published: Path, tmp_path: Path) -> None:
    for name in (published, NAME):
        with pytest.raises(ConfigError, match="only a hub id has revisions"):
            load_checkpoint(name, cache=tmp_path, revision="main")


def test_missing_weights_are_named(published: Path) -> None:
    edit_weights(published, drop="model.layers.1.mlp.up_proj.weight")
    refused(published, "model.layers.1.mlp.up_proj.weight", "missing", "(64, 32)")


def test_no_weights_at_all(published: Path) -> None:
    (published / "model.safetensors").unlink()
    refused(published, "no weights", "model.safetensors")


def test_cut_off_weights(published: Path) -> None:
    path = published / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused(published, "model.safetensors", "cannot be read")


def test_a_projector_of_another_shape(published: Path) -> None:
    edit_weights(published, **{"model.projector.weight": torch.zeros(HIDDEN_SIZE, 99)})
    refused(
        published, "model.safetensors", "model.projector.weight", "(32, 99)", "(32, 24)", "config"
    )


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "bert"}, ["model_type", "'bert'", "embed_mistral"]),
        ({"model_type": None}, ["model_type", "None"]),
        ({"embedding_size": 7}, ["model.projector.weight", "(32, 24)", "(32, 7)"]),
        ({"embedding_size": "24"}, ["embedding_size", "'24'", "int"]),
        ({"embedding_size": -24}, ["embedding_size", "-24"]),
        ({"model_type": ["mistral"]}, ["model_type", "['mistral']"]),
        ({"num_hidden_layers": 0}, ["config.json", "num_hidden_layers", "0"]),
        ({"num_hidden_layers": "2"}, ["config.json", "num_hidden_layers", "'2'"]),
        ({"num_key_value_heads": 0}, ["config.json", "ZeroDivisionError"]),
        ({"head_dim": 7}, ["config.json", "head_dim"]),
        ({"hidden_act": "relu"}, ["config.json", "hidden_act", "'relu'", "silu"]),
        ({"hidden_act": "swoosh"}, ["config.json", "hidden_act", "'swoosh'", "silu"]),
        ({"rope_parameters": {"rope_type": "spiral"}}, ["config.json", "spiral"]),
        ({"projector_type": "conv"}, ["projector_type", "'conv'", "mlpNx_gelu"]),
        ({"projector_type": "identity"}, ["identity", "32", "24"]),
        ({"projector_type": "mlp2x_gelu"}, ["model.projector.0.", "missing"]),
        ({"encoder_pooling": "max"}, ["encoder_pooling", "'max'", "last_token"]),
        ({"encoder_name": None}, ["encoder_name"]),
    ],
)
def test_a_configuration_that_does_not_fit(
    published: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    edit_config(published, **changes)
    refused(published, *parts)


def test_a_projector_with_more_layers_than_its_type(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "ranker", projector="mlp2x_gelu")
    edit_config(folder, projector_type="mlp1x_gelu")
    refused(folder, "mlp1x_gelu", "config.json", "model.projector.2.weight")


def test_a_projector_over_one_of_another_type(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "ranker", projector="mlp2x_gelu")
    edit_config(folder, projector_type="linear")
    linear = projector_tensors("linear", "model.projector.", seed=1)
    torch.save(linear, folder / "projector.bin")
    found = load_checkpoint(folder, cache=tmp_path).projector
    assert found.keys() == {"weight", "bias"}
    assert torch.equal(found["weight"], linear["model.projector.weight"])


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_no_json_object(published: Path, text: str) -> None:
    (published / "config.json").write_text(text)
    refused(published, "config.json")


def test_a_checkpoint_without_tokenizer(published: Path, tmp_path: Path) -> None:
    (published / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        PERank.from_pretrained(published, cache=tmp_path)


@pytest.mark.parametrize("content", [b"nothing of the kind", b"", b"xx"])
def test_a_damaged_tokenizer(published: Path, tmp_path: Path, content: bytes) -> None:
    """SentencePiece takes the last two for models without a token."""
    (published / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        PERank.from_pretrained(published, cache=tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_settings_of_a_tokenizer(published: Path, tmp_path: Path, text: str) -> None:
    (published / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        PERank.from_pretrained(published, cache=tmp_path)


def test_our_format_keeps_the_first_layers_and_adds_to_them(tmp_path: Path) -> None:
    up, norm = "layers.0.mlp.up_proj.weight", "norm.weight"
    low, high = torch.randn(2, HIDDEN_SIZE), torch.randn(64, 2)
    extra = {
        f"lora_a.{up}": low,
        f"lora_b.{up}": high,
        f"body.{norm}": torch.full((HIDDEN_SIZE,), 3.0),
    }
    folder = write_own(tmp_path / "ranker", extra=extra, lora_scale=0.5)
    checkpoint = load_checkpoint(folder, cache=tmp_path)
    base = load_file(tmp_path / "ranker-base" / "model.safetensors")
    assert checkpoint.llm.num_hidden_layers == 2
    assert not any(name.startswith("layers.2.") for name in checkpoint.body)
    assert torch.allclose(checkpoint.body[up], base[f"model.{up}"] + 0.5 * high @ low)
    assert torch.equal(checkpoint.body[norm], torch.full((HIDDEN_SIZE,), 3.0))
    assert checkpoint.residual == (0.5, 0.25)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"format_version": 2}, ["format_version", "2", "newer"]),
        ({"num_layers": 4}, ["num_layers", "4", "3"]),
        ({"num_layers": 0}, ["num_layers"]),
        ({"num_layers": None}, ["num_layers"]),
        ({"prompt": "chatty-v9"}, ["prompt", "chatty-v9", "compact-v1"]),
        ({"prompt": "released-v1"}, ["query_token"]),
        ({"colour": "red"}, ["colour"]),
        ({"query_token": "yes"}, ["query_token", "bool"]),
        ({"prompt_order": "alphabetical"}, ["prompt_order", "alphabetical", "given", "residual"]),
        ({"prompt_order": "residual", "residual": False}, ["prompt_order", "residual", "false"]),
        ({"embedding_size": 25}, ["projector.weight", "(32, 24)", "(32, 25)"]),
    ],
)
def test_our_format_is_checked(tmp_path: Path, changes: dict[str, Any], parts: list[str]) -> None:
    folder = write_own(tmp_path / "ranker")
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError) as caught:
        PERank.from_pretrained(folder, cache=tmp_path)
    for part in parts:
        assert part in str(caught.value)


def test_our_format_without_its_residual(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "ranker")
    edit_weights(folder, drop="residual.t")
    refused(folder, "residual.t", "missing")


def test_an_addition_to_a_layer_that_is_cut_off(tmp_path: Path) -> None:
    extra = {"body.layers.2.mlp.up_proj.weight": torch.zeros(64, HIDDEN_SIZE)}
    refused(write_own(tmp_path / "ranker", extra=extra), "layers.2.mlp.up_proj.weight")


def test_another_base_model_than_the_projectors(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "ranker")
    edit_config(folder, base_model="all-minilm-l6-v2", base_revision="0" * 64)
    refused(folder, "revision", "0" * 64)


def test_the_hash_names_the_content(published: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    first = load_checkpoint(published, cache=tmp_path).hash
    (copy / "README.md").write_text("Prose changes nothing.")
    assert load_checkpoint(copy, cache=tmp_path).hash == first
    edit_weights(copy, **{"model.projector.bias": torch.ones(HIDDEN_SIZE)})
    assert load_checkpoint(copy, cache=tmp_path).hash != first


@pytest.mark.parametrize("write", [write_published, write_own])
def test_a_summary_says_the_same_without_loading(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "ranker")
    summary = summarize_checkpoint(folder, cache=tmp_path)
    loaded = vars(load_checkpoint(folder, cache=tmp_path))
    assert type(summary) is CheckpointSummary
    assert vars(summary) == {key: loaded[key] for key in vars(summary)}


@pytest.mark.parametrize("name", [NAME, str(GOLDEN)])
def test_a_summary_neither_imports_torch_nor_unpacks_a_model(tmp_path: Path, name: str) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from perank_tasks.perank.checkpoint_config import summarize_checkpoint\n"
        "print(summarize_checkpoint(sys.argv[1], cache=Path(sys.argv[2])).hash)\n"
        "print(sorted({'torch', 'transformers', 'sentencepiece'} & set(sys.modules)))"
    )
    cache = tmp_path / "cache"
    run = subprocess.run(
        [sys.executable, "-c", script, name, cache], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [summarize_checkpoint(name, cache=cache).hash, "[]"]
    assert not cache.exists()


def test_an_unknown_name_offers_close_ones(tmp_path: Path) -> None:
    known = shipped_checkpoints()[0]
    with pytest.raises(ConfigError, match=known):
        PERank.from_pretrained(known[:-2] + "X", cache=tmp_path)
