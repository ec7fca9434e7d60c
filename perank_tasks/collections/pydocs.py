"""Collection `pydocs`: the Python standard library's own documentation, as installed.

In: the interpreter that runs this (nothing is downloaded or copied), and beside this file
`pydocs_data/queries.tsv` and `pydocs_data/qrels.tsv`.
Out: one passage for every distinct docstring of a public module, class, function, method
or property, and the language reference's topics cut into passages of at most 200 words.

    passage_id  `shutil.copytree`, or `topic:with#2`, the topic's second passage
    title       the dotted name, or `with: The "with" statement`, topic and section
    aliases     the other names under which the same text is found

The same interpreter gives the same passages in the same order, in every process and for
every user; another version of Python gives others, and `text_hash` tells which changed.

Notes: a title holds no signature. A default may show an address or a path, and a hash that
judgements are keyed by must not change with a parameter that the text does not mention.
"""

import json
import logging
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path

from perank_tasks.collections.formats import read_queries
from perank_tasks.collections.records import CollectionData, Passage
from perank_tasks.collections.trec import read_qrels
from perank_tasks.errors import CollectionError
from perank_tasks.support.text import clean_text

DATA = Path(__file__).with_name("pydocs_data")
READER = Path(__file__).with_name("pydocs_reader.py")
READER_TIMEOUT_S = 120
RELEVANCE_LEVEL = 2

# "Constructor.", "New in version 3.5." answer no query; "Same as a[b]." does.
LEAST_WORDS = 3
TOPIC_WORDS_LEAST, TOPIC_WORDS = 8, 200

log = logging.getLogger(__name__)

_HEADING_RULE = re.compile(r"([*=\-~^\"])\1{2,}")


@dataclass(frozen=True)
class Documentation:
    """What the reader found: `docstrings` as (name, is the defining one, text)."""

    docstrings: list[tuple[str, bool, str]]
    topics: dict[str, str]
    modules: int
    skipped: list[str]


class PydocsCollection:
    """The embedded collection; it has no dates, so every `as_of` sees the same."""

    name = "pydocs"
    run = None

    def check(self, as_of: date) -> None:
        """It is part of the interpreter: always there."""

    def load(self, as_of: date) -> CollectionData:
        """Passages of this interpreter, our queries and our judgements.

        Raises:
            CollectionError: the documentation cannot be read, or a data file is malformed.
        """
        documentation = read_documentation()
        log.info(
            "pydocs: read %d modules; %d do not import here: %s",
            documentation.modules,
            len(documentation.skipped),
            ", ".join(documentation.skipped),
        )
        return CollectionData(
            name=self.name,
            passages=chain(
                docstring_passages(documentation.docstrings), topic_passages(documentation.topics)
            ),
            queries=read_queries(DATA / "queries.tsv"),
            judgements=read_qrels(DATA / "qrels.tsv"),
            relevance_level=RELEVANCE_LEVEL,
        )


def read_documentation() -> Documentation:
    """Run the reader in a process of its own, with no user settings and no site-packages.

    Raises:
        CollectionError: the process failed, hung or printed something else.
    """
    # -S and -I: neither .pth files nor PYTHON* variables; -W: deprecated modules keep quiet.
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(READER)]
    try:
        done = subprocess.run(
            command, capture_output=True, check=True, timeout=READER_TIMEOUT_S, encoding="utf-8"
        )
        read = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise CollectionError(
            f"pydocs: reading the documentation of {sys.executable} failed: {error}. "
            f"Run `{' '.join(command)}` to see why"
        ) from error
    return Documentation(**read)


def docstring_passages(docstrings: Iterable[tuple[str, bool, str]]) -> list[Passage]:
    """One passage a distinct text, under the name that a programmer would import.

    That is a name in the module that defines the object, a built-in one first, then the
    shortest, then the alphabetically first; the others become aliases.
    """
    names_of: defaultdict[str, list[tuple[bool, bool, int, str]]] = defaultdict(list)
    for name, defining, text in docstrings:
        text = clean_text(text).strip()
        if _words(text) >= LEAST_WORDS:
            built_in = name.startswith("builtins.")
            names_of[text].append((not defining, not built_in, len(name), name))
    result = []
    for text, ranked in names_of.items():
        name, *others = [name for *_, name in sorted(ranked)]
        result.append(Passage(name, text, title=name, aliases=tuple(sorted(others))))
    return sorted(result, key=lambda passage: passage.passage_id)


def topic_passages(topics: dict[str, str]) -> list[Passage]:
    """Passages of the language reference; a section that several topics share comes once,
    under the topic whose name sorts first."""
    first: dict[str, Passage] = {}
    aliases: defaultdict[str, list[str]] = defaultdict(list)
    for topic in sorted(topics):
        for number, (heading, text) in enumerate(cut(clean_text(topics[topic])), 1):
            passage_id = f"topic:{topic}#{number}"
            if _words(text) < TOPIC_WORDS_LEAST:
                continue
            if text in first:
                aliases[text].append(passage_id)
            else:
                title = f"{topic}: {heading}" if heading else topic
                first[text] = Passage(passage_id, text, title=title)
    return [
        Passage(passage.passage_id, text, passage.title, tuple(aliases[text]))
        for text, passage in first.items()
    ]


def cut(text: str) -> Iterator[tuple[str, str]]:
    """Cut a topic at headings, then at paragraphs: (heading of the section, passage).

    A passage ends where the next paragraph would take it past 200 words; a paragraph that
    is longer by itself is cut between lines.
    """
    for heading, paragraphs in sections(text):
        for passage in _joined(paragraphs, "\n\n"):
            yield heading, passage


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Headings, underlined in the text, each with its paragraphs; "" before the first."""
    heading = ""
    paragraphs: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        if len(lines) == 2 and _HEADING_RULE.fullmatch(lines[1].strip()):
            if paragraphs:
                yield heading, paragraphs
            heading, paragraphs = lines[0].strip(), []
        else:
            pieces = _joined([line.rstrip() for line in lines], "\n")
            paragraphs.extend(piece for piece in pieces if piece.strip())
    if paragraphs:
        yield heading, paragraphs


def _joined(pieces: list[str], separator: str) -> list[str]:
    """Neighbours joined for as long as they have at most 200 words together."""
    joined: list[str] = []
    for piece in pieces:
        if joined and _words(joined[-1]) + _words(piece) <= TOPIC_WORDS:
            joined[-1] += separator + piece
        else:
            joined.append(piece)
    return joined


def _words(text: str) -> int:
    return len(text.split())
