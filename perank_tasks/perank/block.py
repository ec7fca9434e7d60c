"""A block: in, windows; out, their prompts' hidden states, and one more a step. One row each.

All windows of a block have caches of one length, and go through the LLM in lockstep. Its rows are
as many as its shape has: those without a window are dummies, whose results nobody reads.

On a GPU a pass is captured as a CUDA graph when it is first run and replayed from then on: at few
tokens a pass, launching kernels one by one costs more than running them. What is computed comes
from replays alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from perank_tasks.perank.llm import Cache, Prefix
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.prompt import Prompt
from perank_tasks.perank.shapes import Shapes


@dataclass(frozen=True, slots=True)
class Window:
    """What one window is ranked from.

    `prefix` is what its prompt begins with and is not computed again. `projected` is (n, H),
    `projected_query` (H,). `outputs` is how many passages have to be put out, 1 to n. `scores` are
    the first stage's, (n,) in float32, where the model reads them. `tokens` is what prompt and
    answer take at most.
    """

    prompt: Prompt
    prefix: Prefix
    projected: Tensor
    projected_query: Tensor | None
    outputs: int
    tokens: int
    scores: Tensor | None = None

    @property
    def new_tokens(self) -> int:
        """Tokens of the prompt behind the prefix."""
        return len(self.prompt.input_ids) - len(self.prefix.ids)


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


class Replays:
    """Runs functions that read and write fixed tensors: on a GPU as CUDA graphs, by name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[object, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(
        self, name: object, function: Callable[[], None], state: Sequence[Tensor] = ()
    ) -> None:
        """Run `function`, which changes `state` and otherwise gives the same when run again."""
        if self._device.type != "cuda":
            function()
            return
        if name not in self._graphs:
            before = [tensor.clone() for tensor in state]
            function()  # does once what capturing must not
            for tensor, old in zip(state, before, strict=True):
                tensor.copy_(old)
            torch.cuda.synchronize(self._device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):  # records, does not run
                function()
            self._graphs[name] = graph
        self._graphs[name].replay()


class _PrefillPass:
    """The fixed tensors of a pass over `rows` prompts of `length` new tokens."""

    def __init__(self, model: RankingModel, rows: int, length: int) -> None:
        hidden = model.llm.hidden_size
        self.inputs = torch.zeros(rows, length, hidden, device=model.device, dtype=model.dtype)
        self.rows, self.starts, self.ends = (
            torch.zeros(rows, dtype=torch.long, device=model.device) for _ in range(3)
        )
        self.hidden = torch.zeros(rows, hidden, device=model.device, dtype=model.dtype)


class Block:
    """Rows of one cache on their way through the LLM.

    Args:
        model: what ranks.
        shapes: of its passes.
        rows: of the cache; as many of a decoding pass where shapes are fixed.
        length: of the cache.
        places: W, the most passages of a window.
        counters: where work is counted.

    Attributes:
        windows: what is in the first rows.
        rows: R, of a decoding pass.
        projected: (R, W, H).
        queries: projected, (R, H).
        scores: (R, W), the first stage's; 0 where the model reads none.
        residual: (R, W), the residual's share of the logits.
        available: (R, W), whether there is such a passage; decoding takes them away.
        chosen, logits: (R, W), the passages put out and their logits, `turn` (1,) of them.
        finite: (R,), whether all logits were.
        hidden: (R, H), of each row's last token.
        inputs: (R, 1, H), each row's next token.
        row_numbers: (R,), from 0.
    """

    def __init__(
        self,
        model: RankingModel,
        shapes: Shapes,
        rows: int,
        length: int,
        places: int,
        counters: Counters,
    ) -> None:
        self.model, self.shapes, self.counters = model, shapes, counters
        self.windows: Sequence[Window] = []
        self.places = places
        # A dummy of a prefill pass needs a row to write to that no window is in.
        self.cache = Cache(model.llm, rows + shapes.is_fixed, length)
        self._replays = Replays(model.device)
        self._passes: dict[int, _PrefillPass] = {}
        self._draft: tuple[Tensor, Tensor] | None = None
        self._allocate(rows if shapes.is_fixed else 0)

    def _allocate(self, rows: int) -> None:
        """Make the tensors of a block of `rows` rows."""
        model, places, hidden = self.model, self.places, self.model.llm.hidden_size

        def zeros(*shape: int, dtype: torch.dtype = model.dtype) -> Tensor:
            return torch.zeros(rows, *shape, device=model.device, dtype=dtype)

        self.rows = rows
        self.projected = zeros(places, hidden)
        self.queries = zeros(hidden)
        self.hidden = zeros(hidden)
        self.inputs = zeros(1, hidden)
        self.scores = zeros(places, dtype=torch.float32)
        self.residual = zeros(places, dtype=torch.float32)
        self.logits = zeros(places, dtype=torch.float32)
        self.available = zeros(places, dtype=torch.bool)
        self.finite = ~zeros(dtype=torch.bool)
        self.chosen = zeros(places, dtype=torch.long)
        self.turn = torch.zeros(1, device=model.device, dtype=torch.long)
        self.row_numbers = torch.arange(rows, device=model.device)
        self._starts = zeros(dtype=torch.long)
        self._ones = zeros(dtype=torch.long) + 1

    @torch.inference_mode()
    def fill(self, windows: Sequence[Window]) -> None:
        """Put windows, those with most tokens first, into the first rows, and nothing into the
        others."""
        self.windows, count = windows, len(windows)
        if not self.shapes.is_fixed and self.rows != count:
            self._allocate(count)
        state = (self.projected, self.queries, self.scores, self.available, self.chosen)
        for tensor in (*state, self.turn, self.hidden, self.inputs, self._starts):
            tensor.zero_()
        self.finite.fill_(True)
        projected = pad_sequence([window.projected for window in windows], batch_first=True)
        self.projected[:count, : projected.shape[1]] = projected
        queries = [w.projected_query for w in windows if w.projected_query is not None]
        if queries:
            self.queries[:count] = torch.stack(queries)
        scores = [window.scores for window in windows if window.scores is not None]
        if scores:
            self.scores[:count, : projected.shape[1]] = pad_sequence(scores, batch_first=True)
        sizes = torch.tensor([len(window.projected) for window in windows])
        places = torch.arange(self.projected.shape[1])
        self.available[:count] = (places < sizes[:, None]).to(self.model.device)
        for row, window in enumerate(windows):
            self.cache.put(row, window.prefix)
        residual = self.model.bias(self.projected, self.queries, self.scores)
        if residual is not None:
            self.residual.copy_(residual)

    @torch.inference_mode()
    def prefill(self) -> None:
        """Run the prompts through the LLM; `hidden` is then that of each one's last token."""
        begin = time.perf_counter()
        padded = [self.shapes.prefill_length(window.new_tokens) for window in self.windows]
        first = 0
        while first < len(padded):
            end = min(first + self.shapes.prefill_rows(padded[first]), len(padded))
            if self.shapes.is_fixed:  # what follows is as long or shorter
                end = first + padded[first:end].count(padded[first])
                self._fixed_pass(padded[first], slice(first, end))
            else:
                self._plain_pass(slice(first, end))
            first = end
        lengths = [len(window.prompt.input_ids) for window in self.windows]
        self._starts[: len(lengths)] = torch.tensor(lengths, device=self.model.device)
        self.counters.prefill_seconds += self._seconds_since(begin)

    def step(self, name: str, react: Callable[[], None], *, times: int) -> None:
        """Feed `inputs` to the LLM `times` times; after each, `react` reads `hidden` and writes the
        next `inputs`.

        Args:
            name: of `react`, which has to do the same whenever it comes by that name.
        """

        def advance() -> None:
            hidden = self.model.llm.forward(
                self.inputs,
                self.cache,
                rows=slice(0, self.rows),
                starts=self._starts,
                ends=self._ones,
            )
            self.hidden.copy_(hidden)
            self._starts.add_(1)
            react()

        # What is written at a step's own turn is the same when it is written again.
        state = (self.inputs, self._starts, self.available, self.finite, self.turn)
        for _ in range(times):
            self._replays(name, advance, state)

    def feed(self, places: list[int], *, kept: int) -> Tensor:
        """Feed the first row's passages at `places` to the LLM, one behind the other and behind the
        first `kept` of those that were fed last; (L, H), the hidden state of each, L at least as
        many."""
        self._starts += kept
        length = self.places if self.shapes.is_fixed else len(places)
        picked = torch.tensor(places + (length - len(places)) * [0], device=self.model.device)
        inputs = self.projected[:1, picked]
        if self._draft is None or not self.shapes.is_fixed:
            self._draft = inputs.clone(), torch.zeros_like(inputs)
        fed, hidden = self._draft
        fed.copy_(inputs)

        def forward() -> None:
            every = self.model.llm.forward(
                fed,
                self.cache,
                rows=slice(0, 1),
                starts=self._starts[:1],
                ends=self._ones[:1],
                every=True,
            )
            hidden.copy_(every)

        self._replays("draft", forward)
        return hidden[0]

    def count_decoding(self, steps: int, begin: float) -> None:
        """Note that `steps` tokens were fed to every row since the clock showed `begin`."""
        rows = len(self.windows)
        prompts = sum(len(window.prompt.input_ids) for window in self.windows)
        pairs = steps * prompts + rows * steps * (steps + 1) // 2
        self.counters.forward_passes += steps
        self.counters.decode_tokens += steps * rows
        self.counters.padding_tokens += steps * (self.rows - rows)
        self.counters.flops += self.model.llm.flops(steps * rows, pairs)
        self.counters.decode_seconds += self._seconds_since(begin)

    def _plain_pass(self, rows: slice) -> None:
        windows = self.windows[rows]
        inputs = self._embedded(windows, rows)
        starts = torch.tensor([len(window.prefix.ids) for window in windows])
        ends = torch.tensor([window.new_tokens for window in windows])
        self.hidden[rows] = self.model.llm.forward(
            inputs, self.cache, rows=rows, starts=starts, ends=ends
        )
        self._count(windows, len(windows) * inputs.shape[1])

    def _fixed_pass(self, length: int, rows: slice) -> None:
        """One pass over the prompts in `rows`; what is missing of its rows are dummies."""
        size = self.shapes.prefill_rows(length)
        if length not in self._passes:
            self._passes[length] = _PrefillPass(self.model, size, length)
        fixed = self._passes[length]
        windows = self.windows[rows]
        dummies = size - len(windows)
        fixed.inputs.zero_()
        embedded = self._embedded(windows, rows)
        fixed.inputs[: len(windows), : embedded.shape[1]] = embedded
        starts = [len(window.prefix.ids) for window in windows]
        ends = [window.new_tokens for window in windows]
        fixed.rows.copy_(torch.tensor([*range(rows.start, rows.stop)] + dummies * [self.rows]))
        fixed.starts.copy_(torch.tensor(starts + dummies * [0]))
        fixed.ends.copy_(torch.tensor(ends + dummies * [1]))

        def forward() -> None:
            hidden = self.model.llm.forward(
                fixed.inputs, self.cache, rows=fixed.rows, starts=fixed.starts, ends=fixed.ends
            )
            fixed.hidden.copy_(hidden)

        self._replays(length, forward)
        self.hidden[rows] = fixed.hidden[: len(windows)]
        self._count(windows, size * length)

    def _embedded(self, windows: Sequence[Window], rows: slice) -> Tensor:
        prompts = [window.prompt for window in windows]
        starts = [len(window.prefix.ids) for window in windows]
        return self.model.embed(prompts, starts, self.projected[rows], self.queries[rows])

    def _count(self, windows: Sequence[Window], computed: int) -> None:
        starts = [len(window.prefix.ids) for window in windows]
        news = [window.new_tokens for window in windows]
        pairs = sum(n * s + n * (n + 1) // 2 for n, s in zip(news, starts, strict=True))
        self.counters.forward_passes += 1
        self.counters.prefill_tokens += sum(news)
        self.counters.reused_tokens += sum(starts)
        self.counters.padding_tokens += computed - sum(news)
        self.counters.flops += self.model.llm.flops(sum(news), pairs)

    def _seconds_since(self, begin: float) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter() - begin
