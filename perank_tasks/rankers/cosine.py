"""`cosine`: similarity of query and passage embeddings; `fusion` adds the first stage's score."""

import numpy as np
from pydantic import Field

from perank_tasks.rankers.interface import (
    Description,
    EmbedderOptions,
    Models,
    RankerOptions,
    ScoreRanker,
)
from perank_tasks.support.lists import CandidateList


class CosineOptions(EmbedderOptions, RankerOptions):
    """What a `cosine` arm may set."""

    def describe(self, models: Models) -> Description:
        """It reads embeddings."""
        return Description(embedder=self.embedder)

    def load(self, models: Models) -> ScoreRanker:
        """As `RankerOptions.load`."""
        return ScoreRanker(cosine)


class FusionOptions(CosineOptions):
    """What a `fusion` arm may set."""

    weight: float = Field(0.008, ge=0)
    """Weight of the first stage's score beside the cosine."""

    def load(self, models: Models) -> ScoreRanker:
        """As `RankerOptions.load`."""
        return ScoreRanker(lambda candidates: fusion(candidates, self.weight))


def cosine(candidates: CandidateList) -> np.ndarray:
    """Cosine similarity of L2-normalised embeddings: (n,)."""
    assert candidates.embeddings is not None
    assert candidates.query_embedding is not None
    return candidates.embeddings @ candidates.query_embedding


def fusion(candidates: CandidateList, weight: float) -> np.ndarray:
    """Cosine plus `weight` times the first stage's score: (n,)."""
    assert candidates.scores is not None
    return cosine(candidates) + weight * candidates.scores
