"""Checkpoints: in, a folder, a shipped name or a hub id; out, weights and settings, checked.

Two layouts are read.

The *published* one (github.com/liuqi6777/pe_rank): `config.json` with `model_type`
`embed_mistral` or `embed_llama`, tensors `model.layers.*`, `model.projector.*` and, where the
encoder is inside, `model.encoder.encoder.*`, in safetensors, sharded or not. A
`projector.bin` beside them wins over the projector in them.

*Ours* (`"format": "perank"`) names a base model and adds to it. `config.json` holds the fields
of `PerankConfig`, `model.safetensors` the tensors

    projector.{weight,bias}             linear: (hidden, embedding_size), (hidden,)
    projector.{0,2,…}.{weight,bias}     mlpNx_gelu
    residual.t, residual.b              scalars, where `residual` is true
    body.<name>                         replaces the base's, as body.layers.0.mlp.up_proj.weight
    lora_a.<name>, lora_b.<name>        (r, in), (out, r): adds lora_scale · B·A to the base's

Pickles are read with `weights_only=True` or refused; nothing in a checkpoint is executed.
"""

import dataclasses
import json
import os
import pickle
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, PretrainedConfig

from perank_tasks.errors import CheckpointError, StorageError
from perank_tasks.models import (
    ResolvedModel,
    content_hash,
    looks_like_hub_id,
    make_readable,
    resolve_model,
    unknown_name,
)
from perank_tasks.perank.model import meta_body, projector_shapes
from perank_tasks.perank.prompt import COMPACT_V1, RELEASED_V1, TEMPLATES

SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"

