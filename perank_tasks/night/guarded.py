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

from perank_tasks.config import Arm
from perank_tasks.errors import RankerError, StorageError
from perank_tasks.rankers import RANKERS
from perank_tasks.rankers.interface import Models, Ranker, ScoreRanker
from perank_tasks.support.lists import NOT_FINITE, CandidateList, RankedList, unranked

log = logging.getLogger(__name__)


def load_ranker(arm: Arm, models: Models) -> Ranker:
    """The arm's ranker, or one that says of the first list why there is none."""
    try:
        if arm.missing:
            raise RankerError(arm.missing)
        return RANKERS[arm.ranker].parse(arm.options).load(models)
    except Exception as error:
        reason = _reason(arm, error)

    def fail(_: CandidateList) -> None:
        raise RankerError(reason)

    return ScoreRanker(fail, device="none")  # type: ignore[arg-type]


def rank_guarded(arm: Arm, ranker: Ranker, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
    """As `Ranker.rank`, each result held against its list."""
    stream = iter(lists)
    waiting: deque[CandidateList] = deque()

    def handed() -> Iterator[CandidateList]:
        for candidates in stream:
            waiting.append(candidates)
            yield candidates

    reason = None
    try:
        for ranked in ranker.rank(handed()):
            if not waiting:
                raise RankerError("the ranker gave more rankings than there are lists")
            yield _checked(waiting.popleft(), ranked)
    except Exception as error:
        reason = _reason(arm, error)
    for candidates in (*waiting, *stream):
        why = candidates.problem or reason or "the ranker gave no ranking for it"
        yield unranked(candidates, why, is_outage=reason is not None)


def _reason(arm: Arm, error: Exception) -> str:
    """Why the arm is incomplete; another error than one that says so is raised."""
    package = RANKERS.package(arm.ranker)
    is_the_sites = isinstance(error, StorageError | MemoryError)  # its lists could not be read
    if is_the_sites or (package is None and not isinstance(error, RankerError)):
        raise error
    if isinstance(error, RankerError):
        return str(error)
    log.error("arm %s: the ranker of %s has failed", arm.name, package, exc_info=error)
    return f"{package}: {error!r}"


def _checked(candidates: CandidateList, ranked: RankedList) -> RankedList:
    """The ranking, if it is one of these candidates; else they are left unranked."""
    is_other = ranked.query_id != candidates.query_id
    if is_other or list(ranked.passage_ids) != list(candidates.passage_ids):
        wrong = "the ranker answered with another list"
    elif sorted(ranked.order) != list(range(len(candidates))):
        wrong = "the ranker's order does not name every candidate once"
    elif len(ranked.scores) != len(candidates):
        wrong = f"the ranker gave {len(ranked.scores)} scores for {len(candidates)} candidates"
    elif not all(map(math.isfinite, ranked.scores)):
        wrong = NOT_FINITE
    else:
        return ranked
    return unranked(candidates, wrong, is_malformed=True)
