"""`first-stage`: the first stage's own order, which every other arm is held against."""

import numpy as np

from perank_tasks.config import SymptomName
from perank_tasks.rankers.interface import Models, RankerOptions, ScoreRanker
from perank_tasks.support.lists import CandidateList


class FirstStageOptions(RankerOptions):
    """Nothing of its own to set."""

    expect: tuple[SymptomName, ...] = ("order-unchanged", "scores-equal")

    def load(self, models: Models) -> ScoreRanker:
        """As `RankerOptions.load`."""
        return ScoreRanker(own_scores)


def own_scores(candidates: CandidateList) -> np.ndarray:
    """(n,), the first stage's."""
    assert candidates.scores is not None
    return candidates.scores
