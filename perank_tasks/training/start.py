"""Where training begins: in, a recipe and some passages; out, a checkpoint that already ranks.

A start is a checkpoint of our format like any other. Its projector is drawn, or solved for in
closed form (`closed_forms`); its LLM is the base model's first layers, whose last one may begin by
copying.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models.find import EMBEDDED_MODELS, find_model, resolve_model
from perank_tasks.perank.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from perank_tasks.perank.checkpoint_config import PerankConfig
from perank_tasks.perank.checkpoint_files import TensorFiles, read_json, setting
from perank_tasks.perank.projector import build_projector, orthonormal_columns
from perank_tasks.training.closed_forms import (
    closed_form,
    components_within_lists,
    copying_attention,
)
from perank_tasks.training.examples import AlignmentExample, Examples, RankingExample
from perank_tasks.training.recipe import AlignRecipe, RankRecipe
from perank_tasks.training.training_folder import Run, begin_run


def begin(
    run: Run,
    recipe: AlignRecipe | RankRecipe,
    passages: Examples[AlignmentExample],
    embedding_size: int,
    lists: Examples[RankingExample] = (),
) -> Checkpoint | dict[str, Any]:
    """The checkpoint that a training begins with, or its report where it is done.

    Args:
        run: whose start is taken, where it names one.
        recipe: of either stage.
        passages, embedding_size, lists: as for `make_start`.

    Raises:
        ConfigError, CheckpointError: as `make_start` and `open_start`; or a layout that what is
            trained cannot be saved in.
        TrainingError: the folder is another training's.
    """
    own = run.folder / "start"
    with PartialState().main_process_first():
        report = begin_run(run, recipe)
        if report is not None:
            return report
        if run.start is None and not (own / "config.json").is_file():
            try:
                make_start(own, recipe, passages, embedding_size, cache=run.cache, lists=lists)
            except ConfigError:
                run.identity_file.unlink()  # leaves the folder for the next try
                raise
    begun = open_start(run.start or own, recipe, cache=run.cache)
    if recipe.layout == "perank" and (begun.layout == "published" or begun.base_model is None):
        # Ours holds what differs from a base model.
        raise ConfigError(
            f"{begun.folder} is a checkpoint of the published layout, and what is trained from it "
            f"can only be saved as one, by stage 2: set layout=published (prompt=released-v1, "
            f"query_token=false, residual=false)"
        )
    return begun


def make_start(
    folder: Path,
    recipe: AlignRecipe | RankRecipe,
    passages: Examples[AlignmentExample],
    embedding_size: int,
    *,
    cache: Path,
    lists: Examples[RankingExample] = (),
) -> None:
    """Write the checkpoint that a recipe begins with where it is given none.

    Args:
        folder: where it goes; one that is there is replaced.
        recipe: of either stage.
        passages: what a closed form is fitted to; not read for drawn projectors.
        embedding_size: d.
        cache: where base models are unpacked, see `resolve_model`.
        lists: what an attention that copies is fitted to.

    Raises:
        ConfigError: no such base model or encoder, or no passages for the closed form.
        CheckpointError: the base model cannot be read.
    """
    base = resolve_model(recipe.base_model, cache=cache)
    files, named = TensorFiles(base.folder), recipe.encoder.partition("?")[0] in EMBEDDED_MODELS
    llm = base.folder / "config.json"
    layers = setting(llm, read_json(llm), "num_hidden_layers", int)
    config = PerankConfig(
        base_model=recipe.base_model if not Path(recipe.base_model).is_dir() else str(base.folder),
        base_revision=base.revision,
        num_layers=_kept_layers(recipe, layers, f"the base model {base.folder}"),
        encoder=recipe.encoder,
        encoder_pooling=recipe.encoder_pooling,
        encoder_revision=find_model(recipe.encoder).revision if named else None,
        embedding_size=embedding_size,
        projector_type=recipe.projector_type,
        prompt=recipe.prompt,
        prompt_order=recipe.prompt_order,
        query_token=recipe.query_token,
        residual=recipe.residual,
        score_residual=recipe.score_residual,
        description=f"untrained: {recipe.projector_start} projector",
        training={"recipe": recipe.model_dump(mode="json")},
    )
    tokens = files.get("model.embed_tokens.weight").float()
    token_length = float(tokens.norm(dim=1).mean())
    length = token_length * recipe.projector_scale
    tensors = _projector(recipe, embedding_size, tokens, length, passages, folder=base.folder)
    if isinstance(recipe, RankRecipe) and recipe.residual:
        tensors |= _residual_tensors(recipe, length, token_length)
    if isinstance(recipe, RankRecipe) and recipe.attention_start == "copying":
        heads = setting(llm, read_json(llm), "num_attention_heads", int)
        last = f"layers.{config.num_layers - 1}"
        tensors |= _copying(recipe, files, last, tensors["projector.weight"], lists, heads)
    card = f"# {folder.name}\n\n**Untrained**: where a training began. {config.description}.\n"
    save_checkpoint(folder, config, tensors, readme=card)


def open_start(path: str | Path, recipe: AlignRecipe | RankRecipe, *, cache: Path) -> Checkpoint:
    """A checkpoint to begin with, in the recipe's form: its first layers, prompt and residual.

    Weights, base model, encoder and projector are the checkpoint's; so are the residual's factors
    where it has them.

    Raises:
        ConfigError: no such checkpoint, or fewer layers than the recipe keeps.
        CheckpointError: it cannot be read.
    """
    checkpoint = load_checkpoint(path, cache=cache)
    layers, whose = checkpoint.llm.num_hidden_layers, f"the checkpoint {checkpoint.folder}"
    checkpoint = _cut(checkpoint, _kept_layers(recipe, layers, whose))
    if isinstance(recipe, AlignRecipe):
        return checkpoint
    token_length = float(checkpoint.body["embed_tokens.weight"].float().norm(dim=1).mean())
    length = _projected_length(checkpoint) or token_length * recipe.projector_scale
    residual = score = None
    if recipe.residual:
        fresh = _residual_tensors(recipe, length, token_length)
        residual = checkpoint.residual or (float(fresh["residual.t"]), float(fresh["residual.b"]))
    if residual and recipe.score_residual:
        score = checkpoint.score_residual
        if score is None:
            # A share of what the cosine weighs in this checkpoint, whoever set that.
            score = recipe.score_weight * residual[1] * length**2
    return replace(
        checkpoint,
        prompt=recipe.prompt,
        prompt_order=recipe.prompt_order,
        query_token=recipe.query_token,
        residual=residual,
        score_residual=score,
    )


def _projector(
    recipe: AlignRecipe | RankRecipe,
    embedding_size: int,
    tokens: Tensor,
    length: float,
    passages: Examples[AlignmentExample],
    *,
    folder: Path,
) -> dict[str, Tensor]:
    hidden = tokens.shape[1]
    if recipe.projector_start == "random":
        torch.manual_seed(recipe.seed)
        try:
            module = build_projector(recipe.projector_type, embedding_size, hidden)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return {f"projector.{name}": value for name, value in module.state_dict().items()}
    if recipe.projector_start != "ridge" and hidden < embedding_size:
        raise ConfigError(
            f"projector_start {recipe.projector_start!r} needs a hidden size of {embedding_size} "
            f"or more, the embeddings' width; the LLM has {hidden}: choose ridge or random"
        )
    if recipe.projector_start == "orthonormal":
        columns = orthonormal_columns(hidden, embedding_size, recipe.seed)
        return {"projector.weight": length * columns, "projector.bias": torch.zeros(hidden)}
    random = np.random.default_rng(recipe.seed)
    count = min(recipe.ridge_passages, len(passages))
    picked = [passages[int(i)] for i in sorted(random.permutation(len(passages))[:count])]
    weight, bias, _ = closed_form(
        [passage.text for passage in picked],
        np.stack([passage.embedding for passage in picked]) if picked else np.zeros((0, 1)),
        tokens,
        _tokenizer(folder),
        penalty=recipe.ridge_penalty,
        orthonormal=recipe.projector_start == "procrustes",
    )
    scale = recipe.projector_scale
    return {"projector.weight": scale * weight, "projector.bias": scale * bias}


def _projected_length(checkpoint: Checkpoint) -> float | None:
    """How long a linear projector makes an embedding of length 1, on average over directions; None
    for others."""
    if checkpoint.projector_type != "linear":
        return None
    weight = checkpoint.projector["weight"].float()
    return float(weight.norm()) / weight.shape[1] ** 0.5


def _residual_tensors(recipe: RankRecipe, length: float, token_length: float) -> dict[str, Tensor]:
    """The residual to begin with, for projected embeddings and tokens of these lengths."""
    tensors = {
        "residual.t": torch.tensor(recipe.llm_scale * token_length / length),
        "residual.b": torch.tensor(recipe.cosine_scale / length**2),
    }
    if recipe.score_residual:
        tensors["residual.s"] = torch.tensor(recipe.cosine_scale * recipe.score_weight)
    return tensors


def _copying(
    recipe: RankRecipe,
    base: TensorFiles,
    last: str,
    projector: Tensor,
    lists: Examples[RankingExample],
    heads: int,
) -> dict[str, Tensor]:
    """What takes the place of the last layer's values and outputs."""
    size = base.get(f"model.{last}.self_attn.o_proj.weight").shape[1] // heads
    values, outputs = copying_attention(
        projector,
        base.get(f"model.{last}.input_layernorm.weight").float(),
        components_within_lists(lists),
        heads=heads,
        key_heads=len(base.get(f"model.{last}.self_attn.v_proj.weight")) // size,
        size=size,
        scale=recipe.copying_scale,
    )
    return {
        f"body.{last}.self_attn.v_proj.weight": values,
        f"body.{last}.self_attn.o_proj.weight": outputs,
    }


def _cut(checkpoint: Checkpoint, layers: int) -> Checkpoint:
    """The checkpoint with the LLM's first layers only."""
    llm = checkpoint.llm
    if layers < llm.num_hidden_layers:
        llm.num_hidden_layers = layers
        if isinstance(getattr(llm, "layer_types", None), list):
            llm.layer_types = llm.layer_types[:layers]
    body = {
        name: tensor
        for name, tensor in checkpoint.body.items()
        if not name.startswith("layers.") or int(name.split(".")[1]) < layers
    }
    return replace(checkpoint, body=body)


def _kept_layers(recipe: AlignRecipe | RankRecipe, layers: int, whose: str) -> int:
    """How many of the `layers` there are the recipe keeps: all where it does not say."""
    count = recipe.num_layers or layers
    if count > layers:
        raise ConfigError(
            f"num_layers is {count}, but {whose} has {layers}: choose fewer, or leave num_layers "
            f"empty"
        )
    return count


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json: a base model needs one")
    return PreTrainedTokenizerFast.from_pretrained(folder)
