"""A last layer that begins by copying: in, projector and lists; out, its values and outputs.

To say "like the first passages of this list" the LLM has to carry their embeddings from their
places to the place that puts passages out. Where to look it learns soon; what to carry takes it
thousands of steps from pretrained weights, which carry words. So the last layer's value and output
matrices may begin in closed form: the values take an embedding out of the hidden state at its
place, in as many of its principal components as there are values, and the outputs put these back
in the directions they came from. Queries and keys, and all layers before it, stay pretrained.

The components are those in which passages of one list differ most: what a list has in common
decides nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from perank_tasks.training.examples import RankingExample

LISTS = 2000
"""That the components are taken from, at most."""


def components_within_lists(lists: Sequence[RankingExample]) -> Tensor:
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
