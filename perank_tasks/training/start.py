"""Where training begins: in, a recipe and some passages; out, a checkpoint that already ranks.

A start is a checkpoint of our format like any other. Its projector is drawn, or solved for in
closed form: each passage's target is the mean of its tokens' LLM embeddings (centred, of length
1), weighted by their inverse document frequency; ridge regression maps centred embeddings to
these centred targets. Scaled to the length of the LLM's token embeddings, passages enter the LLM
as loud as words do.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.models.find import EMBEDDED_MODELS, find_model, resolve_model
from perank_tasks.perank.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from perank_tasks.perank.checkpoint_config import PerankConfig
from perank_tasks.perank.checkpoint_files import TensorFiles, read_json, setting
from perank_tasks.perank.projector import build_projector, orthonormal_columns
from perank_tasks.perank.prompt import COMPACT_V1
from perank_tasks.training.copying import components_within_lists, copying_attention
from perank_tasks.training.examples import AlignmentExample, RankingExample
from perank_tasks.training.recipe import AlignRecipe, ProjectorStart, RankRecipe, StageRecipe

log = logging.getLogger(__name__)

MAX_TOKENS = 256
"""Of a passage that the closed form reads."""

HELD_OUT = 10
"""Every so manieth passage is kept out of the closed form, to see what it explains."""


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """A linear projector, (H, d) and (H,), and the share of its targets' variance that it
    explains in passages that it was not fitted to."""

    weight: Tensor
    bias: Tensor
    explained: float


def make_start(
    folder: Path,
    recipe: AlignRecipe | RankRecipe,
    passages: Sequence[AlignmentExample],
    embedding_size: int,
    *,
    cache: Path,
    lists: Sequence[RankingExample] = (),
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
    named = recipe.encoder.partition("?")[0] in EMBEDDED_MODELS
    encoder = find_model(recipe.encoder) if named else None
    tokens = TensorFiles(base.folder).get("model.embed_tokens.weight").float()
    token_length = float(tokens.norm(dim=1).mean())
    length = token_length * recipe.projector_scale
    ranks = recipe if isinstance(recipe, RankRecipe) else None
    has_residual = ranks is not None and ranks.residual
    config = PerankConfig(
        base_model=recipe.base_model if not Path(recipe.base_model).is_dir() else str(base.folder),
        base_revision=base.revision,
        num_layers=_kept_layers(recipe, _layers(base.folder), f"the base model {base.folder}"),
        encoder=recipe.encoder,
        encoder_pooling=recipe.encoder_pooling,
        encoder_revision=encoder.revision if encoder else None,
        embedding_size=embedding_size,
        projector_type=recipe.projector_type,
        prompt=ranks.prompt if ranks else COMPACT_V1.name,
        prompt_order=ranks.prompt_order if ranks else "given",
        query_token=ranks.query_token if ranks else False,
        residual=has_residual,
        score_residual=ranks is not None and ranks.score_residual,
        description=f"untrained: {recipe.projector_start} projector",
        training={"recipe": recipe.model_dump(mode="json")},
    )
    tensors = _projector(recipe, config, tokens, length, passages, folder=base.folder)
    if has_residual:
        assert ranks is not None
        tensors |= _residual_tensors(ranks, length, token_length)
    if ranks is not None and ranks.attention_start == "copying":
        tensors |= _copying(ranks, config, tensors["projector.weight"], lists, folder=base.folder)
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
    found = load_checkpoint(path, cache=cache)
    layers = found.llm.num_hidden_layers
    found = _cut(found, _kept_layers(recipe, layers, f"the checkpoint {found.folder}"))
    if isinstance(recipe, AlignRecipe):
        return found
    token_length = float(found.body["embed_tokens.weight"].float().norm(dim=1).mean())
    length = _projected_length(found) or token_length * recipe.projector_scale
    residual, score = found.residual, found.score_residual
    fresh = _residual_tensors(recipe, length, token_length)
    if not recipe.residual:
        residual = score = None
    else:
        residual = residual or (float(fresh["residual.t"]), float(fresh["residual.b"]))
        if not recipe.score_residual:
            score = None
        elif score is None:
            # A share of what the cosine weighs in this checkpoint, whoever set that.
            score = recipe.score_weight * residual[1] * length**2
    return replace(
        found,
        prompt=recipe.prompt,
        prompt_order=recipe.prompt_order,
        query_token=recipe.query_token,
        residual=residual,
        score_residual=score,
    )


def closed_form(
    texts: Sequence[str],
    embeddings: np.ndarray,
    tokens: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    *,
    penalty: float,
    orthonormal: bool = False,
) -> ClosedForm:
    """The projector that brings passages closest to the words they consist of.

    Args:
        texts: m passages.
        embeddings: (m, d).
        tokens: (V, H), the LLM's token embeddings.
        tokenizer: the LLM's.
        penalty: of the ridge regression, as a share of the embeddings' mean variance.
        orthonormal: the closest map with orthonormal columns instead, without bias (orthogonal
            Procrustes): dot products of what it projects are those of the embeddings.

    Raises:
        ConfigError: fewer than 20 passages.
    """
    if len(texts) < 2 * HELD_OUT:
        raise ConfigError(
            f"a projector in closed form needs {2 * HELD_OUT} passages or more, found "
            f"{len(texts)}: choose projector_start orthonormal or random"
        )
    targets = _targets(texts, tokens, tokenizer)
    held = np.arange(len(texts)) % HELD_OUT == 0
    given = torch.from_numpy(np.asarray(embeddings, np.float64))
    weight, centre, mean = _fit(given[~held], targets[~held], penalty, orthonormal)
    predicted = (given[held] - centre) @ weight.T
    actual = targets[held] - mean
    # A map of fixed length explains what it can at the best common scale.
    scale = (predicted * actual).sum() / (predicted**2).sum().clamp_min(1e-30)
    explained = 1 - ((actual - scale * predicted) ** 2).sum() / (actual**2).sum()
    length = float(tokens.float().norm(dim=1).mean())
    projected = (given - (0 if orthonormal else centre)) @ weight.T
    factor = length / float(projected.norm(dim=1).mean())
    bias = torch.zeros(len(weight)) if orthonormal else -factor * (weight @ centre)
    log.info("closed form: explains %.1f%% of passages held out", 100 * float(explained))
    return ClosedForm((factor * weight).float(), bias.float(), float(explained))


def _fit(
    given: Tensor, targets: Tensor, penalty: float, orthonormal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(H, d) weights, and the means (d,) and (H,) that were taken off."""
    centre, mean = given.mean(0), targets.mean(0)
    x, y = given - centre, targets - mean
    if orthonormal:
        u, _, v = torch.linalg.svd(y.T @ x, full_matrices=False)
        return u @ v, centre, mean
    gram = x.T @ x
    ridge = penalty * float(gram.diagonal().mean()) * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, x.T @ y).T, centre, mean


