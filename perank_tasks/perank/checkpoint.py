"""Checkpoints: in, a folder, a shipped name or a hub id; out, weights and settings, checked.

`checkpoint_config` says which layouts there are and checks config.json. The tensors, by layout:

The *published* one: `model.layers.*`, `model.projector.*` and, where the encoder is inside,
`model.encoder.encoder.*`, in safetensors, sharded or not. What lies over them, each winning
over those before: `non_lora_trainables.bin`, `projector.bin`, a LoRA adapter, which is merged.
Where the weights are a base model's, of another folder, its tokenizer counts, as in the reference.

*Ours*, in `model.safetensors`:

    projector.{weight,bias}             linear: (hidden, embedding_size), (hidden,)
    projector.{0,2,…}.{weight,bias}     mlpNx_gelu
    residual.t, residual.b              scalars, where `residual` is true
    residual.s                          scalar, where `score_residual` is true
    body.<name>                         replaces the base's, as body.layers.0.mlp.up_proj.weight
    lora_a.<name>, lora_b.<name>        (r, in), (out, r): adds lora_scale · B·A to the base's, or
                                        to what replaces it

Pickles are read with `weights_only=True` or refused; nothing in a checkpoint is executed.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    LlamaTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from perank_tasks.errors import CheckpointError
from perank_tasks.models.find import resolve_model, unpack_model
from perank_tasks.perank.checkpoint_adapter import merge_adapter, plain_name, read_adapter
from perank_tasks.perank.checkpoint_config import (
    ENCODER_PREFIX,
    FORMAT_VERSION,
    LLM_LAYOUT,
    PUBLISHED_LLMS,
    CheckpointSummary,
    PerankConfig,
    PublishedConfig,
    open_checkpoint,
    summary_of,
)
from perank_tasks.perank.checkpoint_files import TensorFiles, read_json, read_pickle, setting
from perank_tasks.perank.llm import ACTIVATIONS, FAMILIES, meta_body
from perank_tasks.perank.projector import projector_shapes
from perank_tasks.support.files import making_folder, what_lies_instead

WRITE_REMEDY = "Make room, or name another folder."


@dataclass(frozen=True)
class Checkpoint(CheckpointSummary):
    """A checkpoint in memory, complete and of consistent shapes.

    `body` holds the tensors of a `LlamaModel` or `MistralModel` built from `llm`;
    `encoder_weights` those of the encoder inside the checkpoint, if there is one.
    `residual` is (t, b) of the logit `t·(h·p_i) + b·(p_q·p_i)`, None for plain `h·p_i`;
    `score_residual` is s where `s·score_i` is added, of the first stage's score.
    """

    tokenizer_folder: Path
    llm: PretrainedConfig
    body: dict[str, Tensor]
    projector: dict[str, Tensor]
    residual: tuple[float, float] | None = None
    score_residual: float | None = None
    encoder_weights: dict[str, Tensor] | None = None


def load_checkpoint(
    path_or_name: str | os.PathLike[str], *, cache: Path, revision: str | None = None
) -> Checkpoint:
    """Read a checkpoint and check that its files make the model its configuration promises.

    Args:
        path_or_name: a folder, a name under `perank_tasks/models/shipped`, or a hub id.
        cache: where base models are unpacked, see `resolve_model`.
        revision: for a hub id, the branch, tag or commit to fetch.

    Raises:
        ConfigError: nothing of that name, or a revision of something that has none.
        CheckpointError: a file is missing, unreadable, unsafe or inconsistent.
    """
    found = open_checkpoint(path_or_name, cache=cache, revision=revision)
    weights = unpack_model(found.base, cache=cache).folder if found.base else found.summary.folder
    if isinstance(found.config, PerankConfig):
        return _load_own(found.summary, found.config, weights)
    return _load_published(found.summary, found.raw, weights)


def load_llm(name: str, *, prompt: str, cache: Path, revision: str | None = None) -> Checkpoint:
    """Read a plain LLM as a checkpoint that reads no embeddings: it ranks by texts alone.

    Args:
        name: an embedded model's name, a folder or a hub id.
        prompt: a name in `prompt.TEMPLATES`.
        cache, revision: as for `resolve_model`.

    Raises:
        ConfigError: no such model or prompt.
        CheckpointError: it is no Llama or Mistral, or a file is missing, unreadable or unsafe.
    """
    model = resolve_model(name, cache=cache, revision=revision)
    path = model.folder / "config.json"
    llm = _base_config(path, model.folder, None)
    config = PublishedConfig.parse(
        {
            "encoder_name": "none",
            "encoder_pooling": "mean",
            "embedding_size": llm.hidden_size,
            "projector_type": "identity",
            "prompt": prompt,
        }
    )
    return Checkpoint(
        **vars(summary_of(model, config, None, name, LLM_LAYOUT)),
        tokenizer_folder=model.folder,
        llm=llm,
        body=_body(path, llm, TensorFiles(model.folder)),
        projector={},
    )


def load_head(checkpoint: Checkpoint) -> Tensor:
    """The LLM's output embeddings, (V, H), which only free decoding needs.

    Raises:
        CheckpointError: they are missing, damaged, or changed by an adapter.
    """
    adapter = read_adapter(checkpoint.folder)
    if adapter is not None and any("lm_head" in name for name in adapter.tensors):
        raise CheckpointError(
            f"{adapter.path} changes the LLM's head, which free decoding reads from the base "
            f"model. Merge the adapter into it (peft: `merge_and_unload`) and save the result"
        )
    files = TensorFiles(checkpoint.tokenizer_folder)
    tied = "model.embed_tokens.weight"
    return files.get("lm_head.weight" if "lm_head.weight" in files.files else tied)


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The LLM's tokenizer.

    A SentencePiece `tokenizer.model` of the published layout is read by LlamaTokenizer, as the
    reference does: after a special token it starts a word anew. AutoTokenizer would go by the
    LLM's family and split otherwise. Elsewhere tokenizer.json, where there is one, is taken as it
    stands.

    Raises:
        CheckpointError: there is none, or a vocabulary larger than the embedding matrix.
    """
    folder = checkpoint.tokenizer_folder
    has_json = (folder / "tokenizer.json").is_file()
    kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    if (folder / "tokenizer.model").is_file() and (
        checkpoint.layout == "published" or not has_json
    ):
        kind = LlamaTokenizer
    elif not has_json:
        raise CheckpointError(
            f"{folder} has no tokenizer: expected tokenizer.json or tokenizer.model"
        )
    settings = folder / "tokenizer_config.json"
    saved = read_json(settings) if settings.is_file() else {}
    # Where nothing is said, the reference's transformers took SentencePiece's older way.
    options = {"legacy": saved.get("legacy", True)} if kind is LlamaTokenizer else {}
    try:
        tokenizer = kind.from_pretrained(folder, **options)
    except Exception as error:  # SentencePiece, protobuf and tokenizers each raise their own
        for path in (folder / "tokenizer.model", folder / "tokenizer.json"):
            if placeholder := what_lies_instead(path):
                raise CheckpointError(f"{path} {placeholder}") from error
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be loaded: {error}. Fetch its files anew"
        ) from error
    if not tokenizer.vocab_size:  # what SentencePiece makes of an empty file
        raise CheckpointError(f"the tokenizer in {folder} has no tokens. Fetch its files anew")
    rows = checkpoint.llm.vocab_size
    if tokenizer.vocab_size > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, but "
            f"'model.embed_tokens.weight' {rows} rows. They belong to different models"
        )
    return tokenizer


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
    settings = {"format": "perank", "format_version": FORMAT_VERSION, **config.model_dump()}
    with making_folder(folder, WRITE_REMEDY, replace=True) as scratch:
        (scratch / "config.json").write_text(
            json.dumps(settings, indent=2) + "\n", encoding="utf-8"
        )
        (scratch / "README.md").write_text(readme, encoding="utf-8")
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(plain, scratch / "model.safetensors", metadata={"format": "pt"})


