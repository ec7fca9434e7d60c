"""The public engine: in, a stream of queries with their candidates; out, rankings.

Queries are taken in groups; the next windows of all queries of a group are ranked together,
round by round until every list's front is reached. A group's key/value cache keeps a row for
each query, so that what its prompts begin with is computed once. Memory grows with the group,
not with the number of queries, and results come in request order. For a given order of
requests, group size and machine the results are deterministic.
"""

import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perank_tasks.errors import ConfigError, DeviceMemoryError, QualityError
from perank_tasks.models.encoder import Encoder
from perank_tasks.models.encoder_spec import EncoderSpec
from perank_tasks.perank import decode, windows
from perank_tasks.perank.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_head,
    load_tokenizer,
)
from perank_tasks.perank.decode import Batch, Decoded, Window
from perank_tasks.perank.llm import Cache
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.prompt import TEMPLATES, PreparedText, Prompt, PromptBuilder
from perank_tasks.perank.records import Counters, RerankRequest, RerankResult
from perank_tasks.settings import Settings

# Queries ranked together where memory allows: on two cores nothing is gained beyond; a GPU
# decodes as many tokens in the time of one.
MAX_BATCH_QUERIES = {"cpu": 32, "cuda": 256}

# Of the memory that is free, what the key/value cache may take; the forward pass needs some, too.
CACHE_SHARE = {"cpu": 0.25, "cuda": 0.6}
MAX_CPU_CACHE_BYTES = 2**30

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class _Ranking:
    """A query on its way through the rounds."""

    request: RerankRequest
    order: list[int]
    todo: list[windows.Range] = field(default_factory=list)
    prepared: PreparedText | None = None
    texts: list[str] = field(default_factory=list)
    projected: Tensor | None = None
    projected_query: Tensor | None = None
    scores: Tensor | None = None
    residual: list[float] | None = None
    """Logits of the residual alone, where the prompt goes by them or nothing else is asked."""
    prompts: dict[int | tuple[int, ...], Prompt] = field(default_factory=dict)
    reason: str | None = None
    markers_defused: int = 0
    windows: int = 0
    tokens_in: int = 0
    decode_steps: int = 0
    missing: int = 0
    repeated: int = 0

    def fail(self, reason: str) -> None:
        self.reason = reason
        self.todo = []
        self.order = list(range(len(self.request.passage_ids)))

    def sort_by_residual(self, start: int, end: int) -> None:
        """Sort the places [start, end). Equal logits go to the earlier passage."""
        logits = self.residual
        assert logits is not None
        self.order[start:end] = sorted(self.order[start:end], key=lambda p: -logits[p])

    def take(self, window: Window, output: Decoded) -> None:
        """Put a window's order back into the list."""
        start, end, _ = self.todo.pop(0)
        self.windows += 1
        self.tokens_in += len(window.prompt.input_ids)
        self.decode_steps += output.steps
        self.missing += output.missing
        self.repeated += output.repeated
        if not output.finite:
            self.fail(
                f"logits of the window [{start}, {end}) are not finite: "
                f"the checkpoint or the embeddings are damaged, or dtype is too narrow"
            )
            return
        before = self.order[start:end]
        self.order[start:end] = [before[position] for position in output.order]

    def result(self) -> RerankResult:
        return RerankResult(
            query_id=self.request.query_id,
            order=self.order,
            unranked_reason=self.reason,
            query_was_cut=self.prepared is not None and self.prepared.was_cut,
            markers_defused=self.markers_defused,
            windows=self.windows,
            tokens_in=self.tokens_in,
            decode_steps=self.decode_steps,
            numbers_missing=self.missing,
            numbers_repeated=self.repeated,
        )


