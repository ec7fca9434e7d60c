"""`first-stage`: the first stage's own order, which every other arm is held against."""

import numpy as np

from perank_tasks.rankers.interface import Models, RankerOptions, ScoreRanker
from perank_tasks.support.lists import CandidateList


class FirstStageOptions(RankerOptions):
    """Nothing to set."""

    def load(self, models: Models) -> ScoreRanker:
        """As `RankerOptions.load`."""
        return ScoreRanker(_scores)


def _scores(candidates: CandidateList) -> np.ndarray:
    assert candidates.scores is not None
    return candidates.scores
