"""One list on its way through the engine: in, a `CandidateList`; out, window after window, its
`RankedList`.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perank_tasks.errors import QualityError
from perank_tasks.perank.block import Counters, Window
from perank_tasks.perank.decode import Decoded
from perank_tasks.perank.llm import Cache, Prefix
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.prompt import Prompt, PromptBuilder
from perank_tasks.perank.windows import Range, initial_order, schedule
from perank_tasks.support.lists import CandidateList, RankedList


@dataclass(frozen=True)
class Method:
    """What ranks the lists of one call, and how.

    `openings` are what prompts begin with, by the number of passages. `needs_query_embedding`: the
    model or the prompt reads it. `sorts_by_residual`: windows are put in the order of the
    residual's logits before they are ranked, if they are.
    """

    model: RankingModel
    prompts: PromptBuilder
    options: RankingOptions
    counters: Counters
    openings: dict[int, Prefix]
    needs_query_embedding: bool
    sorts_by_residual: bool

    def opening(self, passages: int) -> Prefix:
        """What prompts of so many passages begin with, computed when it is first asked for."""
        if passages not in self.openings:
            self.openings[passages] = self.model.prefix(self.prompts.opening(passages))
        return self.openings[passages]


class Ranking:
    """A list in progress. What is wrong with it becomes its `unranked_reason`.

    Attributes:
        ranked: the result, as far as it is known.
        todo: the windows still to be ranked.
    """

    def __init__(self, method: Method, candidates: CandidateList) -> None:
        self.method, self.candidates = method, candidates
        self.todo: list[Range] = []
        self.ranked = RankedList(
            candidates.query_id, candidates.passage_ids, initial_order(candidates, method.options)
        )
        self._texts: list[str] = []
        self._query_embedding: Tensor | None = None
        self._scores: Tensor | None = None
        self._residual: list[float] | None = None
        self._prompts: dict[int | tuple[int, ...], Prompt] = {}
        self._prefix: Prefix | None = None
        try:
            self._prepare()
        except QualityError as error:
            self.fail(str(error))

    def fail(self, reason: str) -> None:
        """Give the list up: it keeps the order in which it was given."""
        self.todo = []
        given = list(range(len(self.candidates)))
        self.ranked = replace(self.ranked, order=given, unranked_reason=reason)

    def window(self) -> Window | None:
        """The next window; None at the front, or where its prompt cannot be made."""
        if not self.todo:
            return None
        start, end, outputs = self.todo[0]
        if self._residual is not None:
            self._sort_by_residual(start, end)
        members = self.ranked.order[start:end]
        try:
            prompt = self._prompt(members)
        except QualityError as error:
            self.fail(str(error))
            return None
        picked = torch.tensor(members, device=self.method.model.device)
        return Window(
            prompt,
            self._begin(prompt, len(members)),
            self._projected[picked],
            self._query_embedding,
            outputs,
            len(prompt.input_ids) + self.method.prompts.answer_tokens(len(members)),
            None if self._scores is None else self._scores[picked],
        )

    def keep_prefix(self, window: Window, cache: Cache, row: int) -> None:
        """Keep what the window's prompt has before its first embedding, the query too, for the
        windows that follow."""
        if self._prefix is None and window.prompt.passage_slots:
            slots = [*window.prompt.passage_slots, window.prompt.query_slot]
            first = min(slot for slot in slots if slot is not None)
            self._prefix = cache.prefix(row, window.prompt.input_ids[:first])

    def _begin(self, prompt: Prompt, passages: int) -> Prefix:
        """What the prompt begins with that was computed before; not the whole of it."""
        for prefix in (self._prefix, self.method.opening(passages)):
            if prefix is not None and prompt.input_ids[: len(prefix.ids)] == prefix.ids:
                return prefix
        return self.method.model.prefix([])

    def take(self, window: Window, decoded: Decoded) -> None:
        """Put a window's order back into the list."""
        start, end, _ = self.todo.pop(0)
        self._add(
            windows=1,
            tokens_in=len(window.prompt.input_ids),
            decode_steps=decoded.steps,
            numbers_missing=decoded.missing,
            numbers_repeated=decoded.repeated,
        )
        values = np.array(decoded.logits, np.float32).tobytes()
        checksum = zlib.crc32(values, self.ranked.logits_checksum)
        self.ranked = replace(self.ranked, logits_checksum=checksum)
        if not decoded.finite:
            self.fail(
                f"logits of the window [{start}, {end}) are not finite: "
                f"the checkpoint or the embeddings are damaged, or dtype is too narrow"
            )
            return
        members = self.ranked.order[start:end]
        self.ranked.order[start:end] = [members[position] for position in decoded.order]

    def rank_by_residual(self) -> None:
        """Rank every window without the LLM."""
        assert self._residual is not None
        if not np.isfinite(self._residual).all():
            self.fail("the residual's logits are not finite: the checkpoint is damaged")
            return
        for start, end, _ in self.todo:
            self._sort_by_residual(start, end)
        self._add(windows=len(self.todo))
        self.todo = []

    def _add(self, **counts: int) -> None:
        """Add to the result's counters."""
        sums = {name: getattr(self.ranked, name) + count for name, count in counts.items()}
        self.ranked = replace(self.ranked, **sums)

    def _sort_by_residual(self, start: int, end: int) -> None:
        """Sort the places [start, end). Equal logits go to the earlier passage."""
        logits = self._residual
        assert logits is not None
        order = self.ranked.order
        order[start:end] = sorted(order[start:end], key=lambda passage: -logits[passage])

    def _prepare(self) -> None:
        """Check what was given and put it into the forms that windows are made of."""
        candidates, options = self.candidates, self.method.options
        if candidates.problem is not None:
            raise QualityError(candidates.problem)
        query: Any = candidates.query  # a caller in Python may give anything
        if not isinstance(query, str):
            raise QualityError(f"the query is of type {type(query).__name__}, expected text")
        self._query = self.method.prompts.prepare(candidates.query)
        self.ranked = replace(self.ranked, query_was_cut=self._query.was_cut)
        self._add(markers_defused=self._query.markers_defused)
        todo = schedule(len(candidates), options)
        if not todo:
            return
        if options.passages != "embeddings":
            self._prepare_texts()
        if options.passages == "text":
            # Nothing of it is ever read; it says how many passages a window has.
            model = self.method.model
            nothing = torch.zeros(1, model.llm.hidden_size, device=model.device, dtype=model.dtype)
            self._projected = nothing.expand(len(candidates), -1)
        else:
            self._prepare_embeddings()
        self.todo = todo

    def _prepare_texts(self) -> None:
        texts: Sequence[Any] = () if self.candidates.texts is None else self.candidates.texts
        if len(texts) != len(self.candidates):
            raise QualityError(f"{len(texts)} texts for {len(self.candidates)} passages")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise QualityError(
                    f"passage {place} is of type {type(text).__name__}, expected text"
                )
        prepared = [self.method.prompts.prepare_passage(text) for text in texts]
        self._texts = [text.text for text in prepared]
        self._add(
            markers_defused=sum(text.markers_defused for text in prepared),
            texts_cut=sum(text.was_cut for text in prepared),
        )

    def _prepare_embeddings(self) -> None:
        candidates, model, n = self.candidates, self.method.model, len(self.candidates)
        size = model.embedding_size
        if candidates.vectors is None:
            raise QualityError("the passages' embeddings are missing")
        try:
            given = candidates.embeddings
        except (IndexError, TypeError) as error:
            raise QualityError(f"the list has rows that its embeddings lack: {error}") from error
        embeddings = _numbers("embeddings", given, (n, size), candidates.passage_ids)
        self._projected = _project(model, embeddings)
        if model.score_residual is not None:
            scores = np.zeros(n) if candidates.scores is None else candidates.scores
            # Whole numbers will do.
            scores = _numbers(
                "first-stage scores", scores, (n,), candidates.passage_ids, kinds="fiu"
            )
            self._scores = torch.from_numpy(scores.astype(np.float32)).to(model.device)
        if not self.method.needs_query_embedding:
            return
        if candidates.query_embedding is None:
            raise QualityError("the query's embedding is missing, and this checkpoint needs it")
        asked = _numbers(
            "values of the query's embedding", candidates.query_embedding, (size,), range(size)
        )
        self._query_embedding = _project(model, asked[None])[0]
        if self.method.sorts_by_residual:
            ahead = None if self._scores is None else self._scores[None]
            bias = model.bias(self._projected[None], self._query_embedding[None], ahead)
            assert bias is not None
            self._residual = bias[0].tolist()

    def _prompt(self, members: list[int]) -> Prompt:
        """The prompt of a window; without texts it depends on nothing but its size."""
        size = len(members)
        key = tuple(members) if self._texts else size
        if key in self._prompts:
            return self._prompts[key]
        begin = time.perf_counter()
        texts = [self._texts[member] for member in members] if self._texts else []
        prompt = self.method.prompts.build(self._query, size, texts)
        needed = len(prompt.input_ids) + self.method.prompts.answer_tokens(size)
        most = self.method.model.llm.max_positions
        if needed > most:
            raise QualityError(
                f"a window of {size} passages needs {needed} positions, the LLM has {most}: "
                f"choose a smaller window"
            )
        self._prompts[key] = prompt
        self.method.counters.tokenise_seconds += time.perf_counter() - begin
        return prompt


