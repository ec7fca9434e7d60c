"""What a checkpoint is: in, a folder, a name or a hub id; out, its `CheckpointSummary`.

config.json is checked and files are hashed; no tensor is read and no model unpacked, so that
neither torch nor transformers is imported, except to list the names in a pickle. `checkpoint`
loads what is described here.

Two layouts are read.

The *published* one (github.com/liuqi6777/pe_rank): `config.json` with `model_type`
`embed_mistral` or `embed_llama`. Beside it lie all weights, or only what a training changed:
a LoRA adapter, whose `adapter_config.json` names the base model, or a `projector.bin`, with the
base model's weights beside it or its name in config.json as `_name_or_path`.

*Ours* (`"format": "perank"`) names a base model and adds to it. `config.json` holds the fields
of `PerankConfig`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from perank_tasks.config import Options
from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models.encoder_spec import EncoderSpec
from perank_tasks.models.find import (
    ResolvedModel,
    content_hash,
    find_model,
    looks_like_hub_id,
    resolve_model,
    unknown_name,
)
from perank_tasks.perank.checkpoint_files import TensorFiles, read_json, weight_files
from perank_tasks.perank.prompt import COMPACT_V1, RELEASED_V1, TEMPLATES

SHIPPED = Path(__file__).resolve().parent.parent / "models" / "shipped"

FORMAT_VERSION = 1
POOLINGS = "^(mean|cls|last_token)$"
PROMPTS = f"^({'|'.join(TEMPLATES)})$"

PromptOrder = Literal["given", "residual"]
"""In what order a window's passages stand in a prompt without texts: `given`, as the first stage
and the windows before left them (the paper's); `residual`, best first by the residual, so that the
LLM knows by their places what the first opinion of them is, and the given order decides nothing
but ties."""

# model_type of the published layout -> of the LLM inside
PUBLISHED_LLMS = {"embed_llama": "llama", "embed_mistral": "mistral"}
PUBLISHED_KEYS = ("encoder_name", "encoder_pooling", "embedding_size", "projector_type")
ENCODER_PREFIX = "model.encoder.encoder."
LLM_LAYOUT = "llm"
"""Of a plain LLM, which is no checkpoint: it has no projector and ranks by texts alone."""


class RankerConfig(Options):
    """What config.json says of a ranker in either layout."""

    model_config = ConfigDict(strict=True)

    encoder: str
    encoder_pooling: str = Field(pattern=POOLINGS)
    embedding_size: int = Field(ge=1)
    projector_type: str
    prompt: str = Field(default=COMPACT_V1.name, pattern=PROMPTS)
    query_token: bool = True
    residual: bool = True
    score_residual: bool = False
    """Whether the residual also reads the first stage's score; only where `residual` is true."""
    prompt_order: PromptOrder = "given"
    """`residual` only where `residual` is true."""
    encoder_revision: str | None = None


class PublishedConfig(RankerConfig):
    """The fields of the published layout that are read here; its LLM's are beside them."""

    encoder: str = Field(alias="encoder_name")
    prompt: str = Field(default=RELEASED_V1.name, pattern=PROMPTS)
    query_token: bool = False
    residual: bool = False


class PerankConfig(RankerConfig):
    """`config.json` of our own format, but for `format` and `format_version`."""

    base_model: str
    """Embedded name, folder (relative ones: to the checkpoint's) or hub id of the LLM."""
    base_revision: str | None
    """The base's revision as `resolve_model` gives it; checked where it is not null."""
    num_layers: int = Field(ge=1)
    """The base's first layers that are kept; its final norm follows them."""
    lora_scale: float = 1.0
    description: str = ""
    training: dict[str, Any] = Field(default_factory=dict)
    """How it was made, for people; the engine does not read it."""

    @model_validator(mode="after")
    def _residual_is_there(self) -> Self:
        if self.score_residual and not self.residual:
            raise ValueError("score_residual is true, but residual, which it adds to, is false")
        if self.prompt_order == "residual" and not self.residual:
            raise ValueError(
                "prompt_order is 'residual', but residual, which it sorts by, is false"
            )
        return self


@dataclass(frozen=True)
class CheckpointSummary:
    """What a checkpoint is, from its configuration and its files' bytes.

    `revision` is the hub's commit, None for a folder. `hash` covers every file but *.md, and
    the base model.
    """

    name: str
    folder: Path
    revision: str | None
    layout: str
    hash: str
    projector_type: str
    embedding_size: int
    prompt: str
    prompt_order: PromptOrder
    query_token: bool
    has_residual: bool
    encoder: EncoderSpec
    base_model: str | None
    base_revision: str | None


class OpenCheckpoint(NamedTuple):
    """A checkpoint whose files were found, and its config.json: `config` checked, `raw` as it is.

    `base` is the model that it adds to, not unpacked; None where the weights beside config.json
    are all there is.
    """

    summary: CheckpointSummary
    config: RankerConfig
    raw: dict[str, Any]
    base: ResolvedModel | None


def summarize_checkpoint(
    path_or_name: str | os.PathLike[str], *, cache: Path, revision: str | None = None
) -> CheckpointSummary:
    """Say what a checkpoint is without loading it.

    Args:
        path_or_name: a folder, a name under `perank_tasks/models/shipped`, or a hub id.
        cache: as for `resolve_model`.
        revision: for a hub id, the branch, tag or commit.

    Raises:
        ConfigError: nothing of that name, or a revision of something that has none.
        CheckpointError: config.json or the weights' files are missing, unreadable or inconsistent.
    """
    return open_checkpoint(path_or_name, cache=cache, revision=revision).summary


def find_checkpoint(
    path_or_name: str | os.PathLike[str], *, cache: Path, revision: str | None = None
) -> ResolvedModel:
    """Where a checkpoint given by path, by name or by hub id lies.

    A name is that of a shipped checkpoint; `warehouse.registry` knows those that are registered.

    Raises:
        ConfigError: nothing of that name (close ones are offered), or a revision of something
            that has none.
    """
    name = os.fspath(path_or_name)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = SHIPPED / name
        if not (folder / "config.json").is_file():
            if looks_like_hub_id(name):
                return resolve_model(name, cache=cache, revision=revision)
            raise unknown_name("checkpoint", name, shipped_checkpoints())
    if revision is not None:
        raise ConfigError(
            f"revision is {revision!r}, but the checkpoint {name!r} is the folder {folder}: only "
            f"a hub id has revisions. Leave revision out"
        )
    return ResolvedModel(name, folder, None)


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))


