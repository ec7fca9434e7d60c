"""Dynamic-constrained decoding: in, a batch of windows; out, the order of each.

At every step the last position's hidden state is scored against the window's own projected
passages, those already output are masked, and the best one's projected embedding is the next
input (paper, section 3.3). The last passage left needs no forward pass. All windows of a
batch go in lockstep over one prefill and one key/value cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Window:
    """What one window is ranked from: its prompt, its passages (n, H) and query (H,), projected."""

    prompt: Prompt
    projected: Tensor
    projected_query: Tensor | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A window's order, positions 0..n-1 best first, and how many of them the LLM put out.

    `finite` is False where a logit was NaN or infinite; the order then means nothing.
    """

    order: list[int]
    steps: int
    finite: bool


@torch.inference_mode()
def decode(
    model: RankingModel, windows: Sequence[Window], max_steps: int | None = None
) -> list[Decoded]:
    """Rank the passages of every window. Equal logits go to the earlier passage.

    Args:
        model: the ranking model.
        windows: B windows, of 2 or more passages each; sizes may differ.
        max_steps: passages each window puts out; the others follow in the order they came in.
            None: all.

    Returns:
        One `Decoded` a window, in order.
    """
    sizes = [len(window.projected) for window in windows]
    steps = [min(size - 1, max_steps or size) for size in sizes]
    projected = torch.nn.utils.rnn.pad_sequence(
        [window.projected for window in windows], batch_first=True
    )
    queries = _stack([window.projected_query for window in windows])
    available = (torch.arange(projected.shape[1])[None] < torch.tensor(sizes)[:, None]).to(
        projected.device
    )
    bias = model.bias(projected, queries)
    finite = torch.ones(len(windows), dtype=torch.bool, device=projected.device)
    rows = torch.arange(len(windows), device=projected.device)

    prompts = [window.prompt for window in windows]
    inputs, mask, positions = model.prompt_inputs(prompts, projected, queries)
    position = positions[:, -1:]
    states, cache = model.hidden(inputs, mask, positions)
    chosen: list[Tensor] = []
    while True:
        logits = model.logits(states[:, -1], projected, bias)
        finite &= (torch.isfinite(logits) | ~available).all(1)
        best = logits.masked_fill(~available, -torch.inf).argmax(1)
        chosen.append(best)
        if len(chosen) == max(steps):
            break
        available = available.index_put((rows, best), available.new_zeros(()))
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(windows), 1)], 1)
        states, cache = model.hidden(projected[rows, best][:, None], mask, position, cache)

    outputs = torch.stack(chosen, 1).tolist()
    return [
        Decoded(_completed(output[:count], size), count, ok)
        for output, count, size, ok in zip(outputs, steps, sizes, finite.tolist(), strict=True)
    ]


def _stack(queries: list[Tensor | None]) -> Tensor | None:
    given = [query for query in queries if query is not None]
    return torch.stack(given) if given else None


def _completed(output: list[int], size: int) -> list[int]:
    seen = set(output)
    return output + [position for position in range(size) if position not in seen]