FORMAT_VERSION = 1
POOLINGS = ("mean", "cls", "last_token")
PUBLISHED_LLMS: dict[str, type[PretrainedConfig]] = {
    "embed_llama": LlamaConfig,
    "embed_mistral": MistralConfig,
}
ENCODER_PREFIX = "model.encoder.encoder."
BASE_LLMS: dict[str, type[PretrainedConfig]] = {"llama": LlamaConfig, "mistral": MistralConfig}


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The embedder whose vectors a checkpoint expects, L2-normalised.

    `name` is what the checkpoint's configuration says: an embedded model's name, a folder or
    a hub id; `folder` is where that is a folder on this machine. With `inside_checkpoint` the
    weights are the checkpoint's own and only `PERank.encode` has them. `revision`, where it
    is known, is what `resolve_model` calls the embedder's revision.
    """

    name: str
    pooling: str
    embedding_size: int
    inside_checkpoint: bool
    folder: Path | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class PerankConfig:
    """`config.json` of our own format, but for `format` and `format_version`."""

    base_model: str
    """Embedded name, folder (relative ones: to the checkpoint's) or hub id of the LLM."""
    base_revision: str | None
    """The base's revision as `resolve_model` gives it; checked where it is not null."""
    num_layers: int
    """The base's first layers that are kept; its final norm follows them."""
    encoder: str
    encoder_pooling: str
    embedding_size: int
    projector_type: str
    prompt: str = COMPACT_V1.name
    query_token: bool = True
    residual: bool = True
    lora_scale: float = 1.0
    encoder_revision: str | None = None
    description: str = ""
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How it was made, for people; the engine does not read it."""


@dataclass(frozen=True)
class CheckpointSummary:
    """What a checkpoint is, from its configuration and its files' bytes; no tensor is read.

    `hash` covers every file but *.md, and the base model.
    """

    name: str
    folder: Path
    layout: str
    hash: str
    projector_type: str
    embedding_size: int
    prompt: str
    query_token: bool
    encoder: EncoderSpec
    tokenizer_folder: Path
    base_model: str | None
    base_revision: str | None


@dataclass(frozen=True)
class Checkpoint(CheckpointSummary):
    """A checkpoint in memory, complete and of consistent shapes.

    `body` holds the tensors of a `LlamaModel` or `MistralModel` built from `llm`;
    `encoder_weights` those of the encoder inside the checkpoint, if there is one.
    `residual` is (t, b) of the logit `t·(h·p_i) + b·(p_q·p_i)`, None for plain `h·p_i`.
    """

    llm: PretrainedConfig
    body: dict[str, Tensor]
    projector: dict[str, Tensor]
    residual: tuple[float, float] | None
    encoder_weights: dict[str, Tensor] | None


def load_checkpoint(path_or_name: str | os.PathLike[str], *, cache: Path) -> Checkpoint:
    """Read a checkpoint and check that its files make the model its configuration promises.

    Args:
        path_or_name: a folder, a name under `perank_tasks/checkpoints`, or a hub id.
        cache: where base models are unpacked, see `resolve_model`.

    Raises:
        ConfigError: nothing of that name.
        CheckpointError: a file is missing, unreadable, unsafe or inconsistent.
    """
    folder, config = _open(path_or_name, cache)
    load = _load_own if config.get("format") == "perank" else _load_published
    return load(os.fspath(path_or_name), folder, config, cache)


def summarize_checkpoint(path_or_name: str | os.PathLike[str], *, cache: Path) -> CheckpointSummary:
    """Say what a checkpoint is without loading it; arguments and errors as `load_checkpoint`."""
    folder, config = _open(path_or_name, cache)
    name = os.fspath(path_or_name)
    if config.get("format") == "perank":
        own = _parse_own(folder / "config.json", config)
        return _summarize_own(name, folder, own, _base(folder, own, cache))
    return _summarize_published(name, folder, config, TensorFiles(folder))


def _open(path_or_name: str | os.PathLike[str], cache: Path) -> tuple[Path, dict[str, Any]]:
    folder = find_checkpoint(path_or_name, cache=cache)
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds a LoRA adapter of the published layout. Merge it into its base model "
            f"(peft: `merge_and_unload`) and save the result, projector included, as safetensors"
        )
    return folder, _read_json(folder / "config.json")


def find_checkpoint(path_or_name: str | os.PathLike[str], *, cache: Path) -> Path:
    """The folder of a checkpoint given by path, shipped name or hub id.

    Raises:
        ConfigError: nothing of that name; close ones are offered.
    """
    name = os.fspath(path_or_name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if (SHIPPED / name / "config.json").is_file():
        return SHIPPED / name
    if looks_like_hub_id(name):
        return resolve_model(name, cache=cache).folder
    raise unknown_name("checkpoint", name, shipped_checkpoints())


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))


def save_checkpoint(
    folder: Path, config: PerankConfig, tensors: dict[str, Tensor], *, readme: str
) -> None:
    """Write a checkpoint of our own format, all or nothing; an existing one is replaced.

    Args:
        folder: where it goes; its parent is made where it is missing.
        config: becomes config.json.
        tensors: named as the module's docstring says; any float dtype.
        readme: the model card, Markdown.

    Raises:
        StorageError: the folder cannot be written.
    """
    settings = {"format": "perank", "format_version": FORMAT_VERSION, **dataclasses.asdict(config)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            (scratch / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
            (scratch / "README.md").write_text(readme)
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(plain, scratch / "model.safetensors", metadata={"format": "pt"})
            make_readable(scratch)
            if folder.exists():
                shutil.rmtree(folder)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot write the checkpoint {folder}: {error}") from error


class TensorFiles:
    """The tensors of a folder, by name, whichever files they lie in; read when asked for.

    Raises:
        CheckpointError: no weights, a shard that is missing, or a file that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        self._pickled: dict[Path, dict[str, Tensor]] = {}
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            weight_map = _field(index, _read_json(index), "weight_map", dict)
            for shard in sorted(set(weight_map.values())):
                self._add_safetensors(folder / shard)
        elif (folder / "model.safetensors").is_file():
            self._add_safetensors(folder / "model.safetensors")
        elif (folder / "pytorch_model.bin").is_file():
            self._add_pickle(folder / "pytorch_model.bin")
        else:
            raise CheckpointError(
                f"{folder} has no weights: expected model.safetensors, "
                f"model.safetensors.index.json with its shards, or pytorch_model.bin"
            )

    def add_projector(self, path: Path) -> None:
        """Let the projector in the pickle `path` replace the one in the other files."""
        self._add_pickle(path)
        for key, tensor in list(self._pickled[path].items()):
            name = "model.projector." + key.rsplit("projector.", 1)[-1]
            self._pickled[path][name] = tensor
            self.files[name] = path

    def get(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """The tensor `name`, of `shape` where one is given.

        Raises:
            CheckpointError: it is missing, of another shape, or its file is damaged.
        """
        path = self.files.get(name)
        if path is None:
            raise CheckpointError(
                f"{self.folder}: tensor {name!r} is missing from the weights"
                f"{f', expected shape {shape}' if shape else ''}. "
                f"The download may be incomplete, or config.json belongs to another model"
            )
        if path in self._pickled:
            tensor = self._pickled[path][name]
        else:
            try:
                with safe_open(path, framework="pt") as file:
                    tensor = file.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise _unreadable(path, error) from error
        if shape is not None and tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected {shape} by "
                f"config.json. Use the config.json that was saved with these weights"
            )
        return tensor

    def _add_safetensors(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing, though the index beside it names it. Fetch the checkpoint anew"
            )
        try:
            with safe_open(path, framework="pt") as file:
                self.files.update(dict.fromkeys(file.keys(), path))
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error

    def _add_pickle(self, path: Path) -> None:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path} is a pickle that holds more than tensors and would run code when read: "
                f"refused. Convert it to safetensors where you trust it"
            ) from error
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise _unreadable(path, error) from error
        if not isinstance(tensors, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
        ):
            raise CheckpointError(f"{path} is not a dictionary of named tensors, as expected")
        self._pickled[path] = tensors
        self.files.update(dict.fromkeys(tensors, path))


