"""Matrix products of float32 on a CPU, by oneDNN.

torch multiplies float32 by MKL, which takes processors of other makers for older ones and uses half
of their vector units: on an AMD EPYC of 2024, oneDNN, which torch carries too, is 2.2 times as fast
from a hundred rows on, and as exact. It is what `torch.compile` calls for frozen weights; anywhere
else (a GPU, other precisions, under autocast) products are torch's own.

Shapes: x (…, K), weight (N, K), bias (N,) -> (…, N).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this torch has oneDNN's products."""


class Matrix:
    """A weight and its bias, laid out once for many products; for inference.

    Args:
        weight: (N, K), where and in what precision products are made. May be let go afterwards.
        bias: (N,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.elements = weight.numel()
        self._bias = bias
        self._is_packed = _takes(weight)
        # The layout is the same for every number of rows that we have measured, 1 to 1,024.
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight) if self._is_packed else weight
        )

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_packed:
            # A single row may be summed in another order than one of several.
            if x.numel() == x.shape[-1]:
                rows = x.reshape(1, -1).expand(2, -1)
                return _product(rows, self._weight, self._bias)[0].view(*x.shape[:-1], -1)
            return _product(x, self._weight, self._bias)
        return F.linear(x, self._weight, self._bias)

    def __reduce__(self) -> tuple[Any, ...]:
        # torch can neither copy nor pickle oneDNN's layout: the weight travels in its own.
        weight = self._weight.to_dense() if self._is_packed else self._weight
        return Matrix, (weight, self._bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `torch.nn.functional.linear` computes, with gradients."""
    # A single vector's gradients are not worth a way of their own.
    is_torchs = x.dim() < 2 or torch.is_autocast_enabled("cpu")
    if is_torchs or not (_takes(x) and _takes(weight)):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return _product(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """torch's layer, multiplying by `linear`, or by `frozen` where it is neither trained nor moved
    any more."""

    frozen: Matrix | None = None

    def forward(self, input: Tensor) -> Tensor:
        return self.frozen(input) if self.frozen else linear(input, self.weight, self.bias)


def replace_linears(module: nn.Module, *, freeze: bool = False) -> None:
    """Let every plain `nn.Linear` in `module` multiply as `Linear` does; all else of them stays,
    parameters and hooks, too.

    Args:
        freeze: lay the weights out once, for inference: 6% of an embedder's time.
    """
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = Linear
            if freeze:
                bias = None if child.bias is None else child.bias.detach()
                cast(Linear, child).frozen = Matrix(child.weight.detach(), bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable  # oneDNN's products have no gradients of their own
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _product(gradients[0], weight.T, None) if for_x else None,
            _product(rows.T, x.flatten(0, -2).T, None) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _takes(tensor: Tensor) -> bool:
    # oneDNN makes no products, nor gradients, of nothing.
    is_cpu = tensor.device.type == "cpu"
    return AVAILABLE and is_cpu and tensor.dtype == torch.float32 and tensor.numel() > 0
