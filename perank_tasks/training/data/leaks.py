"""No query of an evaluation collection in training: compared by text, whatever its identifier.

Two queries are the same where their normal forms are (case, punctuation and white space
aside), or where they have the same stems equally often in any order, BM25's stopwords
aside: `What is the cost of flooring?` is `flooring costs: what`.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TypeVar

from perank_tasks.collections.formats import read_queries
from perank_tasks.collections.pydocs import DATA
from perank_tasks.collections.records import Query
from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import TrainingDataError
from perank_tasks.support.analysis import analyze

log = logging.getLogger(__name__)

Q = TypeVar("Q", bound=Query)

ALWAYS = "pydocs"
"""The collection that ships: every claim about a checkpoint is measured on it."""

SHOWN = 20


def normal_form(text: str) -> str:
    """Without case, punctuation, and white space but one space between words."""
    return " ".join(re.sub(r"[\W_]+", " ", _folded(text)).split())


def bag_of_stems(text: str) -> str:
    """The stems of a text, sorted, each as often as it is there; of stopwords alone, those."""
    stems = analyze(_folded(text).replace("_", " "))
    return " ".join(sorted(stems)) or normal_form(text)


class EvaluationQueries:
    """Queries that must not be trained on, found again by their text."""

    def __init__(self, collections: Iterable[tuple[str, Sequence[Query]]]):
        self.counts: dict[str, int] = {}
        self.forms: dict[str, tuple[str, Query]] = {}
        """Everything that the outcome of `find` depends on."""
        for name, queries in collections:
            self.counts[name] = len(queries)
            for query in queries:
                for form in _forms(query.text):
                    self.forms.setdefault(form, (name, query))

    @classmethod
    def of(cls, specs: Sequence[str], as_of: date) -> "EvaluationQueries":
        """The queries of these collections, and of those that always count.

        Raises:
            ConfigError, CollectionError: a collection is unknown or cannot be read.
        """
        # Its queries are a file; `load` would read the whole documentation for them.
        named = [(ALWAYS, read_queries(DATA / "queries.tsv"))]
        for spec in dict.fromkeys(specs):
            if spec != ALWAYS:
                data = open_collection(spec).load(as_of)
                named.append((data.name, data.queries))
        return cls(named)

    def find(self, query: Query) -> tuple[str, Query] | None:
        """Whose query this is, if any: a collection's name and its query."""
        return next((self.forms[f] for f in _forms(query.text) if f in self.forms), None)


def without_evaluation_queries(
    queries: Sequence[Q], evaluation: EvaluationQueries, *, drop: bool
) -> list[Q]:
    """The queries that may be trained on.

    Args:
        drop: leave evaluation queries out instead of refusing them.

    Raises:
        TrainingDataError: there are some; lists them.
    """
    matches = [evaluation.find(query) for query in queries]
    coincidences = [
        f"{query.query_id} {query.text!r} is {match[0]}'s {match[1].query_id} {match[1].text!r}"
        for query, match in zip(queries, matches, strict=True)
        if match
    ]
    if coincidences and not drop:
        shown = "\n  ".join(coincidences[:SHOWN])
        raise TrainingDataError(
            f"{len(coincidences)} of {len(queries)} training queries are queries of an evaluation "
            f"collection. The first {SHOWN} at most:\n  {shown}\nTrain on other queries, or leave "
            "these out with --drop-evaluation-queries."
        )
    for coincidence in coincidences:
        log.info("left out: %s", coincidence)
    return [query for query, match in zip(queries, matches, strict=True) if not match]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _forms(text: str) -> tuple[str, str]:
    # The two kinds are told apart by their first letter: "run" is a text and a stem.
    return f"text {normal_form(text)}", f"stems {bag_of_stems(text)}"
