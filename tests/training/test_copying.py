"""A last layer that copies: what it looks at comes out again, in the components that matter."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.training.closed_forms import components_within_lists, copying_attention
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.start import make_start
from tests.perank.tiny import EMBEDDING_SIZE as SIZE
from tests.perank.tiny import write_own
from tests.training.examples import some_lists, some_passages

HIDDEN, HEADS, KEY_HEADS, HEAD = 64, 8, 2, 8


def test_what_all_heads_look_at_comes_out_again() -> None:
    """By plain arithmetic: norm, values, each head's share, outputs."""
    generator = torch.Generator().manual_seed(0)
    projector = 13 * torch.linalg.qr(torch.randn(HIDDEN, SIZE, generator=generator))[0]
    components = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator))[0]
    norm = LlamaRMSNorm(HIDDEN)
    norm.weight.data = 0.5 + torch.rand(HIDDEN, generator=generator)
    values, outputs = copying_attention(
        projector,
        norm.weight.data,
        components,
        heads=HEADS,
        key_heads=KEY_HEADS,
        size=HEAD,
        scale=3.0,
    )
    embedding = torch.nn.functional.normalize(torch.randn(SIZE, generator=generator), dim=0)
    seen = (values @ norm(projector @ embedding)).detach().view(KEY_HEADS, HEAD)
    found = outputs @ seen.repeat_interleave(HEADS // KEY_HEADS, 0).flatten()
    kept = components[:, : KEY_HEADS * HEAD]
    assert torch.allclose(found, 3 * projector @ (kept @ (kept.T @ embedding)), atol=1e-4)


def test_components_are_those_that_lists_differ_in() -> None:
    """A direction that whole lists share is last, though it varies most from list to list."""
    random = np.random.default_rng(0)
    lists = []
    for example in some_lists(30, sizes=(8,)):
        embeddings = 0.1 * random.normal(size=example.embeddings.shape)
        embeddings[:, 0] = 100 * random.normal()
        embeddings[:, 1] *= 50
        lists.append(replace(example, embeddings=embeddings.astype(np.float32)))
    found = components_within_lists(lists)
    assert abs(float(found[1, 0])) == pytest.approx(1, abs=1e-3)
    assert abs(float(found[0, -1])) == pytest.approx(1, abs=1e-3)
    assert torch.allclose(found.T @ found, torch.eye(SIZE), atol=1e-5)


def test_a_start_that_copies_changes_the_last_layers_values_and_outputs_only(
    tmp_path: Path, cache: Path
) -> None:
    write_own(tmp_path / "own", llm={"num_key_value_heads": 2})
    found = {}
    for start in ("pretrained", "copying"):
        recipe = RankRecipe.preset(
            "tiny",
            [
                f"base_model={tmp_path / 'own-base'}",
                "num_layers=2",
                "projector_start=procrustes",
                f"attention_start={start}",
                "projector_scale=20",
            ],
        )
        make_start(
            tmp_path / start, recipe, some_passages(40), SIZE, cache=cache, lists=some_lists(5)
        )
        found[start] = load_checkpoint(tmp_path / start, cache=cache)
    plain, copying = found["pretrained"].body, found["copying"].body
    assert {name for name in plain if not torch.equal(plain[name], copying[name])} == {
        "layers.1.self_attn.v_proj.weight",
        "layers.1.self_attn.o_proj.weight",
    }
