"""An arm's ranker under guard: whatever it does, each list comes back ranked or with the reason.

In: a night's arm and its lists. Out: one checked `RankedList` for each of them, in order. A ranker
whose model, file or service is not there, or that fails in the middle, leaves the rest of its lists
unranked, so that the arm is incomplete and says why, and the other arms are whole. Of a ranker that
another package brings, any exception counts as failing; of our own it is a bug, and raised.
"""

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from perank_tasks.config import Arm
from perank_tasks.errors import RankerError
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models, Ranker
from perank_tasks.support.lists import NOT_FINITE, CandidateList, RankedList, unranked

log = logging.getLogger(__name__)


class GuardedRanker:
    """A `Ranker` that is there, whether or not the arm's own could be loaded."""

    def __init__(self, arm: Arm, models: Models):
        self.package = RANKERS.package(arm.ranker)
        self.failure = arm.missing
        self.ranker: Ranker | None = None
        if self.failure is None:
            try:
                self.ranker = RANKERS[arm.ranker].parse(arm.options).load(models)
            except Exception as error:
                self._fail(error)

    @property
    def device(self) -> str:
        return self.ranker.device if self.ranker else "none"

    def description(self) -> dict[str, Any]:
        return self.ranker.description() if self.ranker else {}

    def work(self) -> dict[str, float]:
        return self.ranker.work() if self.ranker else {}

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`, each result held against its list."""
        stream = iter(lists)
        waiting: deque[CandidateList] = deque()

        def handed() -> Iterator[CandidateList]:
            for candidates in stream:
                waiting.append(candidates)
                yield candidates

        if self.ranker:
            try:
                for ranked in self.ranker.rank(handed()):
                    if not waiting:
                        raise RankerError("the ranker gave more rankings than there are lists")
                    yield _checked(waiting.popleft(), ranked)
            except Exception as error:
                self._fail(error)
        reason = self.failure or "the ranker gave no ranking for it"
        for candidates in (*waiting, *stream):
            is_outage = self.failure is not None
            yield unranked(candidates, candidates.problem or reason, is_outage=is_outage)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, RankerError) and self.package is None:
            raise error
        log.error("the ranker has failed", exc_info=error)
        is_ours = isinstance(error, RankerError)
        self.failure = str(error) if is_ours else f"{self.package}: {error!r}"


def _checked(candidates: CandidateList, ranked: RankedList) -> RankedList:
    """The ranking, if it is one of these candidates; else they are left unranked."""
    wrong = None
    if ranked.query_id != candidates.query_id or list(ranked.passage_ids) != list(
        candidates.passage_ids
    ):
        wrong = "the ranker answered with another list"
    elif sorted(ranked.order) != list(range(len(candidates))):
        wrong = "the ranker's order does not name every candidate once"
    elif len(ranked.scores) != len(candidates):
        wrong = f"the ranker gave {len(ranked.scores)} scores for {len(candidates)} candidates"
    elif not all(map(math.isfinite, ranked.scores)):
        wrong = NOT_FINITE
    return unranked(candidates, wrong, is_malformed=True) if wrong else ranked
