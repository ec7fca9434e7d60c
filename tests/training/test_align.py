"""Stage 1: what is fed, what is measured, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from perank_tasks.errors import TrainingError
from perank_tasks.perank.checkpoint import load_checkpoint, load_head, load_tokenizer
from perank_tasks.training.alignment import align, reconstruction_of
from perank_tasks.training.batches import AlignmentCollator
from perank_tasks.training.losses import IGNORED, reconstruction
from perank_tasks.training.model import AlignmentTrainee
from perank_tasks.training.recipe import AlignRecipe
from perank_tasks.training.start import open_start
from perank_tasks.training.training_folder import Run
from tests.training.examples import some_passages


def recipe_of(**changes: object) -> AlignRecipe:
    short = {"max_steps": 60, "eval_steps": 20, "learning_rate": 0.03, "eval_examples": 40}
    return AlignRecipe.parse(AlignRecipe.preset("tiny").model_dump() | short | changes)


def test_the_loss_is_that_of_the_stock_model(own: Path, cache: Path) -> None:
    """One passage after another through transformers' causal LM, head and all."""
    recipe = recipe_of()
    begun = open_start(own, recipe, cache=cache)
    passages = some_passages(5)
    batch = AlignmentCollator(begun, recipe)(passages)
    stock = LlamaForCausalLM(begun.llm).eval()
    stock.model.load_state_dict(begun.body)
    stock.lm_head.weight = torch.nn.Parameter(load_head(begun))
    nats, count = 0.0, 0
    with torch.no_grad():
        for row, passage in enumerate(passages):
            text = [token for token in batch["targets"][row].tolist() if token != IGNORED]
            spoken = load_tokenizer(begun).decode(text, skip_special_tokens=True)
            assert spoken.strip() == passage.text
            ids = batch["rows"]["ids"][row]
            start = int(batch["rows"]["outputs"][row, 0]) + 1
            inputs = stock.model.embed_tokens(torch.tensor([*ids[:start].tolist(), *text]))
            place = int(batch["rows"]["slot_places"][row])
            weight, bias = begun.projector["weight"], begun.projector["bias"]
            inputs[place] = weight @ torch.from_numpy(passage.embedding) + bias
            logits = stock(inputs_embeds=inputs[None]).logits[0, start - 1 : -1]
            nats += F.cross_entropy(logits, torch.tensor(text), reduction="sum").item()
            count += len(text)
        trainee = AlignmentTrainee(begun, recipe, load_head(begun))
        found = reconstruction(trainee(batch), batch["targets"]).item()
    assert found == pytest.approx(nats / count, rel=1e-4)


def test_texts_are_cut_and_cleaned_of_markers(own: Path, cache: Path) -> None:
    collate = AlignmentCollator(load_checkpoint(own, cache=cache), recipe_of(max_tokens=64))
    room = 64 - len(collate._prompt.input_ids)
    long = collate.tokens("flea " * 200)
    assert len(long) == room
    assert long[-1] == 2
    assert 2 not in collate.tokens("one </s> two <s> three")[:-1]
    assert collate.tokens("") == [2]


def test_it_learns_what_embeddings_say(own: Path, cache: Path, tmp_path: Path) -> None:
    """Above all more than shuffled ones do; the LLM stays as it is."""
    passages, others = some_passages(110), some_passages(44, seed=5)
    out = tmp_path / "run"
    report = align(recipe_of(), passages, others, Run(out, cache, 1, start=own))
    before, after = report["before"], report["after"]
    assert after["loss"] < before["loss"] - 0.3
    assert after["gain"] > 0.1
    assert 0 < after["low"] <= after["gain"] <= after["high"]
    assert after["passages"] == 40
    tensors = load_file(out / "checkpoint" / "model.safetensors")
    assert not any(name.startswith(("body.", "lora_")) for name in tensors)
    found, begun = (
        load_checkpoint(out / "checkpoint", cache=cache),
        load_checkpoint(own, cache=cache),
    )
    assert not torch.equal(found.projector["weight"], begun.projector["weight"])
    rows = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "dev_control" in row] == [0, 20, 40, 60]
    assert (out / "curves.png").is_file()
    config = json.loads((out / "checkpoint" / "config.json").read_text())
    assert config["training"]["after"] == after
    assert "shuffled" in (out / "checkpoint" / "README.md").read_text()


def test_an_embedding_that_says_nothing_gains_nothing(own: Path, cache: Path) -> None:
    """The control is fair: with equal embeddings both losses are the same."""
    recipe = recipe_of()
    begun = open_start(own, recipe, cache=cache)
    vector = some_passages(1)[0].embedding
    passages = [replace(passage, embedding=vector) for passage in some_passages(20)]
    model = AlignmentTrainee(begun, recipe, load_head(begun))
    found = reconstruction_of(model, passages, AlignmentCollator(begun, recipe), recipe)
    assert found["loss"] == pytest.approx(found["control"], abs=1e-6)
    assert found["low"] == pytest.approx(0, abs=1e-6) == found["high"]
    assert found["tokens"] == sum(
        len(AlignmentCollator(begun, recipe).tokens(passage.text)) for passage in passages
    )


def test_nothing_to_measure_on_is_refused(own: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="2 or more others"):
        align(
            recipe_of(),
            some_passages(9),
            some_passages(1),
            Run(tmp_path / "run", cache, 1, start=own),
        )
    wide = some_passages(9)
    wide[3] = replace(wide[3], embedding=np.zeros(7, np.float32))
    with pytest.raises(TrainingError, match="passage p3 has embeddings of 7 values"):
        align(recipe_of(), wide, some_passages(3), Run(tmp_path / "wide", cache, 1, start=own))
