"""What the machine can do: in, a model on a device; out, seconds and FLOP/s.

The matrix rate is the better of two products, a square one and one of the LLM's MLP: what
no forward pass can exceed. FLOPs count a multiplication and an addition as two.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import PreTrainedModel

from perank_tasks.models.products import Matrix
from perank_tasks.night.provenance import fingerprint

SQUARE = {"cpu": 2048, "cuda": 8192}
MLP_TOKENS = 4096


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of `run`, with all that it left to the device."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def matrix_rate(model: PreTrainedModel) -> float:
    """FLOP/s of the engine's matrix products in the model's dtype."""
    mlp = (MLP_TOKENS, model.config.hidden_size, model.config.intermediate_size)
    return product_rate(model.device, model.dtype, mlp)


def product_rate(
    device: torch.device, dtype: torch.dtype, *more: tuple[int, int, int], repeats: int = 5
) -> float:
    """FLOP/s of a square product, or of those in `more` (rows, inner, columns) where one is
    faster, with the threads that torch is set to.

    The best of `repeats` after one to warm up: other work on the machine can only lower it.
    """
    draw = partial(torch.randn, device=device, dtype=dtype)
    size = SQUARE[device.type]
    shapes = [(size, size, size), *more]
    best = 0.0
    for rows, inner, columns in shapes:
        x = draw(rows, inner)
        weight = Matrix(draw(columns, inner))
        multiply = partial(weight, x)
        multiply()
        fastest = min(seconds_of(multiply, device) for _ in range(repeats))
        best = max(best, 2 * rows * inner * columns / fastest)
    return best


def describe(model: PreTrainedModel) -> dict[str, str]:
    """The machine, its libraries and the threads that torch is set to."""
    machine = fingerprint(torch.get_num_threads())
    on_gpu = model.device.type == "cuda"
    return machine | {
        "device": torch.cuda.get_device_name(model.device) if on_gpu else machine["processor"],
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
