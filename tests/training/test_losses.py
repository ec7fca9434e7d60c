"""The losses against plain loops and known values."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perank_tasks.training.losses import (
    IGNORED,
    available,
    divergence,
    listwise,
    reconstruction,
    step_log_probabilities,
    step_weights,
    top_agreement,
)

SIZES = [5, 3, 1, 4]


def batch(seed: int, sizes: list[int] = SIZES) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, n, n), rankings padded by n - 1 at most, sizes."""
    generator = torch.Generator().manual_seed(seed)
    n = max(sizes)
    ranking = torch.arange(n).repeat(len(sizes), 1)
    for row, size in enumerate(sizes):
        ranking[row, :size] = torch.randperm(size, generator=generator)
    logits = torch.randn(len(sizes), n, n, generator=generator, requires_grad=True)
    return logits, ranking, torch.tensor(sizes)


def probabilities(logits: Tensor, ranking: list[int], size: int) -> list[dict[int, float]]:
    """{passage: probability} at each step, by the definition."""
    steps = []
    for k in range(size):
        left = ranking[k:size]
        total = sum(math.exp(logits[k, i].item()) for i in left)
        steps.append({i: math.exp(logits[k, i].item()) / total for i in left})
    return steps


WEIGHTS = {
    "uniform": lambda k, n: 1.0,
    "discount": lambda k, n: 1 / math.log2(k + 2),
    "exponential": lambda k, n: 2.0 ** (n - k) - 1,
}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_listwise_is_the_loop(weights: str) -> None:
    logits, ranking, sizes = batch(1)
    steps = step_log_probabilities(logits, available(ranking, sizes))
    found = listwise(steps, ranking, sizes, weights)  # type: ignore[arg-type]
    expected = []
    for row, size in enumerate(SIZES):
        golden = ranking[row].tolist()
        w = [WEIGHTS[weights](k, size) for k in range(size)]
        terms = [
            -math.log(step[golden[k]])
            for k, step in enumerate(probabilities(logits[row], golden, size))
        ]
        expected.append(sum(a * b for a, b in zip(w, terms, strict=True)) / sum(w))
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    # A passage that is out, and a padded one, have no say.
    for row, size in enumerate(SIZES):
        golden = ranking[row].tolist()
        for k in range(5):
            for i in range(5):
                if k >= size or i not in golden[k:size]:
                    assert logits.grad[row, k, i] == 0


def test_chance_is_the_known_value() -> None:
    ranking = torch.randperm(20, generator=torch.Generator().manual_seed(0))[None]
    sizes = torch.tensor([20])
    steps = step_log_probabilities(torch.zeros(1, 20, 20), available(ranking, sizes))
    found = listwise(steps, ranking, sizes)
    assert found.item() == pytest.approx(math.log(math.factorial(20)) / 20, rel=1e-5)
    assert found.item() == pytest.approx(2.117, abs=1e-3)


def test_a_perfect_model_has_no_loss() -> None:
    _, ranking, sizes = batch(2)
    logits = torch.full((4, 5, 5), -50.0)
    for row in range(4):
        for k in range(5):
            logits[row, k, ranking[row, k]] = 50.0
    steps = step_log_probabilities(logits, available(ranking, sizes))
    assert listwise(steps, ranking, sizes).item() == pytest.approx(0, abs=1e-6)
    assert top_agreement(logits, ranking, sizes).item() == 1


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_sum_to_one_and_padding_weighs_nothing(weights: str) -> None:
    found = step_weights(torch.tensor([100, 7, 1]), 100, weights)  # type: ignore[arg-type]
    assert torch.allclose(found.sum(1), torch.ones(3))
    assert (found[1, 7:] == 0).all()
    assert (found[2, 1:] == 0).all()
    assert (found[0, 1:] <= found[0, :-1]).all()