def _summarize_published(
    name: str, folder: Path, config: dict[str, Any], files: TensorFiles
) -> CheckpointSummary:
    path = folder / "config.json"
    model_type = config.get("model_type")
    if model_type not in PUBLISHED_LLMS:
        raise CheckpointError(
            f"{path}: model_type is {model_type!r}, expected {' or '.join(PUBLISHED_LLMS)}, or "
            f'"format": "perank". A plain LLM or embedder is no PE-Rank checkpoint: it lacks the '
            f"projector"
        )
    embedding_size = _field(path, config, "embedding_size", int)
    encoder_name = _field(path, config, "encoder_name", str)
    return CheckpointSummary(
        name=name,
        folder=folder,
        layout="published",
        hash=content_hash(folder),
        projector_type=_field(path, config, "projector_type", str),
        embedding_size=embedding_size,
        prompt=RELEASED_V1.name,
        query_token=False,
        encoder=EncoderSpec(
            name=encoder_name,
            pooling=_pooling(path, config),
            embedding_size=embedding_size,
            inside_checkpoint=any(key.startswith(ENCODER_PREFIX) for key in files.files),
            folder=_local(folder, encoder_name),
        ),
        tokenizer_folder=folder,
        base_model=None,
        base_revision=None,
    )


def _load_published(name: str, folder: Path, config: dict[str, Any], cache: Path) -> Checkpoint:
    files = TensorFiles(folder)
    summary = _summarize_published(name, folder, config, files)
    if (folder / "projector.bin").is_file():
        files.add_projector(folder / "projector.bin")
    ignored = ("model_type", "architectures", "transformers_version", "torch_dtype", "dtype")
    llm = PUBLISHED_LLMS[config["model_type"]](
        **{key: value for key, value in config.items() if key not in ignored}
    )
    inside = {
        key.removeprefix(ENCODER_PREFIX): files.get(key)
        for key in files.files
        if key.startswith(ENCODER_PREFIX)
    }
    return Checkpoint(
        **vars(summary),
        llm=llm,
        body=_body(llm, files),
        projector=_projector(summary, files, "model.projector.", llm.hidden_size),
        residual=None,
        encoder_weights=inside or None,
    )


