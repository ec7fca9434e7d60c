"""Corpora of any size from real text: in, a size and a seed; out, a folder in TREC layout.

A passage is as many real sentences as some real passage has, each drawn at random from all of
them. Words, sentences and lengths are real; that a passage is about one thing is not, and there
are no words that are not in the sources, so the vocabulary stops growing where a real one goes on.
A corpus begins with the smaller ones of its seed.

Sources: the standard library's documentation on this machine and, where the environment variable
PERANK_TREC_DATA names a folder with TREC collections, their passages; its `msmarco-queries`
are the queries then. Without it, queries are beginnings of sentences.
"""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from perank_tasks.collections.formats import read_passages, read_queries
from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import CollectionError, StorageError

SEED = 1
PASSAGES_A_BLOCK = 1000
"""Passages drawn from one state of the random generator."""

WORDS = range(3, 61)
"""Words of a sentence that is used: fewer are headings, more are tables and listings."""

MOST_SENTENCES = 12
"""Of a passage: the longest sources are whole chapters."""

WORDS_OF_A_QUERY = 6

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def write_corpus(folder: Path, passages: int, queries: int, seed: int = SEED) -> None:
    """Write `passages.jsonl` and `queries.tsv`, unless they are there already.

    Raises:
        CollectionError: PERANK_TREC_DATA has fewer queries than asked for.
        StorageError: the folder cannot be written.
    """
    if (folder / "passages.jsonl").is_file():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sentences, lengths = _sources()
        rows = (f"{query_id}\t{text}\n" for query_id, text in _queries(queries, sentences, seed))
        (folder / "queries.tsv").write_text("".join(rows), encoding="utf-8")
        temporary = folder / ".passages.jsonl"
        with temporary.open("w", encoding="utf-8") as file:
            for block in range(0, passages, PASSAGES_A_BLOCK):
                rest = min(PASSAGES_A_BLOCK, passages - block)
                for number, text in enumerate(_texts(sentences, lengths, [seed, block])):
                    if number < rest:
                        file.write(json.dumps({"_id": f"r{block + number}", "text": text}) + "\n")
        temporary.replace(folder / "passages.jsonl")
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror}. Free space, or name another folder."
        ) from error


def trec_data() -> Path | None:
    """The folder of TREC collections, where there is one."""
    value = os.environ.get("PERANK_TREC_DATA")
    return Path(value) if value else None


def _sources() -> tuple[list[str], np.ndarray]:
    """All sentences, each once, and the number of sentences of each real passage."""
    sentences: dict[str, None] = {}
    lengths = []
    for text in _passages():
        found = [" ".join(part.split()) for part in _SENTENCE_END.split(text)]
        fit = [sentence for sentence in found if len(sentence.split()) in WORDS]
        sentences.update(dict.fromkeys(fit))
        if fit:
            lengths.append(min(len(fit), MOST_SENTENCES))
    return list(sentences), np.array(lengths)


def _passages() -> Iterator[str]:
    for passage in open_collection("pydocs").load(as_of=datetime.now(UTC).date()).passages:
        yield passage.text
    if folder := trec_data():
        for file in sorted(folder.glob("*/passages.jsonl.gz")):
            for passage in read_passages(file):
                yield passage.text


def _texts(sentences: list[str], lengths: np.ndarray, seed: list[int]) -> Iterator[str]:
    """The passages of one block."""
    random = np.random.default_rng(seed)
    for length in random.choice(lengths, PASSAGES_A_BLOCK).tolist():
        yield " ".join(sentences[i] for i in random.integers(0, len(sentences), length).tolist())


def _queries(count: int, sentences: list[str], seed: int) -> list[tuple[str, str]]:
    folder = trec_data()
    if folder is None:
        picks = np.random.default_rng(seed).integers(0, len(sentences), count).tolist()
        words = (sentences[i].split()[:WORDS_OF_A_QUERY] for i in picks)
        return [(f"q{number}", " ".join(some)) for number, some in enumerate(words)]
    path = folder / "msmarco-queries" / "queries.tsv"
    found = read_queries(path)
    if len(found) < count:
        raise CollectionError(
            f"{path} has {len(found)} queries and {count} were asked for; ask for fewer, or unset "
            "PERANK_TREC_DATA"
        )
    return [(query.query_id, query.text) for query in found[:count]]
