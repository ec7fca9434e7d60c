"""Losses of both stages: in, logits or log probabilities; out, a scalar. No state, no model.

Shapes: B lists in a batch, n the most passages in one, V the vocabulary. A list of m < n passages
is padded: its ranking goes on with m, m + 1, …, and its padded steps weigh nothing.

Source: PE-Rank (arXiv 2406.14848), section 3; ListMLE: Xia et al. 2008; weights to the top:
position-aware ListMLE, Lan et al. 2014.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perank_tasks.training.recipe import KlScaling, StepWeights

IGNORED = -100
"""The target of a token that counts for nothing."""


def reconstruction(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a passage's text, in nats a token.

    Args:
        logits: (B, L, V), position j's for token j.
        targets: (B, L) token ids, `IGNORED` where there is none.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def available(ranking: Tensor, sizes: Tensor) -> Tensor:
    """Which passages may be put out at each step of teacher forcing.

    Args:
        ranking: (B, n), the passage of each step, best first.
        sizes: (B,) passages of each list.

    Returns:
        (B, n, n) bool, [b, k, i]: passage i was not put out before step k. Padded steps see
        padded passages only, so that every row has one.
    """
    steps = torch.arange(ranking.shape[1], device=ranking.device)
    turn = torch.empty_like(ranking).scatter_(1, ranking, steps.expand_as(ranking))
    is_passage = steps[None] < sizes[:, None]
    left = turn[:, None, :] >= steps[None, :, None]
    return left & (is_passage[:, None, :] | ~is_passage[:, :, None])


def step_log_probabilities(logits: Tensor, available: Tensor) -> Tensor:
    """(B, n, n) log softmax of each step's logits over the passages not yet put out; -inf else."""
    return logits.float().masked_fill(~available, -math.inf).log_softmax(-1)


def listwise(
    log_probabilities: Tensor, ranking: Tensor, sizes: Tensor, weights: StepWeights = "uniform"
) -> Tensor:
    """ListMLE by teacher forcing: each step's cross-entropy against the golden ranking.

    Args:
        log_probabilities: (B, n, n) of `step_log_probabilities`.
        ranking: (B, n), golden.
        sizes: (B,).
        weights: of the steps, see `STEP_WEIGHTS_HELP`; those of a list sum to 1.

    Returns:
        The mean over lists of the weighted mean over steps. The last step, which has no choice,
        is one of them: chance is log(n!) / n with uniform weights.
    """
    nll = -log_probabilities.gather(2, ranking[..., None])[..., 0]
    weighted = step_weights(sizes, ranking.shape[1], weights) * nll
    return weighted.sum(1).mean()


def step_weights(sizes: Tensor, n: int, weights: StepWeights) -> Tensor:
    """(B, n) weights of each list's steps, which sum to 1; 0 for padded ones."""
    steps = torch.arange(n, device=sizes.device)
    is_step = steps[None] < sizes[:, None]
    if weights == "uniform":
        raw = torch.ones(len(sizes), n, device=sizes.device)
    elif weights == "discount":
        raw = (1 / torch.log2(steps + 2.0)).expand(len(sizes), n)
    else:
        # 2^(m-k) - 1 over 2^m: the same ratios, and no overflow for long lists.
        raw = torch.exp2(-steps.float())[None] - torch.exp2(-sizes.float())[:, None]
    raw = raw * is_step
    return raw / raw.sum(1, keepdim=True)


def divergence(
    teacher: Tensor, student: Tensor, available: Tensor, sizes: Tensor, scaling: KlScaling
) -> Tensor:
    """KL(teacher ‖ student) of the steps' distributions.

    Args:
        teacher, student: (B, n, n) of `step_log_probabilities`: with texts, embeddings only.
        available: (B, n, n) of `available`.
        sizes: (B,).
        scaling: see `KL_SCALING_HELP`.
    """
    if scaling == "mean":
        teacher = teacher.detach()
    # Where a passage is out, both are -inf, and their difference would be NaN.
    teacher = teacher.masked_fill(~available, 0.0)
    student = student.masked_fill(~available, 0.0)
    steps = (teacher.exp() * (teacher - student) * available).sum(2)
    is_step = torch.arange(steps.shape[1], device=sizes.device)[None] < sizes[:, None]
    lists = (steps * is_step).sum(1)
    return (lists if scaling == "reference" else lists / sizes).mean()


def top_agreement(logits: Tensor, ranking: Tensor, sizes: Tensor) -> Tensor:
    """The share of lists whose best passage the first step's logits (B, n, n)[:, 0] put first."""
    is_passage = torch.arange(logits.shape[2], device=sizes.device)[None] < sizes[:, None]
    first = logits[:, 0].float().masked_fill(~is_passage, -math.inf).argmax(1)
    return (first == ranking[:, 0]).float().mean()