def _base(folder: Path, config: PerankConfig, cache: Path) -> ResolvedModel:
    """The base model of a checkpoint of ours, of the revision it was made for."""
    base = resolve_model(
        str(_local(folder, config.base_model) or config.base_model),
        cache=cache,
        revision=config.base_revision if looks_like_hub_id(config.base_model) else None,
    )
    if config.base_revision and base.revision and config.base_revision != base.revision:
        raise CheckpointError(
            f"{folder / 'config.json'}: made for {config.base_model} of revision "
            f"{config.base_revision}, found revision {base.revision} at {base.folder}. Its "
            f"projector fits only the former"
        )
    return base


def _summarize_own(
    name: str, folder: Path, config: PerankConfig, base: ResolvedModel
) -> CheckpointSummary:
    return CheckpointSummary(
        name=name,
        folder=folder,
        layout="perank",
        hash=content_hash(folder, salt=base.revision or content_hash(base.folder)),
        projector_type=config.projector_type,
        embedding_size=config.embedding_size,
        prompt=config.prompt,
        query_token=config.query_token,
        encoder=EncoderSpec(
            name=config.encoder,
            pooling=config.encoder_pooling,
            embedding_size=config.embedding_size,
            inside_checkpoint=False,
            folder=_local(folder, config.encoder),
            revision=config.encoder_revision,
        ),
        tokenizer_folder=base.folder,
        base_model=config.base_model,
        base_revision=base.revision,
    )


def _load_own(name: str, folder: Path, raw: dict[str, Any], cache: Path) -> Checkpoint:
    path = folder / "config.json"
    config = _parse_own(path, raw)
    base = _base(folder, config, cache)
    summary = _summarize_own(name, folder, config, base)
    llm = _base_config(path, base.folder, config.num_layers)
    files = TensorFiles(folder)
    residual = None
    if config.residual:
        residual = (float(files.get("residual.t", ())), float(files.get("residual.b", ())))
    return Checkpoint(
        **vars(summary),
        llm=llm,
        body=_adapted(_body(llm, TensorFiles(base.folder)), files, config.lora_scale),
        projector=_projector(summary, files, "projector.", llm.hidden_size),
        residual=residual,
        encoder_weights=None,
    )


