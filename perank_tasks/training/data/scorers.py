"""Scorers: in, a query and passages of a pool; out, a score for each.

`FirstStage` scores every passage of the pool by BM25, cosine and a run: a night finds the best
passages of a collection, but a list also holds passages that no search found. Its index is the
artifact `training_indexes/<name>/<key>`, bm25s's folder `bm25` over the pool's texts. Teachers that
read texts, a cross-encoder and an LLM, score what is in a list.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import bm25s
import numpy as np
import pyarrow as pa
import sentence_transformers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.errors import ConfigError
from perank_tasks.models.find import content_hash, find_model, resolve_model
from perank_tasks.settings import Settings
from perank_tasks.support.analysis import ANALYZER, analyze
from perank_tasks.support.meter import Meter
from perank_tasks.training.data.data_options import FIRST_STAGE, DataOptions
from perank_tasks.training.data.pool import Pool
from perank_tasks.training.data.vectors import Making

# bm25s prints its debugging messages unless told otherwise.
logging.getLogger("bm25s").setLevel(logging.WARNING)

KIND = "training_indexes"

ROWS_A_BLOCK = 1 << 16
"""Vectors that are multiplied at once: those in float16 are widened, and a large file is not
read whole."""

PAIRS_A_BATCH = 16
PASSAGE_TOKENS = 256
CROSS_ENCODER_TOKENS = 512

UPR_BEFORE = "Passage: "
UPR_AFTER = " Please write a question based on this passage. Question:"
"""The prompt of UPR, Sachan et al., Improving Passage Retrieval with Zero-Shot Question
Generation; the last word is ours, since an LLM that is no T0 would go on in other ways."""


_IDS = pa.schema([pa.field("passage_id", pa.string(), nullable=False)])


def build_pool_index(making: Making, pool: str) -> str:
    """Index a pool's texts by BM25, Lucene's formula; returns the reference."""
    store, options = making.store, making.options
    config = {"analyzer": ANALYZER, "method": "lucene", "k1": options.k1, "b": options.b}
    name = pool.split("/")[1]
    key = artifact_key(pool=pool, **config)
    index = store.artifact(KIND, name, key)
    if index.use():
        return index.reference
    meter = Meter()
    table = store.open(pool).read("passages", ["passage_id", "text"])
    bm25 = bm25s.BM25(k1=options.k1, b=options.b, method="lucene")
    bm25.index([analyze(text) for text in table["text"].to_pylist()], show_progress=False)
    meter.items = table.num_rows
    with store.draft(KIND, name) as draft:
        draft.write_part("passages", table.select(["passage_id"]), _IDS)
        with draft.writing("bm25") as folder:
            bm25.save(folder)
        return draft.publish(
            key=key,
            expected={"passages": 1},
            inputs={"passages": pool},
            config=config,
            counts={"passages": table.num_rows, "stats": meter.stats()},
            provenance=making.provenance,
        )


class FirstStage:
    """Scores of every passage of a pool."""

    def __init__(self, pool: Pool, index: Artifact, run: dict[str, dict[int, float]] | None):
        """`run` holds the scores of a run, {query id: {row: score}}."""
        self.pool = pool
        self.run = run or {}
        self._bm25 = bm25s.BM25.load(str(index.local("bm25")), mmap=True)

    def scores(
        self, query_id: str, text: str, vector: np.ndarray, scorers: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """(passages,) scores of each scorer asked for; -inf for what a run does not have."""
        made = {
            "bm25": lambda: self.bm25(text),
            "cosine": lambda: self.cosine(vector),
            "run": lambda: self._run(query_id),
        }
        return {scorer: made[scorer]() for scorer in scorers}

    def bm25(self, text: str) -> np.ndarray:
        """(passages,) float32, 0 where a passage shares no term with the query."""
        tokens = [token for token in analyze(text) if token in self._bm25.vocab_dict]
        if not tokens:
            return np.zeros(len(self.pool), np.float32)
        return self._bm25.get_scores(tokens)

    def cosine(self, vector: np.ndarray) -> np.ndarray:
        """(passages,) float32."""
        blocks = range(0, len(self.pool), ROWS_A_BLOCK)
        rows = (self.pool.vectors[first : first + ROWS_A_BLOCK] for first in blocks)
        return np.concatenate([np.asarray(block, np.float32) @ vector for block in rows])

    def _run(self, query_id: str) -> np.ndarray:
        scores = np.full(len(self.pool), -np.inf, np.float32)
        for row, score in self.run.get(query_id, {}).items():
            scores[row] = score
        return scores


class Teacher(Protocol):
    """A loaded teacher."""

    device: str

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """(n,) float32, higher is better."""
        ...


def identify_teachers(options: DataOptions) -> dict[str, dict[str, str]]:
    """What teachers that read texts are, by content, without loading them: part of a key."""
    return {
        scorer: {"name": model, "content": _content(model)}
        for scorer, model in _models(options).items()
    }


def load_teachers(options: DataOptions) -> dict[str, Teacher]:
    """The teachers that read texts among the options' scorers.

    Raises:
        ConfigError: a model is not there, or a cross-encoder does not give one score.
    """
    settings = Settings.from_environment()
    classes: dict[str, Any] = {"cross-encoder": CrossEncoder, "query-likelihood": QueryLikelihood}
    return {scorer: classes[scorer](model, settings) for scorer, model in _models(options).items()}


class CrossEncoder:
    """A sentence-transformers CrossEncoder with one output; scores are logits."""

    def __init__(self, name: str, settings: Settings):
        torch.set_num_threads(settings.threads)
        folder = resolve_model(name, cache=settings.cache).folder
        self.model = sentence_transformers.CrossEncoder(
            str(folder), max_length=CROSS_ENCODER_TOKENS
        )
        if self.model.num_labels != 1:
            raise ConfigError(
                f"The cross-encoder {name!r} gives {self.model.num_labels} scores for a pair; a "
                "teacher gives one. Use one trained for ranking."
            )
        # A sigmoid ties what it saturates on.
        self.activation = torch.nn.Identity()
        self.device = str(self.model.device)

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        pairs = [(query, text) for text in texts]
        scores = self.model.predict(
            pairs,
            batch_size=PAIRS_A_BATCH,
            activation_fn=self.activation,
            show_progress_bar=False,
        )
        return np.asarray(scores, np.float32)


class QueryLikelihood:
    """log P(query | passage) by a causal LLM in float32, the mean over the query's tokens.

    Its opinion is independent of embeddings and term weights. It costs the LLM's reading of
    every passage: for SmolLM2-135M 0.2 GFLOP a token, so choose a `query_limit`.
    """

    def __init__(self, name: str, settings: Settings):
        torch.set_num_threads(settings.threads)
        folder = resolve_model(name, cache=settings.cache).folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM
        self.model = model.from_pretrained(folder, dtype=torch.float32).to(self.device).eval()
        self.start = [self.tokenizer.bos_token_id] if self._begins_with_bos() else []

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        answer = self._tokens(f" {' '.join(query.split())}")
        prompts = [self._prompt(text) for text in texts]
        scores = np.empty(len(texts), np.float32)
        # Of one length each batch, nearly: padding is read like any other token.
        order = sorted(range(len(texts)), key=lambda i: len(prompts[i]))
        for first in range(0, len(order), PAIRS_A_BATCH):
            places = order[first : first + PAIRS_A_BATCH]
            scores[places] = self._score_batch([prompts[i] for i in places], answer)
        return scores

    def _score_batch(self, prompts: list[list[int]], answer: list[int]) -> np.ndarray:
        length = max(map(len, prompts)) + len(answer)
        ids = torch.zeros(len(prompts), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left: the answer comes last
            tokens = [*prompt, *answer]
            ids[row, length - len(tokens) :] = torch.tensor(tokens)
            mask[row, length - len(tokens) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        with torch.inference_mode():
            logits = self.model(
                **{name: tensor.to(self.device) for name, tensor in inputs.items()},
                logits_to_keep=len(answer) + 1,
                use_cache=False,
            ).logits
        return _mean_log_probability(logits[:, :-1], answer)

    def _prompt(self, text: str) -> list[int]:
        passage = self._tokens(" ".join(text.split()))[:PASSAGE_TOKENS]
        return [*self.start, *self._tokens(UPR_BEFORE), *passage, *self._tokens(UPR_AFTER)]

    def _tokens(self, text: str) -> list[int]:
        # A marker inside a text is read as text.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]

    def _begins_with_bos(self) -> bool:
        tokens = self.tokenizer("a")["input_ids"]
        return bool(tokens) and tokens[0] == self.tokenizer.bos_token_id


def _mean_log_probability(logits: torch.Tensor, answer: list[int]) -> np.ndarray:
    """(n,) from logits (n, answer, vocabulary) before each token of the answer."""
    targets = torch.tensor(answer, device=logits.device).expand(len(logits), -1)
    of_tokens = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return of_tokens.mean(1).cpu().numpy()


def _models(options: DataOptions) -> dict[str, str]:
    named = {
        "cross-encoder": options.cross_encoder,
        "query-likelihood": options.likelihood_llm,
    }
    return {s: named[s] for s in options.teacher_weights if s not in FIRST_STAGE}


def _content(name: str) -> str:
    model = find_model(name)
    return model.revision or content_hash(Path(model.folder))
