"""What is odd in a collection and harmless: counted by kind, or refused where that is asked for.

Readers and the snapshot count; the counts travel in the snapshot's manifest and are shown with
every night. What makes results wrong is no business of this file: readers refuse that.
"""

from collections import Counter
from typing import TypedDict

from perank_tasks.errors import CollectionError

KINDS = {
    "empty_passages": ("passages", "without title and text, left out"),
    "titles_alone": ("passages", "with a title and no text, the title for content"),
    "repeated_passages": ("passages", "again with the same identifier and text, kept once"),
    "repeated_texts": ("passages", "with the text of another one, kept"),
    "empty_queries": ("queries", "without text, left out"),
    "repeated_queries": ("queries", "again with the same identifier and text, kept once"),
    "identical_ids": (
        "queries",
        "that are passages: each one's own is left out of its candidates and judgements "
        "(identical_ids=keep keeps it)",
    ),
    "repeated_judgements": ("judgements", "again with the same grade, kept once"),
    "unknown_queries": ("judgements", "of queries that the collection does not have, passed over"),
    "blank_lines": ("lines", "that are blank, passed over"),
    "byte_order_marks": ("files", "that begin with a byte order mark, passed over"),
    "crlf_ends": ("files", "with CRLF line ends, read as line feeds"),
    "stray_names": ("names", "beside the dated folders that are no dates, passed over"),
}
"""What is counted of each kind, and by which rule it is kept or left out."""

_ABOUT_FILES = {"lines", "files", "names"}


class Count(TypedDict):
    """How many there are, of how many (None: not counted), and the first of them."""

    count: int
    of: int | None
    first: str


class Odd:
    """The counts of one reading.

    Attributes:
        strict: refuse what is odd instead.
        read: how many passages, queries and judgements there were, odd or not.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.read: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def count(self, kind: str, where: str, name: str | None = None) -> None:
        """Count one of a kind.

        Args:
            where: it stands, for the refusal.
            name: what it is called in the summary; None: by where it stands.

        Raises:
            CollectionError: the collection is strict.
        """
        self.refuse(" ".join(KINDS[kind]), where)
        self.note(kind, name or where)

    def note(self, kind: str, name: str) -> None:
        """Count what is the collection's own way and no reason to refuse it."""
        self._counts[kind] += 1
        self._first.setdefault(kind, name)

    def refuse(self, what: str, where: str) -> None:
        """Raises CollectionError where the collection is strict."""
        if self.strict:
            raise CollectionError(
                f"{where}: among {what}. The collection's spec says strict=true: correct it, or "
                "leave strict out"
            )

    def counts(self, *, of_files: bool = True) -> dict[str, Count]:
        """By kind, for the manifest; `of_files` with what is not about the content."""
        return {
            kind: Count(count=n, of=self.read[KINDS[kind][0]] or None, first=self._first[kind])
            for kind, n in sorted(self._counts.items())
            if of_files or KINDS[kind][0] not in _ABOUT_FILES
        }


def in_words(kind: str, count: Count) -> str:
    """One line for people: `passages without title and text, left out: 2 of 1,400 (471 …)`."""
    total = f" of {count['of']:,}" if count["of"] else ""
    return f"{' '.join(KINDS[kind])}: {count['count']:,}{total} ({count['first']} the first)"
