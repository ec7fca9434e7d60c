"""The engine's public API: in, a stream of candidate lists; out, ranked ones in the same order.

Lists are taken in groups and ranked together (`rounds`). Memory grows with the group, not with
the number of lists. A list is ranked the same whatever stands beside it (`shapes`).
"""

import functools
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from perank_tasks.errors import ConfigError
from perank_tasks.models.encoder import Encoder
from perank_tasks.models.encoder_spec import EncoderSpec
from perank_tasks.perank.block import Counters
from perank_tasks.perank.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_head,
    load_llm,
    load_tokenizer,
)
from perank_tasks.perank.checkpoint_config import LLM_LAYOUT
from perank_tasks.perank.inputs import Passages, candidate_list, paired
from perank_tasks.perank.llm import Prefix
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.prompt import TEMPLATES, PromptBuilder
from perank_tasks.perank.ranking import Method, Ranking
from perank_tasks.perank.rounds import Rounds
from perank_tasks.perank.shapes import MAX_ROWS
from perank_tasks.settings import Settings
from perank_tasks.support.lists import CandidateList, RankedList

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PERank:
    """A PE-Rank checkpoint, ready to rank; make it with `from_pretrained`.

    Threads may share one: a group of queries is ranked at a time, whoever asked for it. It can be
    copied and pickled.

    Attributes:
        embedding_size: d, the width of the embeddings it reads.
        needs_query_embedding: whether lists must carry the query's embedding.
        checkpoint_hash: what names its weights in results' keys.
        encoder: the embedder that makes the vectors it reads.
        device: where it ranks.
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
        self.checkpoint_hash = checkpoint.hash
        self.encoder: EncoderSpec = checkpoint.encoder
        self.counters = Counters()
        self.device = device
        self.model = RankingModel(checkpoint, device=device, dtype=dtype)
        self._tokenizer = tokenizer
        self._checkpoint = checkpoint
        self._cache_folder = cache
        self._trust_remote_code = trust_remote_code
        self._builders: dict[tuple[str, bool], PromptBuilder] = {}
        self._openings: dict[str, dict[int, Prefix]] = {}
        load = functools.partial(load_head, checkpoint)
        self._rounds = Rounds(self.model, self.counters, load)
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
        llm_prompt: str | None = None,
    ) -> "PERank":
        """Load a checkpoint, or a plain LLM.

        Args:
            path_or_name: a folder (published layout or ours), the name of a checkpoint in
                the package, or a hub id.
            cache: folder for models that have to be unpacked first. None: PERANK_CACHE, or the
                folder `cache` below PERANK_HOME.
            revision: of a hub id: a branch, a tag or a commit.
            device: "auto" (CUDA where there is one), or as torch names it: "cpu", "cuda:1".
            dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
            trust_remote_code: let `encode` run the encoder's own Python code.
            llm_prompt: `path_or_name` is that of an LLM without projector, which ranks by texts
                alone; this is its prompt, a name in `prompt.TEMPLATES`.

        Raises:
            ConfigError: nothing of that name, or no such device, dtype or prompt.
            CheckpointError: its files do not make the model its configuration promises.
        """
        chosen_device = device_named(device)
        if dtype not in ("auto", *DTYPES):
            raise ConfigError(f"dtype is {dtype!r}, expected auto, {', '.join(DTYPES)}")
        automatic = "bfloat16" if chosen_device.type == "cuda" else "float32"
        begin = time.perf_counter()
        folder = Settings.from_environment().cache if cache is None else Path(cache)
        if llm_prompt is None:
            checkpoint = load_checkpoint(path_or_name, cache=folder, revision=revision)
        else:
            name = os.fspath(path_or_name)
            checkpoint = load_llm(name, prompt=llm_prompt, cache=folder, revision=revision)
        engine = cls(
            checkpoint,
            load_tokenizer(checkpoint),
            cache=folder,
            device=chosen_device,
            dtype=DTYPES[automatic if dtype == "auto" else dtype],
            trust_remote_code=trust_remote_code,
        )
        engine.counters.load_seconds = time.perf_counter() - begin
        return engine

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    def description(self, options: RankingOptions | None = None) -> dict[str, Any]:
        """What ranks with these options, for provenance: JSON-ready, the same for the same
        checkpoint and machine. What else its config.json says goes by `checkpoint_hash`."""
        checkpoint = self._checkpoint
        return {
            "checkpoint": checkpoint.name,
            "checkpoint_hash": checkpoint.hash,
            "base_model": checkpoint.base_model,
            "base_revision": checkpoint.base_revision,
            "num_layers": checkpoint.llm.num_hidden_layers,
            "encoder": checkpoint.encoder.name,
            "encoder_revision": checkpoint.encoder.revision,
            "prompt": checkpoint.prompt,
            "prompt_hash": self.prompts(options or RankingOptions()).hash,
            "prompt_order": checkpoint.prompt_order,
            "residual": list(checkpoint.residual) if checkpoint.residual else None,
            "score_residual": checkpoint.score_residual,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "shapes": self._rounds.shapes(options or RankingOptions()).description(),
        }

    def encode(
        self, texts: Sequence[str], *, queries: bool = False, max_length: int | None = None
    ) -> np.ndarray:
        """Embed texts with the checkpoint's own encoder.

        Args:
            texts: passages' contents or queries.
            queries: whether they are queries, before which some encoders want a prompt.
            max_length: encoder tokens a text is cut at. None: as many as the nightly run
                takes, a sentence-transformers model's own maximum, else the reference's 512.

        Returns:
            (len(texts), embedding_size) float32, L2-normalised.

        Raises:
            CheckpointError: the encoder needs remote code, or does not fit the checkpoint.
            ConfigError: one text instead of a sequence, an encoder that cannot be found, or a
                `max_length` that is more than it can read.
        """
        if isinstance(texts, str):  # a sequence, too: of characters
            raise ConfigError(f"encode takes a sequence of texts, not one: give [{texts[:30]!r}]")
        with self._lock:  # its tokenizer is not for two at once
            return self.own_encoder.encode(texts, queries=queries, max_length=max_length)

    @functools.cached_property
    def own_encoder(self) -> Encoder:
        """The embedder that made the vectors it reads; errors as `encode`."""
        return Encoder(
            self._checkpoint.encoder,
            self._checkpoint.encoder_weights,
            owner=self._checkpoint.name,
            cache=self._cache_folder,
            device=self.model.device,
            trust_remote_code=self._trust_remote_code,
        )

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
        passages: Passages | None = None,
        embeddings: np.ndarray | None = None,
        *,
        query_embedding: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        top_k: int | None = None,
        options: RankingOptions | None = None,
    ) -> RankedList:
        """Rank one query's passages, given as texts, as embeddings, or as both.

        Args:
            query: its text.
            passages: n of them, best first by the first stage: {id: text}, texts, or (id, text)
                in a sequence; embedded here where `embeddings` are not given and needed.
            embeddings: (n, d), L2-normalised, by the checkpoint's encoder.
            query_embedding: (d,); embedded here where it is needed and not given.
            scores: (n,), the first stage's, for a checkpoint that reads them.
            top_k: as in `options`, which it replaces there.
            options: window, decoding and form. None: the paper's.

        Returns:
            `top(k)` of it is [(id, score), …]; texts without ids are known by their places.

        Raises:
            ConfigError, CheckpointError: as `inputs.candidate_list`.
        """
        options = self._checked(options)
        if top_k is not None:
            options = type(options)(**dict(options) | {"top_k": top_k})
        candidates = candidate_list(
            self, options, query, passages, embeddings, query_embedding, scores
        )
        return next(self.rerank_many([candidates], options))

    def rerank_many(
        self,
        lists: Iterable[CandidateList | tuple[str, Passages]],
        options: RankingOptions | None = None,
    ) -> Iterator[RankedList]:
        """Rank many queries' candidates; one result a list, in order.

        A list is (query, passages), in the shapes of `rerank`, or a `CandidateList`.
        Such a one needs embeddings, the query's own where `needs_query_embedding`, and texts as
        `options.passages` says; a checkpoint with `score_residual` reads scores: to one that is
        given none, no passage is ahead of another. A list that cannot be ranked (embeddings that
        are missing, not finite or of another width; something else than text; logits that are not
        finite) keeps its given order and says why; the others are ranked as if it were not there.

        Args:
            lists: read as results are asked for, a group at a time.
            options: window, decoding and form. None: the paper's.

        Raises:
            ConfigError: the residual is to rank alone and there is none, or embeddings are to be
                read by an LLM without projector; while results are read, a list that is of another
                shape.
            DeviceMemoryError: not even one query's window fits into memory.
        """
        options = self._checked(options)
        made = (
            item if isinstance(item, CandidateList) else paired(self, item, place, options)
            for place, item in enumerate(lists)
        )
        return self._stream(made, self._method(options))

    def _checked(self, options: RankingOptions | None) -> RankingOptions:
        options = options or RankingOptions()
        if self._checkpoint.layout == LLM_LAYOUT and options.passages != "text":
            raise ConfigError(
                f"the LLM {self._checkpoint.name!r} has no projector and reads texts alone: rank "
                f'with RankingOptions(passages="text", decoding="free")'
            )
        if options.decoding == "residual" and self.model.residual is None:
            raise ConfigError(
                f"checkpoint {self._checkpoint.name!r} has no residual, and without its LLM "
                f"nothing is left to rank by: choose another decoding"
            )
        return options

    def _method(self, options: RankingOptions) -> Method:
        with self._lock:
            prompts = self.prompts(options)
        sorted_prompts = self._checkpoint.prompt_order == "residual"
        return Method(
            self.model,
            prompts,
            options,
            self.counters,
            self._openings.setdefault(prompts.hash, {}),
            needs_query_embedding=self.needs_query_embedding,
            sorts_by_residual=options.decoding == "residual"
            or (sorted_prompts and options.passages == "embeddings"),
        )

    def _stream(self, lists: Iterator[CandidateList], method: Method) -> Iterator[RankedList]:
        size = self._rounds.shapes(method.options).max_rows
        while read := list(itertools.islice(lists, size)):
            # Cache, tokenizer and counters are the engine's; lists and results are not, and
            # whoever reads them may take time.
            with self._lock:
                begin = time.perf_counter()
                group = [Ranking(method, candidates) for candidates in read]
                self._rounds.rank(group, method)
                self.counters.queries += len(group)
                self.counters.rank_seconds += time.perf_counter() - begin
            for ranking in group:
                yield replace(ranking.ranked, texts=ranking.candidates.texts)


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
    if device.type not in MAX_ROWS:
        raise ConfigError(f"device is {name!r}, expected auto or one of torch's cpu and cuda")
    return device
