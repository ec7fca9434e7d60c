"""Weights that training begins with, solved for: in, passages or lists; out, matrices.

A projector: each passage's target is the mean of its tokens' LLM embeddings (centred, of length
1), weighted by their inverse document frequency; ridge regression maps centred embeddings to
these centred targets. Scaled to the length of the LLM's token embeddings, passages enter the LLM
as loud as words do.

A last layer that copies: to say "like the first passages of this list" the LLM has to carry their
embeddings from their places to the place that puts passages out. Where to look it learns soon; what
to carry takes it thousands of steps from pretrained weights, which carry words. So the last layer's
value and output matrices may begin in closed form: the values take an embedding out of the hidden
state at its place, in as many of its principal components as there are values, and the outputs put
these back in the directions they came from. The components are those in which passages of one list
differ most: what a list has in common decides nothing. Queries and keys, and all layers before it,
stay pretrained.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perank_tasks.errors import ConfigError
from perank_tasks.training.examples import Examples, RankingExample

log = logging.getLogger(__name__)

MAX_TOKENS = 256
"""Of a passage that the closed form reads."""

HELD_OUT = 10
"""Every so manieth passage is kept out of the closed form, to see what it explains."""


LISTS = 2000
"""That the components within lists are taken from, at most."""


def closed_form(
    texts: Sequence[str],
    embeddings: np.ndarray,
    tokens: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    *,
    penalty: float,
    orthonormal: bool = False,
) -> tuple[Tensor, Tensor, float]:
    """The projector that brings passages closest to the words they consist of.

    Args:
        texts: m passages.
        embeddings: (m, d).
        tokens: (V, H), the LLM's token embeddings.
        tokenizer: the LLM's.
        penalty: of the ridge regression, as a share of the embeddings' mean variance.
        orthonormal: the closest map with orthonormal columns instead, without bias (orthogonal
            Procrustes): dot products of what it projects are those of the embeddings.

    Returns:
        A linear projector's weight (H, d) and bias (H,), and the share of its targets' variance
        that it explains in passages that it was not fitted to.

    Raises:
        ConfigError: fewer than 20 passages.
    """
    if len(texts) < 2 * HELD_OUT:
        raise ConfigError(
            f"a projector in closed form needs {2 * HELD_OUT} passages or more, found "
            f"{len(texts)}: choose projector_start orthonormal or random"
        )
    targets = _targets(texts, tokens, tokenizer)
    held_out = np.arange(len(texts)) % HELD_OUT == 0
    given = torch.from_numpy(np.asarray(embeddings, np.float64))
    weight, centre, mean = _fit(given[~held_out], targets[~held_out], penalty, orthonormal)
    predicted = (given[held_out] - centre) @ weight.T
    actual = targets[held_out] - mean
    # A map of fixed length explains what it can at the best common scale.
    scale = (predicted * actual).sum() / (predicted**2).sum().clamp_min(1e-30)
    explained = 1 - ((actual - scale * predicted) ** 2).sum() / (actual**2).sum()
    length = float(tokens.float().norm(dim=1).mean())
    projected = (given - (0 if orthonormal else centre)) @ weight.T
    factor = length / float(projected.norm(dim=1).mean())
    bias = torch.zeros(len(weight)) if orthonormal else -factor * (weight @ centre)
    log.info("closed form: explains %.1f%% of passages held out", 100 * float(explained))
    return (factor * weight).float(), bias.float(), float(explained)


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
    ids = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=MAX_TOKENS)[
        "input_ids"
    ]
    rows = np.repeat(np.arange(len(ids)), [len(text) for text in ids])
    columns = np.array([token for text in ids for token in text], np.int64)
    within = columns < len(tokens)
    counts = sparse.csr_array(
        (np.ones(within.sum()), (rows[within], columns[within])), (len(ids), len(tokens))
    )
    frequency = np.bincount(counts.indices, minlength=len(tokens))
    weights = np.log(len(ids) / np.maximum(frequency, 1))
    weighted = counts.multiply(weights[None]).tocsr()
    total = np.maximum(np.asarray(weighted.sum(axis=1)).reshape(-1, 1), 1e-12)
    return torch.from_numpy((weighted @ units.numpy()) / total)


def components_within_lists(lists: Examples[RankingExample]) -> Tensor:
    """(d, d) orthonormal columns: what passages of one list differ in, most first.

    Of the covariance of embeddings around their list's mean, pooled over the first lists.
    """
    size = lists[0].embeddings.shape[1]
    covariance = np.zeros((size, size))
    for i in range(min(LISTS, len(lists))):
        embeddings = np.asarray(lists[i].embeddings, np.float64)
        apart = embeddings - embeddings.mean(axis=0)
        covariance += apart.T @ apart
    return torch.from_numpy(np.linalg.eigh(covariance)[1][:, ::-1].copy()).float()


def copying_attention(
    projector: Tensor,
    norm: Tensor,
    components: Tensor,
    *,
    heads: int,
    key_heads: int,
    size: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Value and output matrices that copy projected embeddings.

    Where all heads look at one place that holds a passage's projected embedding p, untouched by
    the layers before, their outputs add up to `scale` times the part of p in the first components.

    Args:
        projector: (H, d), orthonormal columns of one common length.
        norm: (H,), weights of the RMS norm before the attention.
        components: (d, d), orthonormal columns.
        heads, key_heads: attention heads, and those of them that have keys and values.
        size: of a head.
        scale: as said.

    Returns:
        (key_heads x size, H) and (H, heads x size).
    """
    hidden = len(projector)
    length = projector.norm(dim=0).mean()
    columns = projector / length
    # The norm makes n * sqrt(H) * p / |p| of p.
    undone = torch.where(norm.abs() > 1e-6, 1 / norm, torch.zeros_like(norm))
    back = (columns * undone[:, None]).T / hidden**0.5
    values = torch.zeros(key_heads * size, hidden)
    outputs = torch.zeros(hidden, heads * size)
    shared = heads // key_heads
    for group, part in enumerate(components[:, : key_heads * size].split(size, dim=1)):
        first, width = group * size, part.shape[1]
        values[first : first + width] = part.T @ back
        for head in range(group * shared, (group + 1) * shared):
            outputs[:, head * size : head * size + width] = scale * length / shared * columns @ part
    return values, outputs
