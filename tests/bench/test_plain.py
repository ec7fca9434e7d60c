"""The plain way ranks as the reference did, and as the engine does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from perank_tasks.bench.plain import PlainRanker
from perank_tasks.errors import CheckpointError
from perank_tasks.perank import PERank
from perank_tasks.support.lists import CandidateList
from tests.perank.tiny import write_own
from tests.small import GOLDEN

REFERENCE: list[dict[str, Any]] = json.loads((GOLDEN / "reference_rankings.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def few_threads() -> None:
    """Tiny models gain nothing from threads."""
    torch.set_num_threads(1)


def texts_only(query: str, texts: list[str]) -> CandidateList:
    return CandidateList("q", query, [str(i) for i in range(len(texts))], texts=texts)


def plain(folder: Path, cache: Path) -> tuple[PERank, PlainRanker]:
    engine = PERank.from_pretrained(folder, cache=cache, device="cpu")
    ranker = PlainRanker(folder, engine, cache=cache)
    return engine, ranker


@pytest.fixture
def random_llama(tmp_path: Path) -> Path:
    """The golden checkpoint as a Llama with other weights; its encoder stays."""
    folder = tmp_path / "llama"
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "embed_llama"}
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(7)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if ".encoder." not in name and "norm" not in name:
            tensors[name] = 0.3 * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_golden_checkpoint_ranks_as_the_reference_did(tmp_path: Path) -> None:
    _, ranker = plain(GOLDEN, tmp_path)
    for case in REFERENCE:
        ranked = ranker.rerank(texts_only(case["query"], [c["text"] for c in case["candidates"]]))
        assert [case["candidates"][i]["docid"] for i in ranked.order] == case["ranking"]
        if 1 < len(case["candidates"]) <= 20:  # one window
            assert ranked.tokens_in == len(case["first_window_input_ids"])


@pytest.mark.parametrize("length", [2, 10, 20, 27, 45])
def test_a_random_llama_ranks_as_the_engine_does(
    random_llama: Path, tmp_path: Path, length: int
) -> None:
    engine, ranker = plain(random_llama, tmp_path)
    texts = [c["text"] for c in REFERENCE[3]["candidates"]][:length]
    fast = engine.rerank("cost of concrete", texts)
    slow = ranker.rerank(texts_only("cost of concrete", texts))
    assert slow.order == fast.order
    assert slow.order != list(range(length)) or length == 2
    assert (slow.windows, slow.tokens_in) == (fast.windows, fast.tokens_in)


def test_a_smaller_window_after_larger_ones_is_ranked_by_its_own_passages(tmp_path: Path) -> None:
    _, ranker = plain(GOLDEN, tmp_path)
    texts = [c["text"] for c in REFERENCE[3]["candidates"]]
    few, many = texts_only("define visceral", texts[:8]), texts_only("define visceral", texts)
    alone = ranker.rerank(few).order
    ranker.rerank(many)
    assert ranker.rerank(few).order == alone


def test_a_checkpoint_beyond_the_reference_is_refused(tmp_path: Path) -> None:
    engine = PERank.from_pretrained(GOLDEN, cache=tmp_path, device="cpu")
    own = tmp_path / "own"
    write_own(own)
    with pytest.raises(CheckpointError, match="released-v1"):
        PlainRanker(own, engine, cache=tmp_path)
