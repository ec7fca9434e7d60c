"""Decoding: in, windows of several queries; out, the order of each.

*Constrained* (paper, section 3.3): at every step the last hidden state is scored against the
window's own projected passages, those already output are masked, and the best one's projected
embedding is the next input. The last passage left needs no forward pass. *First step* orders a
window by the logits of the first of these steps. *Free* generates over the whole vocabulary and
reads numbers from what comes.

All windows of a batch go in lockstep over one key/value cache, one row each.
"""

import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from perank_tasks.perank.llm import Cache
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.prompt import Prompt

# Tokens of one forward pass over prompts. On a CPU more bring nothing; on a GPU they fill it.
PREFILL_TOKENS = {"cpu": 2_048, "cuda": 16_384}

# A prefix that all windows of a batch share is computed once, where it is at least this long.
SHARED_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Window:
    """What one window is ranked from.

    `projected` is (n, H), `projected_query` (H,). `keys` names what stands at each position of
    the prompt, embeddings included: equal keys up to a position mean an equal cache up to it.
    `outputs` is how many passages have to be put out, 1 to n. `scores` are the first stage's,
    (n,) in float32, where the model reads them.
    """

    prompt: Prompt
    projected: Tensor
    projected_query: Tensor | None
    keys: list[int]
    outputs: int
    scores: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A window's order, positions 0..n-1 best first, and what it took.

    `steps`: passages or tokens that the LLM put out. `finite` is False where a logit was NaN or
    infinite; the order then means nothing. `missing`, `repeated`: numbers that free generation
    left out, or wrote again or beyond n.
    """

    order: list[int]
    steps: int
    finite: bool = True
    missing: int = 0
    repeated: int = 0


@dataclass
class Counters:
    """What an engine has done since it was made.

    `prefill_tokens` are prompt tokens computed, without padding and without those found in the
    cache; `reused_tokens` those found; `padding_tokens` computed for nothing. `load_seconds` went
    into loading, `tokenise_seconds` into prompts, `rank_seconds` into all of `rerank_many` but the
    reading of lists.
    """

    queries: int = 0
    windows: int = 0
    forward_passes: int = 0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    padding_tokens: int = 0
    decode_tokens: int = 0
    flops: int = 0
    load_seconds: float = 0.0
    tokenise_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    rank_seconds: float = 0.0


class Batch:
    """Windows on their way through the LLM: the first rows of a cache, one row each.

    `cached[row]` are the keys of what the cache's row holds from an earlier batch; only what
    differs from there on is computed.

    Attributes:
        projected: (B, n_max, H).
        queries: projected, (B, H); None where prompts and model read none.
        scores: (B, n_max), the first stage's; None where the model reads none.
        lengths: (B,), tokens of each prompt.
        available: (B, n_max), whether there is such a passage.
    """

    def __init__(
        self,
        model: RankingModel,
        cache: Cache,
        cached: list[list[int]],
        windows: Sequence[Window],
        counters: Counters,
    ) -> None:
        self.model, self.cache, self.cached = model, cache, cached
        self.windows, self.counters = windows, counters
        projected = [window.projected for window in windows]
        self.projected = pad_sequence(projected, batch_first=True)
        queries = [w.projected_query for w in windows if w.projected_query is not None]
        self.queries = torch.stack(queries) if queries else None
        scores = [window.scores for window in windows if window.scores is not None]
        self.scores = pad_sequence(scores, batch_first=True) if scores else None
        self.lengths = torch.tensor([len(w.keys) for w in windows], device=model.device)
        sizes = torch.tensor([len(passages) for passages in projected], device=model.device)
        places = torch.arange(self.projected.shape[1], device=model.device)
        self.available = places[None] < sizes[:, None]

    def bias(self) -> Tensor | None:
        """The residual's share of the logits, (B, n_max); None for a model without."""
        return self.model.bias(self.projected, self.queries, self.scores)

    @torch.inference_mode()
    def prefill(self) -> Tensor:
        """Run the prompts through the LLM; (B, H), the hidden state of each one's last token."""
        begin = time.perf_counter()
        self._share_prefix()
        starts = [
            min(_common(cached, window.keys), len(window.keys) - 1)
            for cached, window in zip(self.cached, self.windows, strict=True)
        ]
        budget = PREFILL_TOKENS[self.model.device.type]
        hidden = []
        for first, end in _chunks([len(w.keys) for w in self.windows], starts, budget):
            prompts = [window.prompt for window in self.windows[first:end]]
            hidden.append(self._forward(first, prompts, starts[first:end]))
        for row, window in enumerate(self.windows):
            self.cached[row] = window.keys
        self.counters.prefill_seconds += self._seconds_since(begin)
        return torch.cat(hidden)

    def _share_prefix(self) -> None:
        """Compute what all prompts begin with once, where the cache is still empty."""
        if len(self.windows) < 2 or any(self.cached):
            return
        keys = [window.keys for window in self.windows]
        prompt = self.windows[0].prompt
        slots = [slot for slot in (*prompt.passage_slots, prompt.query_slot) if slot is not None]
        # What the first and the last in order share, all share. The prefix ends before the first
        # embedding, since embeddings differ from query to query.
        shared = min(
            _common(min(keys), max(keys)), *slots, *(len(prompt_keys) - 1 for prompt_keys in keys)
        )
        if shared < SHARED_TOKENS:
            return
        self._forward(0, [Prompt(prompt.input_ids[:shared], [], None)], [0])
        self.cache.spread(shared)
        self.cached[:] = [prompt_keys[:shared] for prompt_keys in keys]

    def _forward(self, first: int, prompts: list[Prompt], starts: list[int]) -> Tensor:
        rows = slice(first, first + len(prompts))
        queries = None if self.queries is None else self.queries[rows]
        inputs = self.model.embed(prompts, starts, self.projected[rows], queries)
        news = [len(p.input_ids) - start for p, start in zip(prompts, starts, strict=True)]
        self._count(news, starts, inputs.shape[1])
        device = self.model.device
        return self.model.llm.forward(
            inputs,
            self.cache,
            first_row=first,
            starts=torch.tensor(starts, device=device),
            ends=torch.tensor(news, device=device),
            to=min(max(starts) + inputs.shape[1], self.cache.length),
        )

    def _count(self, news: list[int], starts: list[int], padded: int) -> None:
        pairs = sum(n * s + n * (n + 1) // 2 for n, s in zip(news, starts, strict=True))
        self.counters.forward_passes += 1
        self.counters.prefill_tokens += sum(news)
        self.counters.reused_tokens += sum(starts)
        self.counters.padding_tokens += padded * len(news) - sum(news)
        self.counters.flops += self.model.llm.flops(sum(news), pairs)

    def count_decoding(self, steps: int, begin: float) -> None:
        """Note that `steps` tokens were fed to every row since the clock showed `begin`."""
        rows = len(self.windows)
        prompts = sum(len(window.keys) for window in self.windows)
        pairs = steps * prompts + rows * steps * (steps + 1) // 2
        self.counters.forward_passes += steps
        self.counters.decode_tokens += steps * rows
        self.counters.flops += self.model.llm.flops(steps * rows, pairs)
        self.counters.decode_seconds += self._seconds_since(begin)

    def _seconds_since(self, begin: float) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter() - begin


class Decoder:
    """One token a row and step, from the end of the prompts on; `body` says what follows what.

    On a GPU the step is captured as a CUDA graph once and replayed: at one token a row, launching
    kernels one by one costs more than running them.
    """

    def __init__(self, batch: Batch, steps: int) -> None:
        model = batch.model
        rows = len(batch.windows)
        self._batch = batch
        self._to = int(batch.lengths.max()) + steps
        self._ones = torch.ones(rows, dtype=torch.long, device=model.device)
        self.inputs = torch.zeros(
            rows, 1, model.llm.hidden_size, device=model.device, dtype=model.dtype
        )
        self._starts = batch.lengths.clone()

    def run(self, steps: int, react: Callable[[Tensor], None]) -> None:
        """Feed `inputs` to the LLM `steps` times; `react` reads each hidden state (B, H) and
        writes the next `inputs` in place."""

        def step() -> None:
            hidden = self._batch.model.llm.forward(
                self.inputs,
                self._batch.cache,
                first_row=0,
                starts=self._starts,
                ends=self._ones,
                to=self._to,
            )
            self._starts += 1
            react(hidden)

        if self._batch.model.device.type != "cuda" or steps < 3:
            for _ in range(steps):
                step()
            return
        step()  # warms up what capturing must not: it does the work of a step, too
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):  # records, does not run
            step()
        for _ in range(steps - 1):
            graph.replay()


