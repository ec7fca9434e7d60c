"""Embedders by name: whose encoder it is, what tells two apart, and code that is opted in to."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import ConfigError
from perank_tasks.models.find import resolve_model
from perank_tasks.night.embed import read_vectors
from perank_tasks.perank import PERank
from perank_tasks.perank.embedders import identify, load
from perank_tasks.settings import Settings
from tests.models.test_encoder import CODE, PREFIX
from tests.perank.tiny import edit_config, write_own
from tests.small import GOLDEN, TOPICS, run_night, small_night, write_collection

TEXTS = list(TOPICS.values())


def checkpoint_beside_its_encoder(folder: Path) -> Path:
    """The golden checkpoint without the encoder's weights, which lie in a folder beside it."""
    ranker = folder / "ranker"
    shutil.copytree(GOLDEN, ranker)
    (ranker / "encoder").rename(folder / "encoder")
    tensors = load_file(ranker / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}
    save_file(kept, ranker / "model.safetensors")
    edit_config(ranker, encoder_name="../encoder", encoder_pooling="cls")
    return ranker


def add_code(encoder: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an encoder be code of its own, which negates BERT's states and leaves a trace."""
    modules = str(encoder.parent / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (encoder / "modeling_mirror.py").write_text(CODE.format(trace=str(trace)))
    names = {"AutoConfig": "MirrorConfig", "AutoModel": "MirrorModel"}
    auto_map = {auto: f"modeling_mirror.{name}" for auto, name in names.items()}
    edit_config(encoder, auto_map=auto_map)


def test_a_published_checkpoints_encoder_is_always_the_checkpoints(tmp_path: Path) -> None:
    ranker = checkpoint_beside_its_encoder(tmp_path)
    spec = write_collection(tmp_path / "topics")
    night = small_night(spec, arms=["perank"], checkpoint=str(ranker))
    (embedding,) = night.embeddings.values()
    assert embedding.name == f"checkpoint:{ranker}"

    reference = run_night(night, until="embed")["embed"][embedding.hash]
    artifact = Store(Settings.from_environment().root).open(reference)
    _, (vector,) = read_vectors(artifact, "passages", {"flea-3"})
    text = f"{TOPICS['flea']}, says source number 3."
    (expected,) = PERank.from_pretrained(ranker, cache=tmp_path).encode([text])
    assert np.allclose(vector, expected, atol=1e-6)


def test_an_encoder_beside_its_checkpoint_is_part_of_what_it_is(tmp_path: Path) -> None:
    settings = Settings.from_environment()
    one, other = (checkpoint_beside_its_encoder(tmp_path / name) for name in ("one", "other"))
    path = tmp_path / "other" / "encoder" / "model.safetensors"
    save_file({name: tensor + 0.1 for name, tensor in load_file(path).items()}, path)
    identities = [identify(f"checkpoint:{ranker}", settings) for ranker in (one, other)]
    assert identities[0]["content"] == identities[1]["content"]
    assert identities[0]["encoder"] != identities[1]["encoder"]


def test_a_relative_encoder_of_our_own_format_is_the_checkpoints(tmp_path: Path) -> None:
    minilm = resolve_model("all-minilm-l6-v2", cache=tmp_path).folder
    (tmp_path / "minilm").symlink_to(minilm)
    own = write_own(tmp_path / "own", encoder="../minilm", embedding_size=384)
    night = small_night(write_collection(tmp_path / "c"), arms=["perank"], checkpoint=str(own))
    assert [embedding.name for embedding in night.embeddings.values()] == [str(minilm.resolve())]


@pytest.mark.parametrize("kind", ["checkpoint", "sentence-transformers"])
def test_code_is_run_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = Settings.from_environment()
    if kind == "checkpoint":
        shutil.copytree(GOLDEN, tmp_path / "golden")
        encoder, name = tmp_path / "golden" / "encoder", f"checkpoint:{tmp_path / 'golden'}"
    else:
        encoder = tmp_path / "encoder"
        transformer = Transformer(str(GOLDEN / "encoder"))
        pooling = Pooling(transformer.get_embedding_dimension(), "mean")
        SentenceTransformer(modules=[transformer, pooling]).save(str(encoder))
        name = str(encoder)
    plain = load(name, settings).encode(TEXTS)
    trace = tmp_path / "trace"
    add_code(encoder, trace, monkeypatch)

    spec = write_collection(tmp_path / "topics")
    for refused in (
        lambda: small_night(spec, arms=["cosine"], embedder=name),
        lambda: load(name, settings),
    ):
        with pytest.raises(ConfigError, match=r"MirrorModel.*set trust_remote_code") as caught:
            refused()
        assert name in str(caught.value)
    assert not trace.exists()

    trusting = {"trust_remote_code": True}
    night = small_night(spec, arms=["cosine"], embedder=name, embedding=trusting)
    run_night(night, until="embed")
    assert trace.exists()
    found = load(name, settings, trust_remote_code=True).encode(TEXTS)
    assert np.allclose(found, -plain, atol=2e-6)
