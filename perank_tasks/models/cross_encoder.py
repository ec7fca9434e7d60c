"""A cross-encoder: in, a query and texts; out, one logit for each pair, higher is better.

Any sentence-transformers `CrossEncoder` with one output that needs no code of its own. Scores are
those of the library's own `predict` before its activation: a sigmoid would tie what it saturates
on. A list is scored by itself, longest pairs first, so that its scores do not depend on what else
is ranked.
"""

import logging
from collections.abc import Sequence

import numpy as np
import sentence_transformers
import torch

from perank_tasks.errors import ConfigError, RankerError
from perank_tasks.models.find import ResolvedModel

# Pairs longer than a model are counted here, and no news.
logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)


class CrossEncoder:
    """A cross-encoder in float32 on a CPU, in bfloat16 on a GPU.

    Args:
        max_length: tokens a pair is cut at; a model's own maximum where that is less.
        batch_size: pairs at once.
        float32: on a GPU, too.

    Raises:
        ConfigError: the files make no model, or one that does not give one score.
    """

    def __init__(
        self,
        model: ResolvedModel,
        max_length: int = 512,
        batch_size: int = 32,
        *,
        float32: bool = False,
    ):
        half = torch.cuda.is_available() and not float32
        dtype = torch.bfloat16 if half else torch.float32
        try:
            self.model = sentence_transformers.CrossEncoder(
                str(model.folder), model_kwargs={"dtype": dtype}
            )
        except Exception as error:  # transformers, safetensors and tokenizers each raise their own
            raise ConfigError(
                f"The cross-encoder {model.name!r} ({model.folder}) cannot be loaded: {error}"
            ) from error
        if self.model.num_labels != 1:
            raise ConfigError(
                f"The cross-encoder {model.name!r} gives {self.model.num_labels} scores for a "
                "pair; one is needed to rank by. Use one trained for ranking."
            )
        own = self.model.max_seq_length or max_length
        self.max_length = self.model.max_seq_length = min(max_length, own)
        self.batch_size = batch_size
        self.device = str(self.model.device)
        self.dtype = str(dtype).removeprefix("torch.")

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """(n,) float32.

        Raises:
            RankerError: a batch does not fit into memory.
        """
        try:
            scores = self.model.predict(
                [(query, text) for text in texts],
                batch_size=self.batch_size,
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
            )
        except torch.OutOfMemoryError as error:
            raise RankerError(
                f"{self.batch_size} pairs of up to {self.max_length} tokens do not fit into the "
                f"memory of {self.device}: set a smaller batch_size or max_length."
            ) from error
        return np.asarray(scores, np.float32)

    def lengths(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """(n,) tokens of each pair before it is cut."""
        if not texts:
            return np.zeros(0, np.int64)
        whole = {"text": {"truncation": False}}
        features = self.model.preprocess([(query, t) for t in texts], processing_kwargs=whole)
        return np.asarray(features["attention_mask"].sum(1))