@torch.inference_mode()
def constrained(batch: Batch) -> list[Decoded]:
    """Rank by dynamic-constrained decoding. Equal logits go to the earlier passage."""
    hidden = batch.prefill()
    begin = time.perf_counter()
    model, windows, projected = batch.model, batch.windows, batch.projected
    counts = [min(len(window.projected) - 1, window.outputs) for window in windows]
    rows = torch.arange(len(windows), device=model.device)
    bias = batch.bias()
    available = batch.available.clone()
    finite = torch.ones(len(windows), dtype=torch.bool, device=model.device)
    chosen = torch.zeros(len(windows), max(counts), dtype=torch.long, device=model.device)
    turn = torch.zeros(1, dtype=torch.long, device=model.device)
    decoder = Decoder(batch, max(counts) - 1)

    def choose(hidden: Tensor) -> None:
        logits = model.logits(hidden, projected, bias)
        finite.logical_and_((torch.isfinite(logits) | ~available).all(1))
        best = logits.masked_fill_(~available, -torch.inf).argmax(1)
        chosen.index_copy_(1, turn, best[:, None])
        available.scatter_(1, best[:, None], False)
        decoder.inputs[:, 0] = projected[rows, best]
        turn.add_(1)

    choose(hidden)
    decoder.run(max(counts) - 1, choose)
    outputs = chosen.tolist()
    batch.count_decoding(max(counts) - 1, begin)
    return [
        Decoded(_completed(output[:count], len(window.projected)), count, ok)
        for output, count, window, ok in zip(outputs, counts, windows, finite.tolist(), strict=True)
    ]


