"""What the machine can do: in, a device, a dtype, shapes; out, FLOP/s and tokens/s.

The matrix rate is the better of two products, a square one and one of the LLM's MLP: what
no forward pass can exceed. FLOPs count a multiplication and an addition as two.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import PretrainedConfig, PreTrainedModel

from perank_tasks.models.products import Matrix
from perank_tasks.night.provenance import fingerprint
from perank_tasks.perank.decode import PREFILL_TOKENS
from perank_tasks.perank.llm import Cache, Llm

SQUARE = 2048
MLP_TOKENS = 4096


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of `run`, with all that it left to the device."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def matrix_rate(
    llm: PretrainedConfig, device: torch.device, dtype: torch.dtype, *, repeats: int = 5
) -> float:
    """FLOP/s of the engine's matrix products in `dtype`, with the threads that torch is set to.

    The best of `repeats` after one to warm up: other work on the machine can only lower it.
    """
    shapes = [(SQUARE, SQUARE, SQUARE), (MLP_TOKENS, llm.hidden_size, llm.intermediate_size)]
    best = 0.0
    for rows, inner, columns in shapes:
        x = torch.randn(rows, inner, device=device, dtype=dtype)
        weight = Matrix(torch.randn(columns, inner, device=device, dtype=dtype))
        multiply = partial(weight, x)
        multiply()
        fastest = min(seconds_of(multiply, device) for _ in range(repeats))
        best = max(best, 2 * rows * inner * columns / fastest)
    return best


@torch.inference_mode()
def stock_prefill(model: PreTrainedModel, batch: int, length: int) -> float:
    """Seconds of a stock forward pass over (batch, length) token ids, with a cache, no padding.

    `model` is the LLM without a head, or with one that then scores the last position alone.
    """
    ids = torch.randint(0, 100, (batch, length), device=model.device)
    return seconds_of(lambda: model(ids, use_cache=True), model.device)


@torch.inference_mode()
def engine_prefill(llm: Llm, cache: Cache, batch: int, length: int) -> float:
    """Seconds of the engine's forward pass over as many tokens, into a cache, in its own batches.

    Nothing is shared between the prompts: it does the work of the stock pass.
    """
    ids = torch.randint(0, 100, (batch, length), device=llm.device)
    rows = max(1, PREFILL_TOKENS[llm.device.type] // length)

    def read() -> None:
        for first in range(0, batch, rows):
            inputs = llm.embeddings[ids[first : first + rows]]
            every = torch.ones(len(inputs), dtype=torch.long, device=llm.device)
            llm.forward(
                inputs, cache, first_row=first, starts=0 * every, ends=length * every, to=length
            )

    return seconds_of(read, llm.device)


def describe(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """The machine, its libraries and the threads that torch is set to."""
    machine = fingerprint(torch.get_num_threads())
    on_gpu = device.type == "cuda"
    return machine | {
        "device": torch.cuda.get_device_name(device) if on_gpu else machine["processor"],
        "dtype": str(dtype).removeprefix("torch."),
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