def _targets(texts: Sequence[str], tokens: Tensor, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """(m, H) float64: each passage's mean token, weighted by inverse document frequency."""
    units = tokens.double() - tokens.double().mean(0)
    units = units / units.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = tokenizer(
        list(texts), add_special_tokens=False, truncation=True, max_length=MAX_TOKENS
    )["input_ids"]
    rows = np.repeat(np.arange(len(found)), [len(ids) for ids in found])
    columns = np.array([token for ids in found for token in ids], np.int64)
    within = columns < len(tokens)
    counts = sparse.csr_array(
        (np.ones(within.sum()), (rows[within], columns[within])), (len(found), len(tokens))
    )
    frequency = np.bincount(counts.indices, minlength=len(tokens))
    weights = np.log(len(found) / np.maximum(frequency, 1))
    weighted = counts.multiply(weights[None]).tocsr()
    total = np.maximum(np.asarray(weighted.sum(axis=1)).reshape(-1, 1), 1e-12)
    return torch.from_numpy((weighted @ units.numpy()) / total)


def _projector(
    recipe: StageRecipe,
    config: PerankConfig,
    tokens: Tensor,
    norm: float,
    passages: Sequence[AlignmentExample],
    *,
    folder: Path,
) -> dict[str, Tensor]:
    hidden = tokens.shape[1]
    begin: ProjectorStart = recipe.projector_start
    if begin == "random":
        torch.manual_seed(recipe.seed)
        try:
            module = build_projector(recipe.projector_type, config.embedding_size, hidden)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return {f"projector.{name}": value for name, value in module.state_dict().items()}
    if begin != "ridge" and hidden < config.embedding_size:
        raise ConfigError(
            f"projector_start {begin!r} needs a hidden size of {config.embedding_size} or more, "
            f"the embeddings' width; the LLM has {hidden}: choose ridge or random"
        )
    if begin == "orthonormal":
        columns = orthonormal_columns(hidden, config.embedding_size, recipe.seed)
        return {"projector.weight": norm * columns, "projector.bias": torch.zeros(hidden)}
    random = np.random.default_rng(recipe.seed)
    count = min(recipe.ridge_passages, len(passages))
    picked = [passages[int(i)] for i in sorted(random.permutation(len(passages))[:count])]
    found = closed_form(
        [passage.text for passage in picked],
        np.stack([passage.embedding for passage in picked]) if picked else np.zeros((0, 1)),
        tokens,
        _tokenizer(folder),
        penalty=recipe.ridge_penalty,
        orthonormal=begin == "procrustes",
    )
    scale = recipe.projector_scale
    return {"projector.weight": scale * found.weight, "projector.bias": scale * found.bias}


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
    config: PerankConfig,
    projector: Tensor,
    lists: Sequence[RankingExample],
    *,
    folder: Path,
) -> dict[str, Tensor]:
    """What takes the place of the last layer's values and outputs."""
    last = f"layers.{config.num_layers - 1}"
    base = TensorFiles(folder)
    heads = setting(
        folder / "config.json", read_json(folder / "config.json"), "num_attention_heads", int
    )
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


def _kept_layers(recipe: StageRecipe, layers: int, whose: str) -> int:
    """How many of the `layers` there are the recipe keeps: all where it does not say."""
    kept = recipe.num_layers or layers
    if kept > layers:
        raise ConfigError(
            f"num_layers is {kept}, but {whose} has {layers}: choose fewer, or leave num_layers "
            f"empty"
        )
    return kept


def _layers(folder: Path) -> int:
    layers = read_json(folder / "config.json").get("num_hidden_layers")
    if not isinstance(layers, int):
        raise CheckpointError(f"{folder / 'config.json'}: num_hidden_layers is {layers!r}")
    return layers


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json: a base model needs one")
    return PreTrainedTokenizerFast.from_pretrained(folder)
