"""What a collection consists of, and the interface of an adapter."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, Protocol

from perank_tasks.collections.odd import Odd

IdenticalIds = Literal["keep", "texts", "drop"]
"""The passage whose identifier is the query's: kept; left out where its text is the query's, too;
or left out, as BEIR's own evaluation does."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrievable text. `title` is part of what is searched and embedded."""

    passage_id: str
    text: str
    title: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked; `tags` name the groups it belongs to, by which results are looked at."""

    query_id: str
    text: str
    tags: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of the qrels. `text_hash`, where known, is of the text that was judged."""

    query_id: str
    passage_id: str
    relevance: int
    text_hash: str | None = None


@dataclass(frozen=True, slots=True)
class RunLine:
    """One line of a TREC run: a passage's score for a query."""

    query_id: str
    passage_id: str
    score: float


@dataclass(frozen=True)
class CollectionData:
    """What an adapter hands to the snapshot stage.

    `passages` may be a one-pass iterator (a corpus need not fit in memory); queries,
    judgements and the run do. `snapshot_date` is the date of the `dt=` folder that was
    chosen, None where the collection has no dates. `relevance_level` is the least grade
    that binary measures count as relevant. `odd` counts on while passages are read.
    """

    name: str
    passages: Iterator[Passage]
    queries: list[Query]
    judgements: list[Judgement]
    run: list[RunLine] = field(default_factory=list)
    snapshot_date: date | None = None
    relevance_level: int = 1
    odd: Odd = field(default_factory=Odd)
    identical_ids: IdenticalIds = "keep"


class Collection(Protocol):
    """The one interface an adapter implements."""

    @property
    def name(self) -> str:
        """Names the collection in artifacts and results: letters, digits, `.`, `_`, `-`."""
        ...

    @property
    def run(self) -> str | None:
        """The first-stage run that it brings, as the spec names it; None where it brings none."""
        ...

    def check(self, as_of: date) -> None:
        """Look whether its files are there, without reading them.

        Raises:
            CollectionError: nothing that early, or a file is missing.
        """
        ...

    def load(self, as_of: date) -> CollectionData:
        """Read the newest snapshot dated `as_of` or earlier.

        Raises:
            CollectionError: nothing that early, or a file is missing, empty or malformed.
        """
        ...
