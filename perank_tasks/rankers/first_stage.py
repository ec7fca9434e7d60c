"""`first-stage`: the first stage's own order, which every other arm is held against."""

from typing import ClassVar

import numpy as np

from perank_tasks.rankers.interface import Models, RankerOptions, ScoreRanker
from perank_tasks.support.lists import CandidateList


class FirstStageOptions(RankerOptions):
    """Nothing to set."""

    expected: ClassVar[frozenset[str]] = frozenset({"order-unchanged", "scores-equal"})

    def load(self, models: Models) -> ScoreRanker:
        """As `RankerOptions.load`."""
        return ScoreRanker(own_scores)


def own_scores(candidates: CandidateList) -> np.ndarray:
    """(n,), the first stage's."""
    assert candidates.scores is not None
    return candidates.scores
