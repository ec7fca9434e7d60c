"""Decoding: in, windows of several queries; out, the order of each.

*Constrained* (paper, section 3.3): at every step the last hidden state is scored against the
window's own projected passages, those already output are masked, and the best one's projected
embedding is the next input. The last passage left needs no forward pass. *First step* orders a
window by the logits of the first of these steps. *Free* generates over the whole vocabulary and
reads numbers from what comes.

All windows of a block go in lockstep (`block`).
"""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perank_tasks.perank.block import Block
from perank_tasks.perank.prompt import PromptBuilder


@dataclass(frozen=True, slots=True)
class Decoded:
    """A window's order, positions 0..n-1 best first, and what it took.

    `steps`: passages or tokens that the LLM put out. `finite` is False where a logit was NaN or
    infinite; the order then means nothing. `logits` are those that won, one a step, float32.
    `missing`, `repeated`: numbers that free generation left out, or wrote again or beyond n.
    """

    order: list[int]
    steps: int
    finite: bool = True
    logits: Sequence[float] = ()
    missing: int = 0
    repeated: int = 0


@torch.inference_mode()
def constrained(block: Block) -> list[Decoded]:
    """Rank by dynamic-constrained decoding. Equal logits go to the earlier passage."""
    block.prefill()
    begin = time.perf_counter()
    counts = [min(len(window.projected) - 1, window.outputs) for window in block.windows]

    def choose() -> None:
        logits = block.model.logits(block.hidden, block.projected, block.residual)
        block.finite.logical_and_((torch.isfinite(logits) | ~block.available).all(1))
        highest, best = logits.masked_fill_(~block.available, -torch.inf).max(1)
        block.logits.index_copy_(1, block.turn, highest[:, None])
        block.chosen.index_copy_(1, block.turn, best[:, None])
        block.available.scatter_(1, best[:, None], False)
        block.inputs[:, 0] = block.projected[block.row_numbers, best]
        block.turn.add_(1)

    choose()
    block.step("choose", choose, times=max(counts) - 1)
    results = zip(block.chosen.tolist(), block.finite.tolist(), block.logits.tolist(), strict=True)
    block.count_decoding(max(counts) - 1, begin)
    return [
        Decoded(_completed(output[:count], len(window.projected)), count, ok, logits[:count])
        for (output, ok, logits), count, window in zip(results, counts, block.windows, strict=False)
    ]


@torch.inference_mode()
def drafted(block: Block) -> list[Decoded]:
    """Rank a block's only window by dynamic-constrained decoding, in fewer passes.

    The order of a step's logits is a draft of all steps behind it. Fed in one pass, it gives the
    logits of all of them up to the first wrong guess; theirs are the next draft.
    """
    block.prefill()
    begin = time.perf_counter()
    model, (window,) = block.model, block.windows
    count = min(len(window.projected) - 1, window.outputs)
    left = set(range(len(window.projected)))
    output: list[int] = []
    highest: list[float] = []
    draft: list[int] = []
    finite, passes = True, 0
    steps = model.logits(block.hidden, block.projected, block.residual)
    while True:
        right = 0
        for logits in steps.tolist():
            finite = finite and all(math.isfinite(logits[place]) for place in left)
            order = sorted(left, key=lambda place: (-logits[place], place))
            output.append(order[0])
            highest.append(logits[order[0]])
            left.remove(order[0])
            right += 1
            if len(output) == count or right >= len(draft) or draft[right] != order[0]:
                break
        if len(output) == count or not finite:
            break
        kept = right if draft else 0
        draft = order[: count - len(output)]
        fed = block.feed(draft, kept=kept)
        steps = model.logits(fed, block.projected.expand(len(fed), -1, -1), block.residual)
        steps, passes = steps[: len(draft)], passes + 1
    block.count_decoding(passes, begin)
    return [Decoded(_completed(output, len(window.projected)), len(output), finite, highest)]


@torch.inference_mode()
def first_step(block: Block) -> list[Decoded]:
    """Rank by the first step's logits. Equal logits go to the earlier passage."""
    block.prefill()
    begin = time.perf_counter()
    logits = block.model.logits(block.hidden, block.projected, block.residual)
    finite = (torch.isfinite(logits) | ~block.available).all(1).tolist()
    logits = logits.masked_fill(~block.available, -torch.inf)
    ordered = logits.sort(dim=1, descending=True, stable=True)
    results = zip(ordered.indices.tolist(), finite, ordered.values.tolist(), strict=True)
    block.count_decoding(0, begin)
    return [
        Decoded(order[: len(window.projected)], 1, ok, logits[: len(window.projected)])
        for (order, ok, logits), window in zip(results, block.windows, strict=False)
    ]


@torch.inference_mode()
def free(block: Block, head: Tensor, prompts: PromptBuilder) -> list[Decoded]:
    """Rank by greedy generation over the whole vocabulary.

    Args:
        block: the windows.
        head: (V, H), the vocabulary's output embeddings.
        prompts: made the windows' prompts, and reads what answers them.
    """
    block.prefill()
    begin = time.perf_counter()
    finite = torch.isfinite(block.hidden).all(1).tolist()
    limits = [prompts.answer_tokens(len(window.projected)) for window in block.windows]
    stop = prompts.stop_tokens
    written: list[list[int]] = [[] for _ in block.windows]
    going = set(range(len(block.windows)))
    steps = 0
    while True:
        tokens = (block.hidden @ head.T).argmax(1)
        block.inputs[:, 0] = block.model.llm.embeddings[tokens]
        numbers = tokens.tolist()
        for row in list(going):
            if numbers[row] in stop or len(written[row]) == limits[row]:
                going.discard(row)
            else:
                written[row].append(numbers[row])
        if not going:
            break
        block.step("write", lambda: None, times=1)
        steps += 1
    block.count_decoding(steps, begin)
    return [
        _parsed(prompts.read_answer(tokens), len(window.projected), len(tokens), finite=ok)
        for tokens, window, ok in zip(written, block.windows, finite, strict=False)
    ]


def _parsed(answer: str, size: int, steps: int, *, finite: bool) -> Decoded:
    """Read `[3] > [1] > …`: the first mention of each number counts, what is missing follows in
    the order it came in (RankGPT's repair)."""
    order: list[int] = []
    repeated = 0
    for number in re.findall(r"\d+", answer):
        # Longer ones are no passage's, and int() refuses very long ones.
        position = int(number[:9]) - 1
        if 0 <= position < size and position not in order:
            order.append(position)
        else:
            repeated += 1
    missing = size - len(order)
    return Decoded(_completed(order, size), steps, finite, missing=missing, repeated=repeated)


def _completed(output: list[int], size: int) -> list[int]:
    seen = set(output)
    return output + [position for position in range(size) if position not in seen]
