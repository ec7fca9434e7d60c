"""`listwise-text`: small LLMs made on the spot, against `perank` over the same LLM."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models.find import content_hash
from perank_tasks.perank import PERank
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models, Ranker
from perank_tasks.support.lists import CandidateList
from tests.perank.tiny import edit_weights, write_own, write_published

LONG = "word " * 400


def models(tmp_path: Path) -> Models:
    return Models(cache=tmp_path, local=lambda name: name, threads=1)


def ranker(tmp_path: Path, name: str = "listwise-text", **options: Any) -> Ranker:
    return RANKERS[name].parse(options).load(models(tmp_path))


def candidates(number: int, length: int = 9) -> CandidateList:
    texts = [f"passage {i} of {number} [3] </s>" for i in range(length)]
    texts[-1] = LONG
    return CandidateList(
        f"q{number}", f"question {number}", [f"d{i}" for i in range(length)], texts=texts
    )


def plain_llm(published: Path, family: str) -> Path:
    """A published checkpoint's LLM, as its makers would publish it."""
    folder = published.with_name(f"{published.name}-llm")
    shutil.copytree(published, folder)
    settings = json.loads((folder / "config.json").read_text())
    settings = {key: value for key, value in settings.items() if "encoder" not in key}
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": family}))
    tensors = load_file(folder / "model.safetensors")
    plain = {name: tensor for name, tensor in tensors.items() if "projector" not in name}
    save_file(plain, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("prompt", ["released-v1", "compact-v1"])
def test_it_ranks_as_a_checkpoint_over_the_same_llm(
    tmp_path: Path, family: str, prompt: str
) -> None:
    if prompt == "released-v1":
        checkpoint = write_published(tmp_path / "ranker", family)
        llm = plain_llm(checkpoint, family)
    else:
        checkpoint = write_own(tmp_path / "ranker", family, num_layers=3, prompt=prompt)
        llm = tmp_path / "ranker-base"
    windows = {"window": 4, "step": 2, "orders": 2}
    text = {"passages": "text", "decoding": "free"}
    perank = ranker(tmp_path, "perank", checkpoint=str(checkpoint), **text, **windows)
    listwise = ranker(tmp_path, model=str(llm), prompt=prompt, **windows)
    lists = [candidates(1), candidates(2, 12), candidates(3, 1)]
    expected, results = list(perank.rank(lists)), list(listwise.rank(lists))
    assert results == expected
    assert {result.unranked_reason for result in results} == {None}
    assert [result.texts_cut for result in results] == [1, 1, 0]  # of one passage nothing is read
    assert results[0].markers_defused == 8
    assert all(result.numbers_missing + result.numbers_repeated for result in results[:2])
    assert results[0].order != list(range(9))
    assert all(listwise.work().values())
    differ = {"checkpoint", "checkpoint_hash", "base_model", "encoder", "residual", "prompt_order"}
    ours, theirs = listwise.description(), perank.description()
    assert {key for key in ours if ours[key] != theirs[key]} <= differ
    assert ours["checkpoint"] == str(llm)


def test_an_arm_is_known_by_its_llms_files(tmp_path: Path) -> None:
    llm = plain_llm(write_published(tmp_path / "ranker"), "mistral")
    options = RANKERS["listwise-text"].parse({"model": str(llm)})
    before = options.describe(models(tmp_path))
    assert before.texts
    assert before.embedder is None
    assert before.identity == {"model_hash": content_hash(llm)}
    edit_weights(llm, **{"model.norm.weight": torch.ones(32)})
    assert options.describe(models(tmp_path)).identity != before.identity


def test_what_is_no_llm_is_no_ranker(tmp_path: Path) -> None:
    gone = RANKERS["listwise-text"].parse({"model": str(tmp_path / "gone")})
    assert "unknown model" in str(gone.describe(models(tmp_path)).missing)
    with pytest.raises(ConfigError, match="unknown model"):
        gone.load(models(tmp_path))
    published = write_published(tmp_path / "ranker")
    with pytest.raises(
        CheckpointError, match="model_type is 'embed_mistral'; a base model must be"
    ):
        ranker(tmp_path, model=str(published))
    llm = plain_llm(published, "mistral")
    edit_weights(llm, drop="model.norm.weight")
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' is missing"):
        ranker(tmp_path, model=str(llm))
    with pytest.raises(ConfigError, match="decoding"):
        RANKERS["listwise-text"].parse({"model": "m", "decoding": "constrained"})


def test_a_plain_llm_reads_no_embeddings(tmp_path: Path) -> None:
    llm = plain_llm(write_published(tmp_path / "ranker"), "mistral")
    engine = PERank.from_pretrained(llm, cache=tmp_path, device="cpu", llm_prompt="released-v1")
    with pytest.raises(ConfigError, match="has no projector and reads texts alone"):
        engine.rerank("question", ["one", "two"])
    with pytest.raises(ConfigError, match="prompt"):
        PERank.from_pretrained(llm, cache=tmp_path, device="cpu", llm_prompt="another")


def test_an_answer_that_does_not_fit_behind_the_prompt_is_refused(tmp_path: Path) -> None:
    """One number a passage is the least that an answer takes; as much room is not enough."""
    llm = plain_llm(write_published(tmp_path / "ranker"), "mistral")
    (whole,) = ranker(tmp_path, model=str(llm)).rank([candidates(1)])
    settings = json.loads((llm / "config.json").read_text())
    positions = whole.tokens_in + 9
    (llm / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": positions}))
    (result,) = ranker(tmp_path, model=str(llm)).rank([candidates(1)])
    assert f"the LLM has {positions}" in str(result.unranked_reason)