def _load_published(
    summary: CheckpointSummary, config: dict[str, Any], weights: Path
) -> Checkpoint:
    folder = summary.folder
    files = TensorFiles(weights)
    adapter = read_adapter(folder)
    if adapter is not None:
        files.put(adapter.path, adapter.plain)
        if (more := folder / "non_lora_trainables.bin").is_file():
            files.put(more, {plain_name(key): value for key, value in read_pickle(more).items()})
    if (extra := folder / "projector.bin").is_file():
        # Whatever leads to a projector's names in there.
        tensors = read_pickle(extra).items()
        own = {
            "model.projector." + key.rsplit("projector.", 1)[-1]: value for key, value in tensors
        }
        files.put(extra, own)
    path = folder / "config.json"
    llm = _llm(path, PUBLISHED_LLMS[config["model_type"]], config)
    body = _body(path, llm, files)
    encoder = {
        key.removeprefix(ENCODER_PREFIX): files.get(key)
        for key in files.files
        if key.startswith(ENCODER_PREFIX) and weights == folder
    }
    return Checkpoint(
        **vars(summary),
        tokenizer_folder=weights,
        llm=llm,
        body=merge_adapter(llm, body, adapter) if adapter else body,
        projector=_projector(summary, files, "model.projector.", llm.hidden_size),
        encoder_weights=encoder or None,
    )


