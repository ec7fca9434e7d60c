"""Models by name: the embedded ones resolve without a network, unknown ones are refused."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from perank_tasks.errors import ConfigError, StorageError
from perank_tasks.models import find as models
from perank_tasks.models.find import BGE, LLM, MINILM, resolve_model


def test_the_embedder_is_used_in_place(tmp_path: Path) -> None:
    model = resolve_model(MINILM, cache=tmp_path)
    assert (model.folder / "modules.json").is_file()
    assert model.revision == models.file_sha256(model.folder / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_llm_is_unpacked_once(unpacked: Path) -> None:
    first = resolve_model(LLM, cache=unpacked)
    assert first.folder.parent == unpacked / "models"
    assert first.revision is not None
    assert first.revision[:16] in first.folder.name
    assert not list(first.folder.parent.glob(".*"))  # nothing is left of its making

    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(LLM, cache=unpacked) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written

    tokenizer = AutoTokenizer.from_pretrained(first.folder)
    chat = [{"role": "user", "content": "The capital of France is which city? One word."}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = AutoModelForCausalLM.from_pretrained(first.folder, dtype=torch.float32)
    answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])
    with safe_open(first.folder / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (no mapping)


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    model = resolve_model(str(tmp_path), cache=tmp_path / "cache")
    assert (model.folder, model.revision) == (tmp_path, None)


@pytest.mark.parametrize(
    ("name", "close"),
    [("all-minilm-l6", MINILM), ("SmolLM2-135M", LLM), ("smollm2-135-instruct", LLM)],
)
def test_an_unknown_name_offers_close_ones(tmp_path: Path, name: str, close: str) -> None:
    with pytest.raises(ConfigError, match=rf"Did you mean .*{close}"):
        resolve_model(name, cache=tmp_path)


def test_a_name_like_nothing_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"Known names: {MINILM}, {BGE}, {LLM}"):
        resolve_model("zzz", cache=tmp_path)


def test_a_hub_id_without_network_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"hf download nobody/nothing --local-dir DIR"):
        resolve_model("nobody/nothing", cache=tmp_path)


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match=r"another cache folder"):
        resolve_model(LLM, cache=tmp_path / "cache")
