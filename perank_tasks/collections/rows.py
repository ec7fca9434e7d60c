"""Rows of any source become passages and queries: the one place that says what they must hold.

In: rows as they stand in a file or come from a library. Out: records whose texts have no NUL and
no lone surrogates, and whose identifiers hold no white space.
"""

from collections.abc import Iterable
from typing import NamedTuple

from perank_tasks.collections.records import Passage, Query
from perank_tasks.errors import CollectionError
from perank_tasks.support.text import clean_text


class Row(NamedTuple):
    """A passage or a query, and where it stands: `corpus.jsonl, line 7`."""

    where: str
    identifier: str
    text: str
    title: str | None = None
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


def to_passage(row: Row) -> Passage | None:
    """The passage; None where it has neither title nor text: nothing can find it.

    Raises:
        CollectionError: see `to_identifier`.
    """
    title, text = clean_text(row.title or ""), clean_text(row.text)
    passage_id = to_identifier(row)
    if not title.strip() and not text.strip():
        return None
    return Passage(passage_id, text, title or None)


def to_queries(rows: Iterable[Row]) -> list[Query]:
    """The queries, in order.

    Raises:
        CollectionError: one has no identifier or text, or tags that are no strings, or an
            identifier comes twice.
    """
    queries: list[Query] = []
    seen: dict[str, str] = {}
    for row in rows:
        query_id, text = row.identifier.strip(), clean_text(row.text).strip()
        if not query_id or not text:
            raise CollectionError(
                f"{row.where}: the query {query_id or text!r} has no "
                f"{'text' if query_id else 'identifier'}; expected both; fill it in or remove the "
                "line"
            )
        query_id = to_identifier(row)
        only_once(seen, query_id, "query", row.where)
        queries.append(Query(query_id, text, tags=_tags(row)))
    return queries


def _tags(row: Row) -> tuple[str, ...]:
    tags = [] if row.tags is None else row.tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CollectionError(
            f"{row.where}: expected a list of strings in 'tags'; found {row.tags!r}. Correct or "
            "remove it"
        )
    return tuple(sorted({clean_text(tag).strip() for tag in tags} - {""}))


def only_once(seen: dict[str, str], identifier: str, what: str, where: str) -> None:
    """Note where an identifier stands.

    Raises:
        CollectionError: it stands elsewhere already.
    """
    first = seen.setdefault(identifier, where)
    if first != where:
        raise CollectionError(
            f"{where}: {what} {identifier!r} is in {first} already; rename or remove one of the two"
        )