class PERank:
    """A PE-Rank checkpoint, ready to rank; make it with `from_pretrained`.

    Threads may share one: a group of queries is ranked at a time, whoever asked for it. It can be
    copied and pickled.

    Attributes:
        embedding_size: d, the width of the embeddings it reads.
        needs_query_embedding: whether requests must carry the query's embedding.
        reads_scores: whether it uses the first stage's scores.
        checkpoint_hash: what names its weights in results' keys.
        encoder: the embedder that makes the vectors it reads.
        counters: what it has done.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: PreTrainedTokenizerBase,
        *,
        cache: Path,
        device: torch.device,
        dtype: torch.dtype,
        trust_remote_code: bool = False,
    ) -> None:
        self.embedding_size = checkpoint.embedding_size
        self.needs_query_embedding = checkpoint.query_token or checkpoint.residual is not None
        self.reads_scores = checkpoint.score_residual is not None
        self.checkpoint_hash = checkpoint.hash
        self.encoder: EncoderSpec = checkpoint.encoder
        self.counters = Counters()
        self.model = RankingModel(
            checkpoint.llm,
            checkpoint.body,
            checkpoint.projector,
            projector_type=checkpoint.projector_type,
            embedding_size=checkpoint.embedding_size,
            residual=checkpoint.residual,
            score_residual=checkpoint.score_residual,
            device=device,
            dtype=dtype,
        )
        self._tokenizer = tokenizer
        self._checkpoint = checkpoint
        self._cache_folder = cache
        self._trust_remote_code = trust_remote_code
        self._own_encoder: Encoder | None = None
        self._builders: dict[tuple[str, bool], PromptBuilder] = {}
        self._head: Tensor | None = None
        self._cache: Cache | None = None
        self._max_rows = MAX_BATCH_QUERIES[device.type]
        self._lock = threading.RLock()
        self.prompts(RankingOptions())  # a checkpoint whose prompt cannot be made fails here

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> "PERank":
        """Load a checkpoint.

        Args:
            path_or_name: a folder (published layout or ours), the name of a checkpoint in
                the package, or a hub id.
            cache: folder for models that have to be unpacked first. None: PERANK_CACHE, or the
                folder `cache` below PERANK_HOME.
            revision: of a hub id: a branch, a tag or a commit.
            device: "auto" (CUDA where there is one), or as torch names it: "cpu", "cuda:1".
            dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
            trust_remote_code: let `encode` run the encoder's own Python code.

        Raises:
            ConfigError: nothing of that name, or no such device or dtype.
            CheckpointError: its files do not make the model its configuration promises.
        """
        chosen_device = device_named(device)
        if dtype not in ("auto", *DTYPES):
            raise ConfigError(f"dtype is {dtype!r}, expected auto, {', '.join(DTYPES)}")
        automatic = "bfloat16" if chosen_device.type == "cuda" else "float32"
        begin = time.perf_counter()
        folder = Settings.from_environment().cache if cache is None else Path(cache)
        checkpoint = load_checkpoint(path_or_name, cache=folder, revision=revision)
        made = cls(
            checkpoint,
            load_tokenizer(checkpoint),
            cache=folder,
            device=chosen_device,
            dtype=DTYPES[automatic if dtype == "auto" else dtype],
            trust_remote_code=trust_remote_code,
        )
        made.counters.load_seconds = time.perf_counter() - begin
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @property
    def device(self) -> torch.device:
        """Where it ranks."""
        return self.model.device

    def description(self, options: RankingOptions | None = None) -> dict[str, Any]:
        """What ranks with these options, for provenance: JSON-ready, the same for the same
        checkpoint and machine."""
        checkpoint = self._checkpoint
        return {
            "checkpoint": checkpoint.name,
            "checkpoint_hash": checkpoint.hash,
            "layout": checkpoint.layout,
            "llm": checkpoint.llm.model_type,
            "base_model": checkpoint.base_model,
            "base_revision": checkpoint.base_revision,
            "num_layers": checkpoint.llm.num_hidden_layers,
            "hidden_size": checkpoint.llm.hidden_size,
            "encoder": checkpoint.encoder.name,
            "encoder_pooling": checkpoint.encoder.pooling,
            "encoder_inside_checkpoint": checkpoint.encoder.inside_checkpoint,
            "encoder_revision": checkpoint.encoder.revision,
            "embedding_size": checkpoint.embedding_size,
            "projector_type": checkpoint.projector_type,
            "prompt": checkpoint.prompt,
            "prompt_hash": self.prompts(options or RankingOptions()).hash,
            "prompt_order": checkpoint.prompt_order,
            "query_token": checkpoint.query_token,
            "residual": list(checkpoint.residual) if checkpoint.residual else None,
            "score_residual": checkpoint.score_residual,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    def encode(
        self, texts: Sequence[str], *, max_length: int | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Embed texts with the checkpoint's own encoder.

        Args:
            texts: passages' contents or queries.
            max_length: encoder tokens a text is cut at. None: as many as the nightly run
                takes, a sentence-transformers model's own maximum, else the reference's 512.
            batch_size: texts at once.

        Returns:
            (len(texts), embedding_size) float32, L2-normalised.

        Raises:
            CheckpointError: the encoder needs remote code, or does not fit the checkpoint.
            ConfigError: it cannot be found, or `max_length` is more than it can read.
        """
        with self._lock:  # its tokenizer is not for two at once
            if self._own_encoder is None:
                self._own_encoder = Encoder(
                    self._checkpoint.encoder,
                    self._checkpoint.encoder_weights,
                    owner=self._checkpoint.name,
                    cache=self._cache_folder,
                    device=self.model.device,
                    trust_remote_code=self._trust_remote_code,
                )
            return self._own_encoder.encode(texts, max_length=max_length, batch_size=batch_size)

    def prompts(self, options: RankingOptions) -> PromptBuilder:
        """What makes the prompts of a ranking with these options."""
        variant = (options.passages, options.answers_in_numbers)
        if variant not in self._builders:
            self._builders[variant] = PromptBuilder(
                TEMPLATES[self._checkpoint.prompt],
                self._tokenizer,
                query_token=self._checkpoint.query_token,
                form=options.passages,
                numbers=options.answers_in_numbers,
            )
        return self._builders[variant]

    def rerank(
        self,
        query: str,
        passages: Sequence[str] | None = None,
        embeddings: np.ndarray | None = None,
        *,
        query_embedding: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        top_k: int | None = None,
        options: RankingOptions | None = None,
    ) -> RerankResult:
        """Rank one query's passages, given as texts, as embeddings, or as both.

        Args:
            query: its text.
            passages: n texts, best first by the first stage; embedded here where `embeddings`
                are not given and needed.
            embeddings: (n, d), L2-normalised, by the checkpoint's encoder.
            query_embedding: (d,); embedded here where it is needed and not given.
            scores: (n,), the first stage's, for a checkpoint that reads them.
            top_k: as in `options`, which it replaces there.
            options: window, decoding and form. None: the paper's.

        Raises:
            ConfigError: neither passages nor embeddings, not as many of one as of the other,
                something else than text, or options that want texts where there are none.
            CheckpointError: embedding is needed and the encoder cannot be used.
        """
        options = options or RankingOptions()
        if top_k is not None:
            options = dataclasses.replace(options, top_k=top_k)
        if passages is None and embeddings is None:
            raise ConfigError("rerank takes passages, embeddings or both: give at least one")
        if passages is None and options.passages != "embeddings":
            raise ConfigError(f"options want passages {options.passages!r}: give their texts")
        if isinstance(passages, str):
            raise ConfigError("passages is one text, expected a list of texts")
        passages = None if passages is None else list(passages)
        if wrong := _no_text("the query", [query]) or _no_text("passage", passages or ()):
            raise ConfigError(wrong)
        count = len(embeddings if passages is None else passages)  # type: ignore[arg-type]
        if embeddings is not None and len(embeddings) != count:
            raise ConfigError(f"{len(embeddings)} embeddings for {count} passages")
        if embeddings is None and options.passages != "text":
            embeddings = self.encode(passages or [])
        if query_embedding is None and self.needs_query_embedding and options.passages != "text":
            query_embedding = self.encode([query])[0]
        request = RerankRequest(
            query_id="",
            query=query,
            passage_ids=[str(position) for position in range(count)],
            embeddings=embeddings,
            query_embedding=query_embedding,
            texts=passages,
            scores=scores,
        )
        return next(self.rerank_many([request], options))

    def rerank_many(
        self,
        requests: Iterable[RerankRequest],
        options: RankingOptions | None = None,
        *,
        batch_queries: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[RerankResult]:
        """Rank many queries' candidates; one result a request, in order.

        A request that cannot be ranked (embeddings that are missing, not finite or of another
        width; something else than text; logits that are not finite) keeps its given order and
        says why; the others are ranked as if it were not there.

        Args:
            requests: read as results are asked for, a batch at a time.
            options: window, decoding and form. None: the paper's.
            batch_queries: queries whose windows are ranked together. None: as many as memory
                allows; half as many after memory ran out.
            progress: called with the number of queries done.

        Raises:
            ConfigError: `batch_queries` is less than 1, or the residual is to rank alone and there
                is none.
            DeviceMemoryError: not even one query's window fits into memory.
        """
        if batch_queries is not None and batch_queries < 1:
            raise ConfigError(f"batch_queries must be 1 or more, found {batch_queries}")
        if options and options.decoding == "residual" and self.model.residual is None:
            raise ConfigError(
                f"checkpoint {self._checkpoint.name!r} has no residual, and without its LLM "
                f"nothing is left to rank by: choose another decoding"
            )
        return self._stream(iter(requests), options or RankingOptions(), batch_queries, progress)

    def _stream(
        self,
        requests: Iterator[RerankRequest],
        options: RankingOptions,
        batch_queries: int | None,
        progress: Callable[[int], None] | None,
    ) -> Iterator[RerankResult]:
        done = 0
        waiting: list[_Ranking] = []
        while True:
            wanted = max(0, (batch_queries or self._max_rows) - len(waiting))
            read = list(itertools.islice(requests, wanted))
            # Cache, tokenizer and counters are the engine's; requests and results are not, and
            # whoever reads them may take time.
            with self._lock:
                begin = time.perf_counter()
                waiting += [self._start(request, options) for request in read]
                if not waiting:
                    return
                group = waiting[: batch_queries or self._fitting(waiting, options)]
                waiting = waiting[len(group) :]
                self._rank(group, options)
                done += len(group)
                self.counters.queries += len(group)
                self.counters.rank_seconds += time.perf_counter() - begin
            if progress is not None:
                progress(done)
            for ranking in group:
                yield ranking.result()

    def _start(self, request: RerankRequest, options: RankingOptions) -> _Ranking:
        order = windows.initial_order(len(request.passage_ids), options, request.query_id)
        ranking = _Ranking(request, order=order)
        if reason := _no_text("the query", [request.query]):
            ranking.fail(reason)
            return ranking
        builder = self.prompts(options)
        ranking.prepared = builder.prepare(request.query)
        ranking.markers_defused = ranking.prepared.markers_defused
        todo = windows.schedule(len(request.passage_ids), options)
        if not todo:
            return ranking
        if reason := self._fault(request, options):
            ranking.fail(reason)
            return ranking
        ranking.todo = todo
        if options.passages != "embeddings":
            texts = [builder.prepare_passage(text) for text in request.texts or ()]
            ranking.texts = [text.text for text in texts]
            ranking.markers_defused += sum(text.markers_defused for text in texts)
        if options.passages == "text":
            # Nothing of it is ever read; it says how many passages a window has.
            ranking.projected = torch.zeros(len(order), 0, device=self.model.device)
            return ranking
        assert request.embeddings is not None
        ranking.projected = self._project(request.embeddings)
        if request.query_embedding is not None and self.needs_query_embedding:
            ranking.projected_query = self._project(np.asarray(request.query_embedding)[None])[0]
        if self.reads_scores:
            scores = np.zeros(len(order)) if request.scores is None else request.scores
            ranking.scores = torch.from_numpy(np.array(scores, np.float32)).to(self.model.device)
        sorts = self._checkpoint.prompt_order == "residual" and options.passages == "embeddings"
        if sorts or options.decoding == "residual":
            ranking.residual = self._residual(ranking)
        return ranking

    def _fault(self, request: RerankRequest, options: RankingOptions) -> str | None:
        """What is wrong with the request's texts or embeddings, None where nothing is."""
        expected = (len(request.passage_ids), self.embedding_size)
        if options.passages != "embeddings":
            texts = () if request.texts is None else request.texts
            if len(texts) != expected[0]:
                return f"{len(texts)} texts for {expected[0]} passages"
            if reason := _no_text("passage", texts):
                return reason
        if options.passages == "text":
            return None
        if request.embeddings is None:
            return "the passages' embeddings are missing"
        if reason := _no_floats("embeddings have", request.embeddings, expected):
            return reason
        bad = ~np.isfinite(np.asarray(request.embeddings)).all(axis=1)
        if bad.any():
            first = request.passage_ids[int(bad.argmax())]
            return f"embeddings of {int(bad.sum())} passages are not finite, first {first!r}"
        if self.reads_scores and request.scores is not None:
            scores = request.scores  # whole numbers will do
            if reason := _no_floats("first-stage scores have", scores, expected[:1], kinds="fiu"):
                return reason
            if not np.isfinite(np.asarray(request.scores)).all():
                return "first-stage scores are not finite"
        if not self.needs_query_embedding:
            return None
        given = request.query_embedding
        if given is None:
            return "the query's embedding is missing, and this checkpoint needs it"
        if reason := _no_floats("the query's embedding has", given, expected[1:]):
            return reason
        if not np.isfinite(np.asarray(given)).all():
            return "the query's embedding is not finite"
        return None

    @torch.inference_mode()
    def _project(self, embeddings: np.ndarray) -> Tensor:
        """(n, d) -> (n, H). Equal rows stay equal to the last bit, so that duplicates tie:
        each distinct row is projected once."""
        distinct, inverse = np.unique(
            np.ascontiguousarray(embeddings, np.float32), axis=0, return_inverse=True
        )
        projected = self.model.project(torch.from_numpy(distinct))
        return projected[torch.from_numpy(inverse.reshape(-1)).to(projected.device)]

    def _rank(self, rankings: list[_Ranking], options: RankingOptions) -> None:
        """Rank lists to their fronts, in two halves where memory does not suffice for all."""
        # Windows of like length side by side: there is less to pad.
        active = sorted(
            (ranking for ranking in rankings if ranking.todo),
            key=lambda ranking: -len(ranking.prepared.text) if ranking.prepared else 0,
        )
        if not options.reads_a_prompt:
            for ranking in active:
                self._rank_by_residual(ranking)
            return
        try:
            self._rank_together(active, options)
            return
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(active) < 2:
                raise DeviceMemoryError(
                    f"ranking a single query runs out of memory on {self.model.device}: "
                    f"choose a smaller window, or passages without text"
                ) from error
        self._cache = None
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(active) // 2
        self._max_rows = max(1, min(self._max_rows, half))
        self._rank(active[:half], options)
        self._rank(active[half:], options)

    @torch.inference_mode()
    def _residual(self, ranking: _Ranking) -> list[float]:
        """The residual's logits of a list's passages."""
        assert ranking.projected is not None
        assert ranking.projected_query is not None
        scores = None if ranking.scores is None else ranking.scores[None]
        bias = self.model.bias(ranking.projected[None], ranking.projected_query[None], scores)
        assert bias is not None
        return bias[0].tolist()

    def _rank_by_residual(self, ranking: _Ranking) -> None:
        """Rank a list window by window without the LLM."""
        assert ranking.residual is not None
        if not np.isfinite(ranking.residual).all():
            ranking.fail("the residual's logits are not finite: the checkpoint is damaged")
            return
        for start, end, _ in ranking.todo:
            ranking.sort_by_residual(start, end)
        ranking.windows = len(ranking.todo)
        self.counters.windows += len(ranking.todo)
        ranking.todo = []

    @torch.inference_mode()
    def _rank_together(self, active: list[_Ranking], options: RankingOptions) -> None:
        """Rank the next window of every list, round by round; row i of the cache is list i's."""
        cached: list[list[int]] = [[] for _ in active]
        while active:
            jobs, rows = [], []
            for row, ranking in enumerate(active):
                try:
                    jobs.append(self._window(ranking, options))
                    rows.append(row)
                except QualityError as error:
                    ranking.fail(str(error))
            active, cached = self._kept(rows, active, cached)
            if not active:
                return
            room = max(len(job.keys) + self._room(job, options) for job in jobs)
            if self._cache is None or self._cache.rows < len(jobs) or self._cache.length < room:
                self._cache = None  # gives its memory back before more is asked for
                self._cache = Cache(self.model.llm, len(jobs), -(-room // 64) * 64)
                cached = [[] for _ in active]
            batch = Batch(self.model, self._cache, cached, jobs, self.counters)
            outputs = self._decode(batch, options)
            for ranking, window, output in zip(active, jobs, outputs, strict=True):
                ranking.take(window, output)
            self.counters.windows += len(jobs)
            if not all(output.finite for output in outputs):
                # Attention gives what it masks a weight of 0, and 0 times NaN is NaN: nothing
                # of such a row may be found by a later one.
                self._cache = None
                cached = [[] for _ in active]
            rows = [row for row, ranking in enumerate(active) if ranking.todo]
            active, cached = self._kept(rows, active, cached)

    def _kept(
        self, rows: list[int], active: list[_Ranking], cached: list[list[int]]
    ) -> tuple[list[_Ranking], list[list[int]]]:
        """Only these of the lists and of their rows in the cache."""
        if len(rows) < len(active) and self._cache is not None and any(cached):
            self._cache.keep(rows)
        return [active[row] for row in rows], [cached[row] for row in rows]

    def _decode(self, batch: Batch, options: RankingOptions) -> list[Decoded]:
        if options.decoding == "constrained":
            return decode.constrained(batch)
        if options.decoding == "first-step":
            return decode.first_step(batch)
        if self._head is None:
            self._head = load_head(self._checkpoint).to(self.model.device, self.model.dtype)
        stop = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id} - {None}
        return decode.free(
            batch,
            self._head,
            max_tokens=self._longest_answer,
            stop=[int(token) for token in stop],
            read=lambda tokens: str(self._tokenizer.decode(tokens)),
        )

    def _longest_answer(self, passages: int) -> int:
        """Tokens of a whole ranking in numbers, and some to spare."""
        answer = " > ".join(f"[{number}]" for number in range(1, passages + 1))
        return len(self._tokenizer(answer, add_special_tokens=False)["input_ids"]) + 8

    def _room(self, window: Window, options: RankingOptions) -> int:
        """Tokens that decoding adds to a window's prompt."""
        size = len(window.projected)
        return self._longest_answer(size) if options.decoding == "free" else size

    def _window(self, ranking: _Ranking, options: RankingOptions) -> Window:
        start, end, outputs = ranking.todo[0]
        if ranking.residual is not None:
            ranking.sort_by_residual(start, end)
        members = ranking.order[start:end]
        prompt = self._prompt(ranking, members, options)
        keys = list(prompt.input_ids)
        for slot, member in zip(prompt.passage_slots, members, strict=False):
            keys[slot] = -2 - member
        if prompt.query_slot is not None:
            keys[prompt.query_slot] = -1
        assert ranking.projected is not None
        picked = torch.tensor(members, device=self.model.device)
        return Window(
            prompt,
            ranking.projected[picked],
            ranking.projected_query,
            keys,
            outputs,
            None if ranking.scores is None else ranking.scores[picked],
        )

    def _prompt(self, ranking: _Ranking, members: list[int], options: RankingOptions) -> Prompt:
        """The prompt of a window; without texts it depends on nothing but its size."""
        size = len(members)
        key = tuple(members) if ranking.texts else size
        if key in ranking.prompts:
            return ranking.prompts[key]
        begin = time.perf_counter()
        assert ranking.prepared is not None
        texts = [ranking.texts[member] for member in members] if ranking.texts else []
        prompt = self.prompts(options).build(ranking.prepared, size, texts)
        needed = len(prompt.input_ids) + size
        if needed > self.model.llm.max_positions:
            raise QualityError(
                f"a window of {size} passages needs {needed} positions, the LLM has "
                f"{self.model.llm.max_positions}: choose a smaller window"
            )
        ranking.prompts[key] = prompt
        self.counters.tokenise_seconds += time.perf_counter() - begin
        return prompt

    def _fitting(self, rankings: list[_Ranking], options: RankingOptions) -> int:
        """How many of these the memory that is free has room for together, at least 1."""
        if not options.reads_a_prompt:
            return len(rankings)
        tokens = 0
        for ranking in rankings:
            if ranking.todo:
                try:
                    window = self._window(ranking, options)
                except QualityError:
                    continue
                tokens = max(tokens, len(window.keys) + self._room(window, options))
        if not tokens:
            return len(rankings)
        kind = self.model.device.type
        if kind == "cuda":
            free = torch.cuda.mem_get_info(self.model.device)[0]
        else:
            free = psutil.virtual_memory().available
        if self._cache is not None:
            free += self.model.llm.cache_bytes(self._cache.rows * self._cache.length)
        budget = free * CACHE_SHARE[kind]
        if kind == "cpu":
            budget = min(budget, MAX_CPU_CACHE_BYTES)
        return max(1, min(self._max_rows, int(budget // self.model.llm.cache_bytes(tokens))))


def _no_text(what: str, texts: Sequence[Any]) -> str | None:
    """What is wrong with texts that are to be strings, None where nothing is."""
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            which = f"{what} {place}" if what == "passage" else what
            return f"{which} is of type {type(text).__name__}, expected text"
    return None


def _no_floats(whose: str, given: Any, shape: tuple[int, ...], *, kinds: str = "f") -> str | None:
    """What is wrong with numbers that are to have `shape` and a dtype of these `kinds`, None where
    nothing is."""
    try:
        found = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor elsewhere
        return f"{whose} values that make no array: {error}"
    if found.shape != shape:
        return f"{whose} shape {found.shape}, expected {shape}"
    if found.dtype.kind not in kinds:
        return f"{whose} values of type {found.dtype}, expected floats"
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no more memory.

    On a CPU torch's allocator, C++ and oneDNN raise plain RuntimeErrors. oneDNN's has no reason
    in it; of shapes that do not fit it says `could not create a primitive descriptor`.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return (
        "can't allocate memory" in said
        or "bad_alloc" in said
        or said in ("could not create a primitive", "could not execute a primitive")
    )


def device_named(name: str) -> torch.device:
    """The device that "auto" or a name of torch's means.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({reason}): try 'auto'") from error
    if device.type not in MAX_BATCH_QUERIES:
        raise ConfigError(f"device is {name!r}, expected auto or one of torch's cpu and cuda")
    return device