def _load_own(summary: CheckpointSummary, config: PerankConfig, base: Path) -> Checkpoint:
    llm = _base_config(summary.folder / "config.json", base, config.num_layers)
    files = TensorFiles(summary.folder)
    residual = None
    if config.residual:
        residual = (float(files.get("residual.t", ())), float(files.get("residual.b", ())))
    body = _body(base / "config.json", llm, TensorFiles(base))
    return Checkpoint(
        **vars(summary),
        tokenizer_folder=base,
        llm=llm,
        body=_adapted(body, files, config.lora_scale),
        projector=_projector(summary, files, "projector.", llm.hidden_size),
        residual=residual,
        score_residual=float(files.get("residual.s", ())) if config.score_residual else None,
    )


def _base_config(path: Path, base: Path, num_layers: int | None) -> PretrainedConfig:
    """The configuration of a plain LLM, cut to the layers that the file `path` asks for."""
    config = read_json(base / "config.json")
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{base / 'config.json'}: model_type is {model_type!r}; a base model must be one of "
            f"{', '.join(FAMILIES)}"
        )
    if num_layers is None:
        return _llm(base / "config.json", model_type, config)
    layers = setting(base / "config.json", config, "num_hidden_layers", int)
    if num_layers > layers:
        raise CheckpointError(
            f"{path}: num_layers is {num_layers}, but the base model at {base} has {layers}"
        )
    kept: dict[str, Any] = {"num_hidden_layers": num_layers}
    if isinstance(config.get("layer_types"), list):
        kept["layer_types"] = config["layer_types"][:num_layers]
    return _llm(base / "config.json", model_type, config | kept)


def _llm(path: Path, model_type: str, settings: dict[str, Any]) -> PretrainedConfig:
    """The LLM's configuration from `settings`, which were read from `path`."""
    ignored = ("model_type", "architectures", "transformers_version", "torch_dtype", "dtype")
    settings = {key: value for key, value in settings.items() if key not in ignored}
    with _building_by(path):
        llm = AutoConfig.for_model(model_type, **settings)
    if llm.num_hidden_layers < 1:
        raise CheckpointError(
            f"{path}: num_hidden_layers is {llm.num_hidden_layers}, expected 1 or more"
        )
    if llm.hidden_act not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: hidden_act is {llm.hidden_act!r}, expected {' or '.join(ACTIVATIONS)}"
        )
    return llm


@contextmanager
def _building_by(path: Path) -> Iterator[None]:
    """Say of the LLM that transformers cannot build where its configuration lies."""
    try:
        yield
    except Exception as error:  # each setting has errors of its own
        reason = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]
        raise CheckpointError(
            f"{path} describes no LLM that can be built ({reason}). Use the config.json that was "
            f"saved with the weights"
        ) from error


def _body(path: Path, llm: PretrainedConfig, files: TensorFiles) -> dict[str, Tensor]:
    """The LLM's tensors without its head. The vocabulary's size is the embedding matrix's."""
    llm.pad_token_id = None
    embedding = "model.embed_tokens.weight"
    if embedding in files.files:
        llm.vocab_size = files.get(embedding).shape[0]
    with _building_by(path):
        expected = meta_body(llm).state_dict()
    return {
        name: files.get(f"model.{name}", tuple(tensor.shape)) for name, tensor in expected.items()
    }


def _projector(
    summary: CheckpointSummary, files: TensorFiles, prefix: str, hidden_size: int
) -> dict[str, Tensor]:
    try:
        shapes = projector_shapes(summary.projector_type, summary.embedding_size, hidden_size)
    except ValueError as error:
        raise CheckpointError(f"{summary.folder / 'config.json'}: {error}") from error
    # A projector in a file over the weights may be of another type than the one below it.
    sources = {files.files.get(prefix + name) for name in shapes}
    unread = sorted(
        key
        for key, file in files.files.items()
        if file in sources and key.startswith(prefix) and key[len(prefix) :] not in shapes
    )
    if unread:
        raise CheckpointError(
            f"{files.files[unread[0]]}: projector_type {summary.projector_type!r} in "
            f"{summary.folder / 'config.json'} has no place for {', '.join(unread)}. Use the "
            f"config.json that was saved with these weights"
        )
    return {name: files.get(prefix + name, shape) for name, shape in shapes.items()}


def _adapted(body: dict[str, Tensor], files: TensorFiles, scale: float) -> dict[str, Tensor]:
    """The base's tensors with the checkpoint's replacements and low-rank additions."""
    adapted = dict(body)
    # Replacements first: additions go on top of them.
    for key in sorted(files.files):
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
        adapted[name] = (adapted[name].float() + scale * high @ low).to(body[name].dtype)
    return adapted