@torch.inference_mode()
def first_step(batch: Batch) -> list[Decoded]:
    """Rank by the first step's logits. Equal logits go to the earlier passage."""
    hidden = batch.prefill()
    begin = time.perf_counter()
    logits = batch.model.logits(hidden, batch.projected, batch.bias())
    finite = (torch.isfinite(logits) | ~batch.available).all(1).tolist()
    logits = logits.masked_fill(~batch.available, -torch.inf)
    orders = logits.sort(dim=1, descending=True, stable=True).indices.tolist()
    batch.count_decoding(0, begin)
    return [
        Decoded(order[: len(window.projected)], 1, ok)
        for order, window, ok in zip(orders, batch.windows, finite, strict=True)
    ]


@torch.inference_mode()
def free(
    batch: Batch,
    head: Tensor,
    *,
    max_tokens: Callable[[int], int],
    stop: Collection[int],
    read: Callable[[list[int]], str],
) -> list[Decoded]:
    """Rank by greedy generation over the whole vocabulary.

    Args:
        batch: the windows.
        head: (V, H), the vocabulary's output embeddings.
        max_tokens: the longest answer to wait for, by the number of passages.
        stop: tokens that end an answer.
        read: token ids to text.
    """
    hidden = batch.prefill()
    begin = time.perf_counter()
    model = batch.model
    limits = [max_tokens(len(window.projected)) for window in batch.windows]
    written: list[list[int]] = [[] for _ in batch.windows]
    going = set(range(len(batch.windows)))
    decoder = Decoder(batch, max(limits))
    steps = 0

    def write(hidden: Tensor) -> None:
        tokens = (hidden @ head.T).argmax(1)
        decoder.inputs[:, 0] = model.llm.embeddings[tokens]
        for row, token in enumerate(tokens.tolist()):
            if row in going:
                if token in stop or len(written[row]) == limits[row]:
                    going.discard(row)
                else:
                    written[row].append(token)

    write(hidden)
    while going:
        decoder.run(1, write)
        steps += 1
    batch.count_decoding(steps, begin)
    finite = torch.isfinite(hidden).all(1).tolist()
    return [
        _parsed(read(tokens), len(window.projected), len(tokens), ok)
        for tokens, window, ok in zip(written, batch.windows, finite, strict=True)
    ]


def _parsed(answer: str, size: int, steps: int, finite: bool) -> Decoded:
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
    return Decoded(_completed(order, size), steps, finite, size - len(order), repeated)


def _chunks(lengths: list[int], starts: list[int], budget: int) -> list[tuple[int, int]]:
    """Rows next to one another, as many at a time as the budget of tokens lets through."""
    chunks: list[tuple[int, int]] = []
    first, longest = 0, 0
    for row, (length, start) in enumerate(zip(lengths, starts, strict=True)):
        new = length - start
        if row > first and max(longest, new) * (row - first + 1) > budget:
            chunks.append((first, row))
            first, longest = row, 0
        longest = max(longest, new)
    return [*chunks, (first, len(lengths))]


def _common(left: list[int], right: list[int]) -> int:
    """How many keys the two begin with in common."""
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


def _completed(output: list[int], size: int) -> list[int]:
    seen = set(output)
    return output + [position for position in range(size) if position not in seen]