def _parse_own(path: Path, raw: dict[str, Any]) -> PerankConfig:
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {version!r}, expected {FORMAT_VERSION}. "
            f"A newer one needs a newer perank"
        )
    settings = {key: value for key, value in raw.items() if key not in ("format", "format_version")}
    fields = {field.name: field for field in dataclasses.fields(PerankConfig)}
    required = {
        key
        for key, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    wrong = sorted(set(settings) - set(fields))
    missing = sorted(required - set(settings))
    if wrong or missing:
        raise CheckpointError(
            f"{path}: unknown settings {wrong}, missing settings {missing}; "
            f"expected {sorted(fields)} (required: {sorted(required)})"
        )
    for key in ("base_model", "encoder", "projector_type", "prompt"):
        if key in settings:
            _field(path, settings, key, str)
    for key in ("num_layers", "embedding_size"):
        _field(path, settings, key, int)
    for key in ("query_token", "residual"):
        if key in settings:
            _field(path, settings, key, bool)
    _pooling(path, settings)
    config = PerankConfig(**settings)
    if config.prompt not in TEMPLATES:
        raise CheckpointError(
            f"{path}: prompt is {config.prompt!r}, expected one of {', '.join(TEMPLATES)}"
        )
    if config.num_layers < 1 or config.embedding_size < 1:
        raise CheckpointError(
            f"{path}: num_layers and embedding_size must be 1 or more, found "
            f"{config.num_layers} and {config.embedding_size}"
        )
    return config


def _base_config(path: Path, base: Path, num_layers: int) -> PretrainedConfig:
    config = _read_json(base / "config.json")
    model_type = config.pop("model_type", None)
    if model_type not in BASE_LLMS:
        raise CheckpointError(
            f"{base / 'config.json'}: model_type is {model_type!r}; a base model must be one of "
            f"{', '.join(BASE_LLMS)}"
        )
    layers = config.get("num_hidden_layers", 0)
    if num_layers > layers:
        raise CheckpointError(
            f"{path}: num_layers is {num_layers}, but the base model at {base} has {layers}"
        )
    config["num_hidden_layers"] = num_layers
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = config["layer_types"][:num_layers]
    for key in ("architectures", "transformers_version", "torch_dtype", "dtype"):
        config.pop(key, None)
    return BASE_LLMS[model_type](**config)


def _body(llm: PretrainedConfig, files: TensorFiles) -> dict[str, Tensor]:
    """The LLM's tensors without its head. The vocabulary's size is the embedding matrix's."""
    llm.pad_token_id = None
    embedding = "model.embed_tokens.weight"
    if embedding in files.files:
        llm.vocab_size = files.get(embedding).shape[0]
    return {
        name: files.get(f"model.{name}", tuple(tensor.shape))
        for name, tensor in meta_body(llm).state_dict().items()
    }


def _projector(
    summary: CheckpointSummary, files: TensorFiles, prefix: str, hidden_size: int
) -> dict[str, Tensor]:
    try:
        shapes = projector_shapes(summary.projector_type, summary.embedding_size, hidden_size)
    except ValueError as error:
        raise CheckpointError(f"{summary.folder / 'config.json'}: {error}") from error
    return {name: files.get(prefix + name, shape) for name, shape in shapes.items()}


def _adapted(body: dict[str, Tensor], files: TensorFiles, scale: float) -> dict[str, Tensor]:
    """The base's tensors with the checkpoint's replacements and low-rank additions."""
    adapted = dict(body)
    for key in files.files:
        kind, _, name = key.partition(".")
        if kind not in ("body", "lora_a"):
            continue
        if name not in body:
            raise CheckpointError(
                f"{files.files[key]}: tensor {key!r} changes {name!r}, which the base model "
                f"cut to its kept layers does not have"
            )
        if kind == "body":
            adapted[name] = files.get(key, tuple(body[name].shape))
            continue
        rows, columns = body[name].shape
        low = files.get(key)
        rank = low.shape[0]
        low = files.get(key, (rank, columns)).float()
        high = files.get(f"lora_b.{name}", (rows, rank)).float()
        adapted[name] = (body[name].float() + scale * high @ low).to(body[name].dtype)
    return adapted


def _local(folder: Path, name: str) -> Path | None:
    """The folder that `name` means to a checkpoint in `folder`, None where it means none.

    Relative names are the checkpoint's: what they mean does not depend on where one works.
    """
    path = folder / Path(name).expanduser()
    return path.resolve() if path.is_dir() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: a checkpoint is a folder with config.json and weights"
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _field(path: Path, config: dict[str, Any], key: str, kind: type) -> Any:
    value = config.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CheckpointError(f"{path}: {key} is {value!r}, expected {kind.__name__}")
    return value


def _pooling(path: Path, config: dict[str, Any]) -> str:
    pooling = config.get("encoder_pooling")
    if pooling not in POOLINGS:
        raise CheckpointError(
            f"{path}: encoder_pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}"
        )
    return str(pooling)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = re.sub(r"\s+", " ", str(error))[:200]
    return CheckpointError(f"{path} cannot be read: {reason}. Fetch or write the file anew")
