"""`run`: a ranking made elsewhere, such as what production answered last night.

The arm's candidates are the run's own passages, not those of a first stage, so that it is measured
as it is. `night/retrieve.py` reads them; a query that the run does not name is left unranked.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Literal

from pydantic import field_validator

from perank_tasks.artifacts.storage.s3_path import to_path
from perank_tasks.collections.trec import read_run
from perank_tasks.config import SymptomName, stable_hash
from perank_tasks.errors import PerankError
from perank_tasks.rankers.first_stage import own_scores
from perank_tasks.rankers.interface import Description, Models, RankerOptions, ScoreRanker
from perank_tasks.support.lists import CandidateList, RankedList, unranked

Lines = dict[str, list[tuple[str, float]]]
"""{query id: (passage id, score) of its lines, best first}"""


class RunOptions(RankerOptions):
    """What a `run` arm may set."""

    expect: tuple[SymptomName, ...] = ("order-unchanged",)
    path: str
    """A TREC run, on this machine or s3://bucket/key. {date} is the night's date, as 2026-01-31 or
    as {date:%Y%m%d} says."""
    unknown: Literal["refuse", "drop"] = "refuse"
    """What becomes of passages that the collection does not have. refuse: their query is left
    unranked; drop: they are left out."""

    @field_validator("path")
    @classmethod
    def _path_knows_a_date_alone(cls, path: str) -> str:
        try:
            path.format(date=date(2000, 1, 1))
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{{date}} and forms like {{date:%Y%m%d}} are all that a path can have in braces "
                f"({error})"
            ) from None
        return path

    def describe(self, models: Models) -> Description:
        """The run by its lines; its texts are read where unknown passages are refused."""
        drop = self.unknown == "drop"
        run = {"run": self.path, "drop_unknown": drop}
        try:
            run["run_content"] = stable_hash(read_lines(self.path, models.run_date))
        except PerankError as error:
            return Description(run=run, missing=str(error))
        return Description(texts=not drop, run=run)

    def load(self, models: Models) -> "RunRanker":
        """As `RankerOptions.load`."""
        path = self.path.format(date=models.run_date)
        return RunRanker(own_scores, description={"run": path})


class RunRanker(ScoreRanker):
    """Keeps the run's order; a query without lines is unranked, not ranked with nothing."""

    def rank(self, lists: Iterable[CandidateList]) -> Iterator[RankedList]:
        """As `Ranker.rank`."""
        for candidates in lists:
            if candidates.problem or len(candidates):
                yield from super().rank([candidates])
            else:
                yield unranked(candidates, "the run has no passage of the collection for it")


def read_lines(path: str, run_date: date) -> Lines:
    """A run's lines, as `by_query`.

    Raises:
        CollectionError, StorageError: it is not there, or malformed; names the line.
        ConfigError: the path begins with s3:// and is malformed.
    """
    lines = read_run(to_path(path.format(date=run_date), "the run"))
    return by_query((line.query_id, line.passage_id, line.score) for line in lines)


def by_query(rows: Iterable[tuple[str, str, float]]) -> Lines:
    """(query id, passage id, score) by query, in trec_eval's order, by which a run's measures are
    published: of equal scores, the greater id first."""
    lines: Lines = defaultdict(list)
    for query_id, passage_id, score in rows:
        lines[query_id].append((passage_id, score))
    for ranked in lines.values():
        ranked.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
    return dict(lines)
