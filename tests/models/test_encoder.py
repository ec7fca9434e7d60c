"""A checkpoint's own encoder: found, pooled and normalised as the reference does; code opted in to.

Expected vectors come from the stock model, one text at a time.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from perank_tasks.artifacts.store import Store
from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models import embedders
from perank_tasks.night.embed import read_vectors
from perank_tasks.perank import PERank
from perank_tasks.perank.checkpoint import load_checkpoint
from perank_tasks.schemas import embeddings as embeddings_schema
from tests.perank.conftest import GOLDEN
from tests.perank.tiny import EMBEDDING_SIZE, edit_config, edit_weights, write_published

TEXTS = [
    "how long does a flea live",
    "A flea lives on dogs and cats, and its life cycle takes weeks. " * 60,
    "visceral",
    "The flea market opens at six in the morning.",
]
PREFIX = "model.encoder.encoder."


def stock_vectors(texts: list[str], pooling: str, max_length: int) -> np.ndarray:
    """Each text alone through the golden encoder: no batch, no padding."""
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "encoder")
    model = AutoModel.from_pretrained(GOLDEN / "encoder").eval()
    rows = []
    for text in texts:
        inputs = tokenizer(
            text.strip(), return_tensors="pt", truncation=True, max_length=max_length
        )
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "cls": states[0], "last_token": states[-1]}[pooling]
        rows.append((pooled / pooled.norm()).numpy())
    return np.stack(rows)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    return folder


@pytest.mark.parametrize("max_length", [512, 16])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token"])
def test_texts_are_pooled_and_normalised(
    golden: Path, pooling: str, max_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_config(golden, encoder_pooling=pooling)
    engine = PERank.from_pretrained(golden, cache=golden.parent, device="cpu")
    expected = stock_vectors(TEXTS, pooling, max_length)
    for tokens_of_a_batch in (1, 1024):  # each text alone, all together
        monkeypatch.setattr(embedders, "TOKENS_ON_CPU", tokens_of_a_batch)
        found = engine.encode(TEXTS, max_length=max_length)
        assert found.dtype == np.float32
        assert np.allclose(found, expected, atol=2e-6)
    others = {"mean", "cls", "last_token"} - {pooling}
    for other in others:
        assert not np.allclose(stock_vectors(TEXTS, other, max_length), expected, atol=1e-2)


def test_the_encoder_inside_wins_over_the_one_by_name(golden: Path) -> None:
    before = PERank.from_pretrained(golden, cache=golden.parent).encode(TEXTS)
    path = golden / "encoder" / "model.safetensors"
    save_file({name: tensor + 0.1 for name, tensor in load_file(path).items()}, path)
    assert np.array_equal(PERank.from_pretrained(golden, cache=golden.parent).encode(TEXTS), before)

    tensors = load_file(golden / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}
    save_file(kept, golden / "model.safetensors")
    by_name = PERank.from_pretrained(golden, cache=golden.parent)
    assert not np.allclose(by_name.encode(TEXTS), before, atol=1e-2)


def test_an_encoder_by_name_is_found_in_the_checkpoints_folder(golden: Path) -> None:
    checkpoint = load_checkpoint(golden, cache=golden.parent)
    spec = checkpoint.encoder
    assert (spec.name, checkpoint.encoder_weights is None) == ("./encoder", False)
    assert spec.folder == (golden / "encoder").resolve()


def test_an_encoder_of_another_width(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "ranker")
    edit_config(folder, encoder_name="all-minilm-l6-v2")
    engine = PERank.from_pretrained(folder, cache=tmp_path)
    with pytest.raises(CheckpointError, match=r"embedding_size is 24, .* 384"):
        engine.encode(["a passage"])


def test_an_encoder_inside_that_lacks_a_tensor(golden: Path) -> None:
    edit_weights(golden, drop=f"{PREFIX}embeddings.word_embeddings.weight")
    engine = PERank.from_pretrained(golden, cache=golden.parent)
    with pytest.raises(CheckpointError, match=r"word_embeddings\.weight' is missing"):
        engine.encode(["a passage"])


CODE = """
import pathlib
import torch
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel

pathlib.Path({trace!r}).touch()

class MirrorConfig(BertConfig):
    model_type = "bert"

class MirrorModel(BertModel):
    config_class = MirrorConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = -output.last_hidden_state
        return output
"""


@pytest.fixture
def with_code(golden: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden checkpoint with an encoder like JinaBERT v2: code of its own, named "bert"."""
    modules = golden.parent / "modules"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(sys, "path", [*sys.path])
    encoder = golden / "encoder"
    trace = str(golden.parent / "trace")
    (encoder / "modeling_mirror.py").write_text(CODE.format(trace=trace))
    auto_map = {
        "AutoConfig": "modeling_mirror.MirrorConfig",
        "AutoModel": "modeling_mirror.MirrorModel",
    }
    edit_config(encoder, auto_map=auto_map)
    return golden


def test_an_encoders_code_is_run_only_when_asked_for(with_code: Path) -> None:
    plain = stock_vectors(TEXTS, "mean", 512)
    cache = with_code.parent
    engine = PERank.from_pretrained(with_code, cache=cache)
    with pytest.raises(CheckpointError) as caught:
        engine.encode(TEXTS)
    for part in ("'./encoder'", "modeling_mirror.MirrorModel", "trust_remote_code=True", "rank"):
        assert part in str(caught.value)
    assert not (cache / "trace").exists()

    trusting = PERank.from_pretrained(with_code, cache=cache, trust_remote_code=True)
    assert np.allclose(trusting.encode(TEXTS), -plain, atol=2e-6)
    assert (cache / "trace").exists()


def test_it_ranks_from_an_embedding_artifact_without_its_encoder(
    with_code: Path, tmp_path: Path
) -> None:
    """The artifact holds what an environment that trusts the code made."""
    golden_engine = PERank.from_pretrained(GOLDEN, cache=tmp_path, device="cpu")
    vectors = golden_engine.encode(TEXTS)
    store = Store(with_code.parent / "store")
    artifact = store.artifact("embeddings", "tiny", "0123456789abcdef")
    schema = embeddings_schema(vectors.shape[1], "float32")
    ids = [f"p{position}" for position in range(len(TEXTS))]
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.ravel()), type=schema.field("embedding").type
    )
    is_cut = pa.array([False] * len(ids))
    rows = pa.table([pa.array(ids), pa.array(ids), is_cut, column], schema=schema)
    artifact.write_part("passages", rows, schema, shard=0)
    artifact.publish(expected={"passages": 1}, inputs={}, config={}, counts={}, provenance={})

    row_of, matrix = read_vectors(store.open(artifact.reference), "passages", set(ids))
    joined = matrix[[row_of[identifier] for identifier in ids]]
    engine = PERank.from_pretrained(with_code, cache=with_code.parent)
    expected = golden_engine.rerank("fleas", embeddings=vectors).order
    assert engine.rerank("fleas", embeddings=joined).order == expected
    assert not (with_code.parent / "trace").exists()


def test_an_encoder_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, a checkpoint whose encoder is on the hub still ranks from given vectors."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    engine = PERank.from_pretrained(write_published(tmp_path / "ranker"), cache=tmp_path)
    vectors = np.eye(5, EMBEDDING_SIZE, dtype=np.float32)
    assert sorted(engine.rerank("fleas", embeddings=vectors).order) == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="somebody/an-encoder") as caught:
        engine.encode(["a passage"])
    assert "only ranking from embeddings that were made elsewhere" in str(caught.value)
