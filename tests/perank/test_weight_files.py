"""Weights as older tools and broken downloads leave them: shards, placeholders, halves."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models.embedders import find_sentence_transformer
from perank_tasks.perank import PERank
from perank_tasks.perank.checkpoint import load_checkpoint, load_tokenizer
from tests.perank.tiny import RunsCode
from tests.small import GOLDEN

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 4983508568\n"
WEB_PAGE = b"<!doctype html>\n<html><body>Sign in to continue</body></html>"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "checkpoint"))


def shard(folder: Path) -> None:
    """Save the weights anew as `save_pretrained(safe_serialization=False)` shards them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in some}, folder / file)
        places.update(dict.fromkeys(some, file))
    index = json.dumps({"metadata": {}, "weight_map": places})
    (folder / "pytorch_model.bin.index.json").write_text(index, encoding="utf-8")


def test_shards_of_pickles_are_loaded(checkpoint: Path, tmp_path: Path) -> None:
    whole = load_checkpoint(checkpoint, cache=tmp_path)
    shard(checkpoint)
    parts = load_checkpoint(checkpoint, cache=tmp_path)
    assert whole.body.keys() == parts.body.keys()
    assert all(torch.equal(whole.body[name], parts.body[name]) for name in whole.body)
    (checkpoint / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match="missing from the weights"):
        load_checkpoint(checkpoint, cache=tmp_path)


@pytest.mark.parametrize(("content", "word"), [(POINTER, "git lfs pull"), (WEB_PAGE, "web page")])
@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "model.safetensors", "config.json", "projector.bin"]
)
def test_a_placeholder_is_called_what_it_is(
    checkpoint: Path, tmp_path: Path, file: str, content: bytes, word: str
) -> None:
    if file == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    (checkpoint / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file} is .*{word}"):
        load_checkpoint(checkpoint, cache=tmp_path)


def test_a_tokenizers_placeholder_is_called_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint, cache=tmp_path)
    (checkpoint / "tokenizer.model").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is a Git LFS pointer"):
        load_tokenizer(loaded)


def test_an_embedders_placeholder_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(ConfigError, match=r"model\.safetensors is a Git LFS pointer"):
        find_sentence_transformer(str(tmp_path), cache=tmp_path)


def save_zip(path: Path) -> None:
    torch.save({"projector.weight": torch.ones(300, 100)}, path)


def save_legacy(path: Path) -> None:
    torch.save({"projector.weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [save_zip, save_legacy])
@pytest.mark.parametrize("size", [0, 100, 200, 5000])
def test_half_a_pickle_is_no_attack(
    checkpoint: Path, tmp_path: Path, save: Callable[[Path], None], size: int
) -> None:
    file = checkpoint / "projector.bin"
    save(file)
    file.write_bytes(file.read_bytes()[:size])
    if size == 5000 and save is save_legacy:
        pytest.skip("the file is shorter")
    with pytest.raises(CheckpointError, match=r"projector\.bin cannot be read.*anew") as failure:
        load_checkpoint(checkpoint, cache=tmp_path)
    assert "would run code" not in str(failure.value)


@pytest.mark.parametrize("content", [b"hello world\n" * 9, bytes(1000), bytes(range(256)) * 9])
def test_what_is_no_pickle_is_no_attack(checkpoint: Path, tmp_path: Path, content: bytes) -> None:
    (checkpoint / "projector.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"projector\.bin cannot be read"):
        load_checkpoint(checkpoint, cache=tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_would_run_code_is_refused_and_not_run(
    checkpoint: Path, tmp_path: Path, protocol: int
) -> None:
    trace = tmp_path / "trace"
    with (checkpoint / "projector.bin").open("wb") as file:
        pickle.dump({"projector.weight": RunsCode(trace)}, file, protocol=protocol)
    with pytest.raises(CheckpointError, match=r"projector\.bin"):
        load_checkpoint(checkpoint, cache=tmp_path)
    assert not trace.exists()


def test_more_than_tensors_is_called_that(checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"projector.weight": np.float64(1)}, checkpoint / "projector.bin")
    with pytest.raises(CheckpointError, match="more than tensors and would run code"):
        load_checkpoint(checkpoint, cache=tmp_path)


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}", "{{ raise_exception('no user may speak') }}", "{{ 1 + 'a' }}"],
)
def test_a_chat_template_that_fails_is_named(
    checkpoint: Path, tmp_path: Path, template: str
) -> None:
    settings = checkpoint / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8")) | {"chat_template": template}
    settings.write_text(json.dumps(config), encoding="utf-8")
    engine = PERank.from_pretrained(checkpoint, cache=tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match=r"checkpoint: its chat template fails: .*Mend"):
        engine.rerank("fleas", ["Fleas live for weeks.", "Cats sleep."])


def test_a_chat_template_without_a_system_message_ranks(checkpoint: Path, tmp_path: Path) -> None:
    """Mistral's refuses one, and every role that is not the other's turn."""
    settings = checkpoint / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    config["chat_template"] = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "[INST] {{ m.content }} [/INST]<think>{% endfor %}"
    )
    settings.write_text(json.dumps(config), encoding="utf-8")
    engine = PERank.from_pretrained(checkpoint, cache=tmp_path, device="cpu")
    result = engine.rerank("fleas", ["Fleas live for weeks.", "Cats sleep.", "Rice."])
    assert sorted(result.order) == [0, 1, 2]