def test_padding_changes_nothing() -> None:
    logits, ranking, sizes = batch(3)
    together = listwise(
        step_log_probabilities(logits, available(ranking, sizes)), ranking, sizes, "discount"
    )
    alone = []
    for row, size in enumerate(SIZES):
        one, golden, m = logits[row : row + 1, :size, :size], ranking[row : row + 1, :size], size
        steps = step_log_probabilities(one, available(golden, torch.tensor([m])))
        alone.append(listwise(steps, golden, torch.tensor([m]), "discount"))
    assert together.item() == pytest.approx(sum(x.item() for x in alone) / 4, rel=1e-6)


@pytest.mark.parametrize("scaling", ["reference", "mean"])
def test_divergence_is_the_loop(scaling: str) -> None:
    teacher, ranking, sizes = batch(4)
    student = batch(5)[0]
    mask = available(ranking, sizes)
    found = divergence(
        step_log_probabilities(teacher, mask),
        step_log_probabilities(student, mask),
        mask,
        sizes,
        scaling,  # type: ignore[arg-type]
    )
    expected = []
    for row, size in enumerate(SIZES):
        golden = ranking[row].tolist()
        pairs = zip(
            probabilities(teacher[row], golden, size),
            probabilities(student[row], golden, size),
            strict=True,
        )
        total = sum(t * math.log(t / s[i]) for ts, s in pairs for i, t in ts.items())
        expected.append(total / (size if scaling == "mean" else 1))
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    found.backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0
    if scaling == "mean":
        assert teacher.grad is None
    else:
        assert torch.isfinite(teacher.grad).all()
        assert teacher.grad.abs().sum() > 0


def test_the_references_scaling_is_torchs_batchmean() -> None:
    """Which sums over steps: 20 times what `mean` gives at n = 20."""
    teacher, ranking, sizes = batch(6, [20, 20])
    student = batch(7, [20, 20])[0]
    mask = available(ranking, sizes)
    t, s = (step_log_probabilities(x, mask) for x in (teacher, student))
    plain = F.kl_div(
        s.masked_fill(~mask, 0), t.masked_fill(~mask, 0).exp() * mask, reduction="batchmean"
    )
    # kl_div takes 0 · log 0 as 0, but the masked entries' exp(0) must not count.
    reference = divergence(t, s, mask, sizes, "reference")
    assert reference.item() == pytest.approx(plain.item(), rel=1e-5)
    mean = divergence(t, s, mask, sizes, "mean")
    assert reference.item() == pytest.approx(20 * mean.item(), rel=1e-5)


def test_equal_branches_do_not_diverge() -> None:
    logits, ranking, sizes = batch(8)
    mask = available(ranking, sizes)
    steps = step_log_probabilities(logits, mask)
    assert divergence(steps, steps, mask, sizes, "reference").item() == pytest.approx(0, abs=1e-7)


def test_reconstruction_is_the_mean_over_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 9, generator=generator)
    targets = torch.tensor([[1, 2, 3, 4], [5, 6, IGNORED, IGNORED]])
    terms = [
        -logits[b, j].log_softmax(-1)[targets[b, j]].item()
        for b in range(2)
        for j in range(4)
        if targets[b, j] != IGNORED
    ]
    assert reconstruction(logits, targets).item() == pytest.approx(sum(terms) / 6, rel=1e-6)
    assert reconstruction(torch.zeros(1, 3, 50), torch.tensor([[1, 2, 3]])).item() == pytest.approx(
        math.log(50), rel=1e-6
    )


def test_top_agreement_looks_at_the_first_step_and_no_padding() -> None:
    logits = torch.zeros(2, 3, 3)
    logits[0, 0] = torch.tensor([0.0, 2.0, 1.0])
    logits[1, 0] = torch.tensor([0.0, 1.0, 9.0])  # the third is padding
    ranking = torch.tensor([[1, 2, 0], [0, 1, 2]])
    assert top_agreement(logits, ranking, torch.tensor([3, 2])).item() == 0.5
    ranking[1] = torch.tensor([1, 0, 2])
    assert top_agreement(logits, ranking, torch.tensor([3, 2])).item() == 1