def _numbers(
    what: str, given: Any, shape: tuple[int, ...], names: Sequence[Any], *, kinds: str = "f"
) -> np.ndarray:
    """The array of what was given, of this shape and a dtype of these kinds; `names` of its rows.

    Raises:
        QualityError: it is no such array, or not finite.
    """
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor elsewhere
        raise QualityError(f"{what} make no array: {error}") from error
    if array.shape != shape:
        raise QualityError(f"{what} have shape {array.shape}, expected {shape}")
    if array.dtype.kind not in kinds:
        raise QualityError(f"{what} are of type {array.dtype}, expected floats")
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if bad.any():
        first = names[int(bad.argmax())]
        raise QualityError(f"{int(bad.sum())} {what} are not finite, {first!r} the first")
    return array


@torch.inference_mode()
def _project(model: RankingModel, embeddings: np.ndarray) -> Tensor:
    """(n, d) -> (n, H). Equal rows stay equal to the last bit, so that duplicates tie: each
    distinct row is projected once."""
    distinct, inverse = np.unique(
        np.ascontiguousarray(embeddings, np.float32), axis=0, return_inverse=True
    )
    projected = model.project(torch.from_numpy(distinct))
    return projected[torch.from_numpy(inverse.reshape(-1)).to(projected.device)]