def open_checkpoint(
    path_or_name: str | os.PathLike[str], *, cache: Path, revision: str | None
) -> OpenCheckpoint:
    """Find and check a checkpoint; as `summarize_checkpoint`."""
    model = find_checkpoint(path_or_name, cache=cache, revision=revision)
    path = model.folder / "config.json"
    raw = read_json(path)
    is_own = raw.get("format") == "perank"
    if is_own and raw.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {raw.get('format_version')!r}, expected {FORMAT_VERSION}. "
            f"A newer one needs a newer perank"
        )
    if not is_own and str(raw.get("model_type")) not in PUBLISHED_LLMS:
        raise CheckpointError(
            f"{path}: model_type is {raw.get('model_type')!r}, expected "
            f'{" or ".join(PUBLISHED_LLMS)}, or "format": "perank". A plain LLM or embedder is no '
            f"PE-Rank checkpoint: it lacks the projector"
        )
    kind = PerankConfig if is_own else PublishedConfig
    settings = {key: raw[key] for key in raw if not key.startswith("format")}
    if not is_own:  # the LLM's are beside them
        settings = {key: raw[key] for key in raw if key in PUBLISHED_KEYS}
    try:
        config = kind.parse(settings, f"{path}: its settings")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if isinstance(config, PerankConfig):
        base: ResolvedModel | None = _own_base(model.folder, config)
        summary = summary_of(model, config, base, config.base_model, "perank")
    else:
        base = _published_base(model, raw)
        if base is None:
            TensorFiles(model.folder)  # refuses weights that are missing or no weights at all
        summary = summary_of(model, config, base, base.name if base else None, "published")
    return OpenCheckpoint(summary, config, raw, base)


def summary_of(
    model: ResolvedModel,
    config: RankerConfig,
    base: ResolvedModel | None,
    base_model: str | None,
    layout: str,
) -> CheckpointSummary:
    """The summary of a model with this configuration over `base`, which is called `base_model`."""
    salt = (base.revision or content_hash(base.folder)) if base else ""
    return CheckpointSummary(
        name=model.name,
        folder=model.folder,
        revision=model.revision,
        layout=layout,
        hash=content_hash(model.folder, salt=salt),
        projector_type=config.projector_type,
        embedding_size=config.embedding_size,
        prompt=config.prompt,
        prompt_order=config.prompt_order,
        query_token=config.query_token,
        has_residual=config.residual,
        encoder=EncoderSpec(
            name=config.encoder,
            pooling=config.encoder_pooling,
            embedding_size=config.embedding_size,
            folder=_local(model.folder, config.encoder),
            revision=config.encoder_revision,
        ),
        base_model=base_model,
        base_revision=base.revision if base else None,
    )


def _published_base(model: ResolvedModel, config: dict[str, Any]) -> ResolvedModel | None:
    """The base model that a checkpoint of the published layout adds to, not unpacked.

    None where the weights beside config.json are all there is. A relative name is resolved
    against the checkpoint's folder.

    Raises:
        ConfigError: no such model.
        CheckpointError: an adapter that names none.
    """
    folder = model.folder
    path, settings, key = folder / "config.json", config, "_name_or_path"
    if (folder / "adapter_config.json").is_file():
        path, key = folder / "adapter_config.json", "base_model_name_or_path"
        settings = read_json(path)
    elif weight_files(folder) or not (folder / "projector.bin").is_file():
        return None
    name = settings.get(key)
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"{path}: {key} is {name!r}, and the folder has no LLM of its own. Write there the "
            f"base model's name, folder or hub id"
        )
    try:
        return _find_base(folder, name, settings.get("revision"))
    except ConfigError as error:
        raise ConfigError(
            f"the base model of checkpoint {model.name!r} cannot be found. {key} in {path} names "
            f"it: write there where it is on this machine; {error}"
        ) from error


def _own_base(folder: Path, config: PerankConfig) -> ResolvedModel:
    """The base model of a checkpoint of ours, not unpacked, of the revision it was made for.

    Raises:
        ConfigError: no such model.
        CheckpointError: it is of another revision.
    """
    base = _find_base(folder, config.base_model, config.base_revision)
    if config.base_revision and base.revision and config.base_revision != base.revision:
        raise CheckpointError(
            f"{folder / 'config.json'}: made for {config.base_model} of revision "
            f"{config.base_revision}, found revision {base.revision} at {base.folder}. Its "
            f"projector fits only the former"
        )
    return base


def _find_base(folder: Path, name: str, revision: str | None) -> ResolvedModel:
    revision = revision if looks_like_hub_id(name) else None
    return find_model(str(_local(folder, name) or name), revision=revision)


def _local(folder: Path, name: str) -> Path | None:
    """The folder that `name` means to a checkpoint in `folder`, None where it means none.

    Relative names are the checkpoint's: what they mean does not depend on where one works.
    """
    path = folder / Path(name).expanduser()
    return path.resolve() if path.is_dir() else None
