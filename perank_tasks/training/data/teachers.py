"""Teachers that read texts: in, a query and passages; out, a score for each passage.

What needs no text (cosine, BM25, a run) is in `pool.FirstStage`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from perank_tasks.errors import ConfigError
from perank_tasks.models.find import content_hash, find_model, resolve_model
from perank_tasks.settings import Settings
from perank_tasks.training.data.options import FIRST_STAGE, DataOptions

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

PAIRS_A_BATCH = 16
PASSAGE_TOKENS = 256
CROSS_ENCODER_TOKENS = 512

UPR_BEFORE = "Passage: "
UPR_AFTER = " Please write a question based on this passage. Question:"
"""The prompt of UPR, Sachan et al., Improving Passage Retrieval with Zero-Shot Question
Generation; the last word is ours, since an LLM that is no T0 would go on in other ways."""


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
        import torch
        from sentence_transformers import CrossEncoder as Model

        torch.set_num_threads(settings.threads)
        folder = resolve_model(name, cache=settings.cache).folder
        self.model = Model(str(folder), max_length=CROSS_ENCODER_TOKENS)
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
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

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
        import torch

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


def _mean_log_probability(logits: "torch.Tensor", answer: list[int]) -> np.ndarray:
    """(n,) from logits (n, answer, vocabulary) before each token of the answer."""
    import torch

    targets = torch.tensor(answer, device=logits.device).expand(len(logits), -1)
    found = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return found.mean(1).cpu().numpy()


def _models(options: DataOptions) -> dict[str, str]:
    named = {
        "cross-encoder": options.cross_encoder,
        "query-likelihood": options.likelihood_llm,
    }
    return {s: named[s] for s in options.teacher_weights if s not in FIRST_STAGE}


def _content(name: str) -> str:
    found = find_model(name)
    return found.revision or content_hash(Path(found.folder))
