"""Rows of any source become passages and queries: the one place that says what they must hold.

In: rows as they stand in a file or come from a library. Out: records whose texts have no NUL and
no lone surrogates, and whose identifiers hold no white space.

    passage   without title and text: left out; a title alone: the content; the same identifier
              again: left out with the same text, refused with another
    query     without text: left out; the same identifier again: as a passage's

What is left out is counted, see `odd`. A source that has nothing else is refused.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from perank_tasks.collections.odd import Odd
from perank_tasks.collections.records import Passage, Query
from perank_tasks.errors import CollectionError
from perank_tasks.support.text import clean_text, text_hash


class Row(NamedTuple):
    """A passage or a query, and where it stands: `corpus.jsonl, line 7`."""

    where: str
    identifier: str
    text: str
    title: str | None = None
    columns: tuple[str, ...] = ()
    """What its source calls what it has."""
    tags: object = None
    """Of a query, as they stand there."""


def to_identifier(row: Row) -> str:
    """Its identifier, cleaned.

    Raises:
        CollectionError: it is empty, or no TREC file could hold it.
    """
    identifier = clean_text(row.identifier).strip()
    if len(identifier.split()) != 1:
        raise CollectionError(
            f"{row.where}: expected an identifier without white space, which TREC files separate "
            f"columns by; found {row.identifier!r}"
        )
    return identifier


def to_passages(read: Callable[[], Iterable[Row]], odd: Odd) -> Iterator[Passage]:
    """The passages, in order, one at a time.

    Memory is one passage and some 24 bytes for every one read.

    Args:
        read: reads the rows from the first one on; called again where an identifier repeats.

    Raises:
        CollectionError: see `to_identifier`; all are empty; or, after the last passage, an
            identifier has two texts.
    """
    seen, again = Seen(), dict[str, str]()
    empty, written = None, False
    for row in read():
        odd.read["passages"] += 1
        passage_id = to_identifier(row)
        if seen.add(passage_id):
            again.setdefault(passage_id, row.where)
        elif passage := _passage(row, passage_id):
            if not passage.text.strip():
                odd.count("titles_alone", row.where, passage_id)
            written = True
            yield passage
        else:
            odd.count("empty_passages", row.where, passage_id)
            empty = empty or row
    if again:
        yield from _repeated(read, again, odd)
    if empty and not written:
        raise _all_empty("passages", "title and no text", empty)


def _passage(row: Row, passage_id: str) -> Passage | None:
    """The passage; None where it has neither title nor text: nothing can find it."""
    title, text = clean_text(row.title or ""), clean_text(row.text)
    return Passage(passage_id, text, title or None) if title.strip() or text.strip() else None


def _repeated(
    read: Callable[[], Iterable[Row]], again: dict[str, str], odd: Odd
) -> Iterator[Passage]:
    """Hold repeated passages against their firsts.

    Args:
        again: identifiers that seemed to repeat, and where they first did. One that is there for
            the first time shares its hash with another, and is yielded now.
    """
    firsts: dict[str, tuple[str, str]] = {}
    for row in read():
        if (passage_id := to_identifier(row)) not in again:
            continue
        content = text_hash(clean_text(row.title or ""), clean_text(row.text))
        where, first = firsts.setdefault(passage_id, (row.where, content))
        if first != content:
            raise _two_texts("passage", passage_id, row.where, where)
        if where != row.where:
            odd.count("repeated_passages", row.where, passage_id)
        elif again[passage_id] == where and (passage := _passage(row, passage_id)):
            yield passage


def to_queries(rows: Iterable[Row], odd: Odd) -> list[Query]:
    """The queries, in order.

    Raises:
        CollectionError: one has no identifier, or tags that are no strings, an identifier has two
            texts, or all are empty.
    """
    queries: list[Query] = []
    seen: dict[str, tuple[str, str]] = {}
    empty = None
    for row in rows:
        odd.read["queries"] += 1
        text = clean_text(row.text).strip()
        if not row.identifier.strip():
            raise CollectionError(
                f"{row.where}: the query {text!r} has no identifier; expected both; fill it in or "
                "remove the line"
            )
        query_id = to_identifier(row)
        where, first = seen.setdefault(query_id, (row.where, text))
        if first != text:
            raise _two_texts("query", query_id, row.where, where)
        if where != row.where:
            odd.count("repeated_queries", row.where, query_id)
        elif text:
            queries.append(Query(query_id, text, tags=_tags(row)))
        else:
            odd.count("empty_queries", row.where, query_id)
            empty = empty or row
    if empty and not queries:
        raise _all_empty("queries", "text", empty)
    return queries


def _tags(row: Row) -> tuple[str, ...]:
    tags = [] if row.tags is None else row.tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CollectionError(
            f"{row.where}: expected a list of strings in 'tags'; found {row.tags!r}. Correct or "
            "remove it"
        )
    return tuple(sorted({clean_text(tag).strip() for tag in tags} - {""}))


def _two_texts(what: str, identifier: str, where: str, first: str) -> CollectionError:
    return CollectionError(
        f"{where}: {what} {identifier!r} is in {first} already, with another text; rename or "
        "remove one of the two"
    )


def _all_empty(what: str, missing: str, first: Row) -> CollectionError:
    columns = f"; it has {', '.join(first.columns)}" if first.columns else ""
    return CollectionError(
        f"{first.where}: has no {missing}, and neither have the other {what}{columns}. Texts are "
        "read from 'text' or 'contents'"
    )


class Seen:
    """Whether something was there before, by 8-byte hashes: 16 to 32 bytes each, where a set
    takes over 100.

    Two different things with one hash are possible (one chance in 500,000 among 10 million).
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 10))
        self._count = 0

    def add(self, text: str) -> bool:
        """Note it; whether its hash was there."""
        value = _hash(text) or 1  # 0 is an empty slot
        if 2 * self._count >= len(self._slots):
            old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for other in filter(None, old):
                self._slots[self._slot(other)] = other
        slot = self._slot(value)
        if self._slots[slot]:
            return True
        self._slots[slot] = value
        self._count += 1
        return False

    def _slot(self, value: int) -> int:
        """Where the value is, or the empty slot where it belongs."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = value & mask
        while slots[slot] and slots[slot] != value:
            slot = (slot + 1) & mask
        return slot


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
