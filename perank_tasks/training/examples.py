"""What one example of each training stage is: the records between the data and the trainer.

Both stages take whatever has a length and examples by place: data readers, torch's subsets of them,
a plain list. Embeddings are float32 and L2-normalised, as the projector takes them.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from perank_tasks.training.recipe import StageRecipe

Example = TypeVar("Example", covariant=True)


class Examples(Protocol[Example]):
    """Examples by place."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Example: ...


@dataclass(frozen=True, slots=True)
class AlignmentExample:
    """A passage for stage 1: the LLM learns to say `text` from `embedding` alone."""

    passage_id: str
    text: str
    embedding: np.ndarray
    """[d] float32, L2-normalised."""


@dataclass(frozen=True, slots=True)
class RankingExample:
    """A list of n candidates with its golden ranking, for stage 2 and its development set."""

    query_id: str
    query: str
    query_embedding: np.ndarray
    """[d] float32, L2-normalised."""
    passage_ids: list[str]
    embeddings: np.ndarray
    """[n, d] float32, L2-normalised, in the order of the prompt."""
    texts: list[str]
    """In the order of the prompt."""
    ranking: list[int]
    """Indices into the order of the prompt, best first; each of 0 … n-1 once."""
    scores: np.ndarray | None
    """[n] first-stage (BM25) scores, in the order of the prompt; None where the data have none."""


def drawn(development: Examples[Example], recipe: StageRecipe) -> list[Example]:
    """The development examples that are measured: at most the recipe's number, by its seed."""
    order = np.random.default_rng(recipe.seed).permutation(len(development))
    return [development[int(place)] for place in order[: recipe.eval_examples]]
