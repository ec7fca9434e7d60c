"""Embedders made of a model, against its layers and pooling by hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from perank_tasks.errors import ConfigError
from perank_tasks.models.find import find_model, resolve_model
from perank_tasks.models.variants import ModelVariant
from perank_tasks.perank import PERank
from perank_tasks.perank.embedders import identify, load
from perank_tasks.settings import Settings
from tests.perank.tiny import edit_config, write_own
from tests.small import GOLDEN, TOPICS, small_embedder, small_night, write_collection

TEXTS = [*TOPICS.values(), "short"]
ENCODER = str(GOLDEN / "encoder")


@torch.inference_mode()
def by_hand(folder: str, layer: int, pooling: str, dimensions: int = 32) -> np.ndarray:
    """One text at a time, so that there is no padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
        states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        row = {"mean": states.mean(0), "cls": states[0], "last_token": states[-1]}[pooling]
        rows.append(torch.nn.functional.normalize(row[:dimensions], dim=-1).numpy())
    return np.stack(rows)


def encode(name: str) -> np.ndarray:
    return load(name, Settings.from_environment()).encode(TEXTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token"])
def test_a_plain_transformer_becomes_an_embedder_by_a_rule_of_pooling(pooling: str) -> None:
    found = encode(f"{ENCODER}?pooling={pooling}")
    assert np.allclose(found, by_hand(ENCODER, 2, pooling), atol=1e-5)


def test_first_layers_and_first_dimensions() -> None:
    found = encode(f"{ENCODER}?pooling=mean&layers=1&dimensions=8")
    assert found.shape == (len(TEXTS), 8)
    assert np.allclose(found, by_hand(ENCODER, 1, "mean", 8), atol=1e-5)


def test_the_order_of_options_does_not_matter_and_their_values_do() -> None:
    settings = Settings.from_environment()
    one, same, other = (
        find_model(f"{ENCODER}?{words}").revision
        for words in ("layers=1&pooling=mean", "pooling=mean&layers=1", "pooling=mean&layers=2")
    )
    assert one == same
    assert one != other
    names = [f"{ENCODER}?pooling=mean&layers={n}" for n in (1, 2)]
    contents = [identify(name, settings)["content"] for name in names]
    assert len(set(contents)) == 2
    # Made once, and found by the name again.
    folder = resolve_model(names[0], cache=settings.cache).folder
    made = folder.stat().st_mtime_ns
    assert resolve_model(names[0], cache=settings.cache).folder.stat().st_mtime_ns == made


def test_an_llm_embeds_by_the_mean_of_its_tokens_states(tmp_path: Path) -> None:
    write_own(tmp_path / "own")
    base = str(tmp_path / "own-base")
    assert np.allclose(encode(f"{base}?pooling=mean"), by_hand(base, 3, "mean"), atol=1e-5)
    last = encode(f"{base}?pooling=last_token")
    assert np.allclose(last, by_hand(base, 3, "last_token"), atol=1e-5)


def test_a_sentence_transformer_keeps_its_own_pooling(tmp_path: Path) -> None:
    whole = small_embedder(tmp_path / "embedder")
    cut = encode(f"{whole}?dimensions=16")
    full = encode(whole)[:, :16]
    assert np.allclose(cut, full / np.linalg.norm(full, axis=1, keepdims=True), atol=1e-5)


def test_a_checkpoint_for_a_cut_embedder_reads_and_makes_its_vectors(tmp_path: Path) -> None:
    name = f"{ENCODER}?pooling=mean&layers=1&dimensions=8"
    ranker = write_own(tmp_path / "own", encoder=name, embedding_size=8)
    model = PERank.from_pretrained(ranker)
    assert np.allclose(model.encode(TEXTS), encode(name), atol=1e-5)
    spec = write_collection(tmp_path / "topics")
    night = small_night(spec, arms=["perank"], checkpoint=str(ranker))
    assert [embedding.name for embedding in night.embeddings.values()] == [name]


@pytest.mark.parametrize(
    "words", ["", "layer=1", "layers=0", "layers=x", "pooling=max", "layers=1&layers=2", "layers"]
)
def test_malformed_options_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="behind its question mark"):
        ModelVariant.parse(f"{ENCODER}?{words}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("layers=1", "plain transformer: add pooling=mean"),
        ("pooling=mean&layers=3", "it has 2 layers"),
        ("pooling=mean&dimensions=33", "it has 32 dimensions"),
    ],
)
def test_what_a_model_cannot_give_is_refused(words: str, said: str) -> None:
    cache = Settings.from_environment().cache
    with pytest.raises(ConfigError, match=said):
        resolve_model(f"{ENCODER}?{words}", cache=cache)


def test_code_of_a_repository_is_not_run_to_cut_it(tmp_path: Path) -> None:
    shutil.copytree(ENCODER, tmp_path / "encoder")
    edit_config(tmp_path / "encoder", auto_map={"AutoModel": "modeling_own.OwnModel"})
    with pytest.raises(ConfigError, match=r"modeling_own\.OwnModel"):
        load(f"{tmp_path / 'encoder'}?pooling=mean", Settings.from_environment())
