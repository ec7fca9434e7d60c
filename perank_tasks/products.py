"""Matrix products of float32 on a CPU, by oneDNN.

torch multiplies float32 by MKL, which takes processors of other makers for older ones and uses half
of their vector units: on an AMD EPYC of 2024, oneDNN, which torch carries too, is 2.2 times as fast
from a hundred rows on, and as exact. It is what `torch.compile` calls for frozen weights; anywhere
else (a GPU, other precisions, under autocast) products are torch's own.

Shapes: x (…, K), weight (N, K), bias (N,) -> (…, N).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
            return _product(x, self._weight, self._bias)
        return F.linear(x, self._weight, self._bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `torch.nn.functional.linear` computes, with gradients."""
    if not (_takes(x) and _takes(weight)) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return _product(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """torch's layer, multiplying by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def replace_linears(module: nn.Module) -> None:
    """Let every plain `nn.Linear` in `module` multiply by `linear`; its parameters stay."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                with torch.device("meta"):
                    new = Linear(child.in_features, child.out_features, child.bias is not None)
                new.weight, new.bias = child.weight, child.bias
                new.train(child.training)
                setattr(parent, name, new)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
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
    return AVAILABLE and tensor.device.type == "cpu" and tensor.dtype == torch.float32
