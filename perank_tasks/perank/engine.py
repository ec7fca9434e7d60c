"""The public engine: in, a stream of queries with their candidates' embeddings; out, rankings.

Queries are taken in groups; the next windows of all queries of a group are ranked together,
in batches of similar length, round by round until every list's front is reached. Memory
grows with the group, not with the number of queries, and results come in request order. For
a given order of requests, group size and machine the results are deterministic.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perank_tasks.errors import CheckpointError, ConfigError, QualityError
from perank_tasks.perank import windows
from perank_tasks.perank.checkpoint import Checkpoint, load_checkpoint
from perank_tasks.perank.checkpoint_config import EncoderSpec
from perank_tasks.perank.decode import Window, decode
from perank_tasks.perank.encoder import Encoder
from perank_tasks.perank.model import RankingModel
from perank_tasks.perank.prompt import TEMPLATES, PreparedQuery, Prompt, PromptBuilder

# Prompt tokens, padding included, of the windows that are ranked at once. It bounds the memory
# of one forward pass; speed is flat from a tenth of it on.
MAX_BATCH_TOKENS = 16_384

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class RerankRequest:
    """One query and its candidates, best first by the first stage.

    `embeddings` is (n, d), row i of `passage_ids[i]`, made by the checkpoint's encoder and
    L2-normalised; `query_embedding` is (d,), needed where `PERank.needs_query_embedding`.
    """

    query_id: str
    query: str
    passage_ids: Sequence[str]
    embeddings: np.ndarray
    query_embedding: np.ndarray | None = None


@dataclass(frozen=True)
class RerankResult:
    """One query's ranking: `order` is a permutation of 0..n-1, best first.

    With `unranked_reason` the query could not be ranked and keeps its given order.
    `query_was_cut`: it was longer than 256 LLM tokens. `markers_defused`: special tokens and
    chat markers in it that were broken by a space. `windows`, `tokens_in` (prompt tokens,
    without padding) and `decode_steps` (passages put out) are what it cost.
    """

    query_id: str
    order: list[int]
    unranked_reason: str | None
    query_was_cut: bool
    markers_defused: int
    windows: int
    tokens_in: int
    decode_steps: int


@dataclass
class _Ranking:
    """A query on its way through the rounds."""

    request: RerankRequest
    order: list[int]
    todo: list[tuple[int, int]] = field(default_factory=list)
    prepared: PreparedQuery | None = None
    projected: Tensor | None = None
    projected_query: Tensor | None = None
    prompts: dict[int, Prompt] = field(default_factory=dict)
    reason: str | None = None
    windows: int = 0
    tokens_in: int = 0
    decode_steps: int = 0

    def fail(self, reason: str) -> None:
        self.reason = reason
        self.todo = []
        self.order = list(range(len(self.request.passage_ids)))

    def result(self) -> RerankResult:
        return RerankResult(
            query_id=self.request.query_id,
            order=self.order,
            unranked_reason=self.reason,
            query_was_cut=self.prepared is not None and self.prepared.was_cut,
            markers_defused=self.prepared.markers_defused if self.prepared else 0,
            windows=self.windows,
            tokens_in=self.tokens_in,
            decode_steps=self.decode_steps,
        )


class PERank:
    """A PE-Rank checkpoint, ready to rank; make it with `from_pretrained`.

    Attributes:
        embedding_size: d, the width of the embeddings it reads.
        needs_query_embedding: whether requests must carry the query's embedding.
        checkpoint_hash, prompt_hash: what names its weights and its prompt in results' keys.
        encoder: the embedder that makes the vectors it reads.
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
        self.model = RankingModel.load(
            checkpoint.llm,
            checkpoint.body,
            checkpoint.projector,
            projector_type=checkpoint.projector_type,
            embedding_size=checkpoint.embedding_size,
            residual=checkpoint.residual,
            device=device,
            dtype=dtype,
        )
        self.prompts = PromptBuilder(
            TEMPLATES[checkpoint.prompt], tokenizer, query_token=checkpoint.query_token
        )
        self.prompt_hash = self.prompts.hash
        self._checkpoint = checkpoint
        self._cache = cache
        self._trust_remote_code = trust_remote_code
        self._own_encoder: Encoder | None = None
        self._max_positions = checkpoint.llm.max_position_embeddings

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        cache: Path,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> "PERank":
        """Load a checkpoint.

        Args:
            path_or_name: a folder (published layout or ours), the name of a checkpoint in
                the package, or a hub id.
            cache: folder for models that have to be unpacked first.
            device: "auto" (CUDA where there is one), or as torch names it: "cpu", "cuda:1".
            dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
            trust_remote_code: let `encode` run the encoder's own Python code.

        Raises:
            ConfigError: nothing of that name, or no such device or dtype.
            CheckpointError: its files do not make the model its configuration promises.
        """
        chosen_device = _device(device)
        if dtype not in ("auto", *DTYPES):
            raise ConfigError(f"dtype is {dtype!r}, expected auto, {', '.join(DTYPES)}")
        automatic = "bfloat16" if chosen_device.type == "cuda" else "float32"
        checkpoint = load_checkpoint(path_or_name, cache=Path(cache))
        return cls(
            checkpoint,
            _tokenizer(checkpoint),
            cache=Path(cache),
            device=chosen_device,
            dtype=DTYPES[automatic if dtype == "auto" else dtype],
            trust_remote_code=trust_remote_code,
        )

    @property
    def device(self) -> torch.device:
        """Where it ranks."""
        return self.model.device

    def description(self) -> dict[str, Any]:
        """What ran, for provenance: JSON-ready, the same for the same checkpoint and machine."""
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
            "encoder": {
                "name": checkpoint.encoder.name,
                "pooling": checkpoint.encoder.pooling,
                "embedding_size": checkpoint.encoder.embedding_size,
                "inside_checkpoint": checkpoint.encoder.inside_checkpoint,
                "revision": checkpoint.encoder.revision,
            },
            "projector_type": checkpoint.projector_type,
            "prompt": checkpoint.prompt,
            "prompt_hash": self.prompt_hash,
            "query_token": checkpoint.query_token,
            "residual": list(checkpoint.residual) if checkpoint.residual else None,
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
        if self._own_encoder is None:
            self._own_encoder = Encoder(
                self._checkpoint,
                cache=self._cache,
                device=self.model.device,
                trust_remote_code=self._trust_remote_code,
            )
        return self._own_encoder.encode(texts, max_length=max_length, batch_size=batch_size)

    def rerank(
        self,
        query: str,
        passages: Sequence[str] | None = None,
        embeddings: np.ndarray | None = None,
        *,
        query_embedding: np.ndarray | None = None,
        window: int = 20,
        step: int = 10,
        decode_steps: int | None = None,
    ) -> RerankResult:
        """Rank one query's passages, given as texts or as embeddings.

        Args:
            query: its text.
            passages: n texts, best first by the first stage; embedded here.
            embeddings: or (n, d), L2-normalised, by the checkpoint's encoder.
            query_embedding: (d,); embedded here where it is needed and not given.
            window, step, decode_steps: as for `rerank_many`.

        Raises:
            ConfigError: both or neither of passages and embeddings, or a bad window or step.
            CheckpointError: embedding is needed and the encoder cannot be used.
        """
        if (passages is None) == (embeddings is None):
            raise ConfigError("rerank takes either passages or embeddings: give exactly one")
        if embeddings is None:
            embeddings = self.encode(passages or [])
        if query_embedding is None and self.needs_query_embedding:
            query_embedding = self.encode([query])[0]
        request = RerankRequest(
            query_id="",
            query=query,
            passage_ids=[str(position) for position in range(len(embeddings))],
            embeddings=embeddings,
            query_embedding=query_embedding,
        )
        results = self.rerank_many([request], window=window, step=step, decode_steps=decode_steps)
        return next(results)

    def rerank_many(
        self,
        requests: Iterable[RerankRequest],
        *,
        window: int = 20,
        step: int = 10,
        decode_steps: int | None = None,
        batch_queries: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[RerankResult]:
        """Rank many queries' candidates; one result a request, in order.

        A request that cannot be ranked (embeddings that are missing, not finite or of another
        width; logits that are not finite) keeps its given order and says why; the others
        are ranked as if it were not there.

        Args:
            requests: read as results are asked for, `batch_queries` at a time.
            window: passages ranked together, at least 2.
            step: places the window moves, 1 to `window`.
            decode_steps: passages that each window puts out, the rest following in the order
                they had. `max(window - step, k)` leaves the top k exact. None: all.
            batch_queries: queries whose windows are ranked together.
            progress: called with the number of queries done.

        Raises:
            ConfigError: an option out of range.
        """
        windows.check(window, step)
        if decode_steps is not None and decode_steps < 1:
            raise ConfigError(f"decode_steps must be 1 or more, or None for all: {decode_steps}")
        if batch_queries < 1:
            raise ConfigError(f"batch_queries must be 1 or more, found {batch_queries}")
        return self._stream(iter(requests), window, step, decode_steps, batch_queries, progress)

    def _stream(
        self,
        requests: Iterator[RerankRequest],
        window: int,
        step: int,
        decode_steps: int | None,
        batch_queries: int,
        progress: Callable[[int], None] | None,
    ) -> Iterator[RerankResult]:
        done = 0
        while group := list(itertools.islice(requests, batch_queries)):
            rankings = [self._start(request, window, step) for request in group]
            while active := [ranking for ranking in rankings if ranking.todo]:
                self._round(active, decode_steps)
            done += len(group)
            if progress is not None:
                progress(done)
            for ranking in rankings:
                yield ranking.result()

    def _start(self, request: RerankRequest, window: int, step: int) -> _Ranking:
        ranking = _Ranking(request, order=list(range(len(request.passage_ids))))
        ranking.prepared = self.prompts.prepare(request.query)
        todo = windows.schedule(len(request.passage_ids), window=window, step=step)
        if not todo:
            return ranking
        if reason := self._fault(request):
            ranking.fail(reason)
            return ranking
        ranking.todo = todo
        ranking.projected = self._project(request.embeddings)
        if request.query_embedding is not None and self.needs_query_embedding:
            ranking.projected_query = self._project(request.query_embedding[None])[0]
        return ranking

    def _fault(self, request: RerankRequest) -> str | None:
        """What is wrong with the request's embeddings, None where nothing is."""
        expected = (len(request.passage_ids), self.embedding_size)
        found = np.shape(request.embeddings)
        if found != expected:
            return f"embeddings have shape {found}, expected {expected}: one row a passage"
        if not np.issubdtype(np.asarray(request.embeddings).dtype, np.floating):
            return f"embeddings are {np.asarray(request.embeddings).dtype}, expected floats"
        bad = ~np.isfinite(request.embeddings).all(axis=1)
        if bad.any():
            first = request.passage_ids[int(bad.argmax())]
            return f"embeddings of {int(bad.sum())} passages are not finite, first {first!r}"
        if not self.needs_query_embedding:
            return None
        if request.query_embedding is None:
            return "the query's embedding is missing, and this checkpoint needs it"
        if np.shape(request.query_embedding) != expected[1:]:
            found = np.shape(request.query_embedding)
            return f"the query's embedding has shape {found}, expected {expected[1:]}"
        if not np.isfinite(request.query_embedding).all():
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

    def _round(self, rankings: list[_Ranking], decode_steps: int | None) -> None:
        """Rank the next window of every query and put its order back into the list."""
        jobs: list[tuple[_Ranking, Window]] = []
        for ranking in rankings:
            start, end = ranking.todo[0]
            try:
                prompt = self._prompt(ranking, end - start)
            except QualityError as error:
                ranking.fail(str(error))
                continue
            assert ranking.projected is not None
            picked = torch.tensor(ranking.order[start:end], device=self.model.device)
            jobs.append(
                (ranking, Window(prompt, ranking.projected[picked], ranking.projected_query))
            )
        for batch in _batches(jobs):
            decoded = decode(self.model, [window for _, window in batch], decode_steps)
            for (ranking, window), output in zip(batch, decoded, strict=True):
                start, end = ranking.todo.pop(0)
                ranking.windows += 1
                ranking.tokens_in += len(window.prompt.input_ids)
                ranking.decode_steps += output.steps
                if not output.finite:
                    ranking.fail(
                        f"logits of the window [{start}, {end}) are not finite: "
                        f"the checkpoint or the embeddings are damaged, or dtype is too narrow"
                    )
                    continue
                before = ranking.order[start:end]
                ranking.order[start:end] = [before[position] for position in output.order]

    def _prompt(self, ranking: _Ranking, passages: int) -> Prompt:
        """The prompt of any window of `passages` passages: it depends on nothing else."""
        if passages not in ranking.prompts:
            assert ranking.prepared is not None
            prompt = self.prompts.build(ranking.prepared, passages)
            needed = len(prompt.input_ids) + passages
            if needed > self._max_positions:
                raise QualityError(
                    f"a window of {passages} passages needs {needed} positions, the LLM has "
                    f"{self._max_positions}: choose a smaller window"
                )
            ranking.prompts[passages] = prompt
        return ranking.prompts[passages]


def _batches(jobs: list[tuple[_Ranking, Window]]) -> Iterator[list[tuple[_Ranking, Window]]]:
    """Windows of like length and size together, under the token budget."""
    ordered = sorted(jobs, key=lambda job: (len(job[1].projected), len(job[1].prompt.input_ids)))
    batch: list[tuple[_Ranking, Window]] = []
    longest = 0
    for job in ordered:
        length = len(job[1].prompt.input_ids)
        if batch and max(longest, length) * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch, longest = [], 0
        batch.append(job)
        longest = max(longest, length)
    if batch:
        yield batch


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({reason}): try 'auto'") from error
    return device


def _tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The LLM's tokenizer.

    A SentencePiece `tokenizer.model` of the published layout is read by LlamaTokenizer, as the
    reference does: after a special token it starts a word anew. AutoTokenizer would go by the
    LLM's family and split otherwise. Elsewhere tokenizer.json is taken as it stands.

    Raises:
        CheckpointError: there is none, or a vocabulary larger than the embedding matrix.
    """
    folder = checkpoint.tokenizer_folder
    if checkpoint.layout == "published" and (folder / "tokenizer.model").is_file():
        kind: type[PreTrainedTokenizerFast] = LlamaTokenizer
    elif (folder / "tokenizer.json").is_file():
        kind = PreTrainedTokenizerFast
    else:
        raise CheckpointError(
            f"{folder} has no tokenizer: expected tokenizer.json"
            + (" or tokenizer.model" if checkpoint.layout == "published" else "")
        )
    try:
        tokenizer = kind.from_pretrained(folder)
    except Exception as error:  # SentencePiece, protobuf and tokenizers each raise their own
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be loaded: {error}. Fetch its files anew"
        ) from error
    rows = checkpoint.llm.vocab_size
    if tokenizer.vocab_size > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, but "
            f"'model.embed_tokens.weight' {rows} rows. They belong to different models"
        )
    return tokenizer
