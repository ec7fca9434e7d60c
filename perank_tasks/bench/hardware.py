"""What the machine can do: in, a device; out, seconds and FLOP/s.

The matrix rate is that of a large square product, which no forward pass can exceed by much. FLOPs
count a multiplication and an addition as two.
"""

import time
from collections.abc import Callable
from functools import partial

import torch

from perank_tasks.models.products import Matrix
from perank_tasks.night.provenance import fingerprint

SQUARE = {"cpu": 2048, "cuda": 8192}


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of `run`, with all that it left to the device."""
    wait = partial(torch.cuda.synchronize, device)
    finish: Callable[[], None] = wait if device.type == "cuda" else lambda: None
    finish()
    start = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - start


def product_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """FLOP/s of a square product, with the threads that torch is set to.

    The best of `repeats` after one to warm up: other work on the machine can only lower it.
    """
    size = SQUARE[device.type]
    draw = partial(torch.randn, size, size, device=device, dtype=dtype)
    multiply = partial(Matrix(draw()), draw())
    multiply()
    return 2 * size**3 / min(seconds_of(multiply, device) for _ in range(repeats))


def describe(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """The machine, its libraries and the threads that torch is set to."""
    machine = fingerprint(torch.get_num_threads())
    on_gpu = device.type == "cuda"
    return machine | {
        "device": torch.cuda.get_device_name(device) if on_gpu else machine["processor"],
        "dtype": str(dtype).removeprefix("torch."),
    }
