"""Corpora of any size from real text: in, a collection and a size; out, a folder in TREC
layout.

A passage is as many sentences of the collection as some passage of it has, each drawn at random
from all of them. Words, sentences and lengths are real; that a passage is about one thing is not,
and there are no words that are not in the collection, so the vocabulary stops growing where a real
one goes on. Queries are beginnings of sentences. A corpus begins with the smaller ones.
"""

import json
import random
import re
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import CollectionError
from perank_tasks.support.files import storage_errors

SEED = 1

WORDS = range(3, 61)
"""Words of a sentence that is used: fewer are headings, more are tables and listings."""

MOST_SENTENCES = 12
"""Of a passage: the longest sources are whole chapters."""

WORDS_OF_A_QUERY = 6

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def write_corpus(folder: Path, passages: int, queries: int, texts: int, source: str) -> None:
    """Write `passages.jsonl` and `queries.tsv`.

    Args:
        texts: how many of the passages differ; those that follow repeat their texts.
        source: spec of the collection whose sentences are drawn.

    Raises:
        CollectionError: it cannot be read, or has no sentences.
        StorageError: the folder cannot be written.
    """
    sentences, lengths = _sentences(source)
    if not sentences:
        raise CollectionError(
            f"collection {source!r}: no passage has a sentence of {WORDS.start} to "
            f"{WORDS.stop - 1} words; give another --source"
        )
    draw = random.Random(SEED)
    drawn = [" ".join(draw.choices(sentences, k=draw.choice(lengths))) for _ in range(texts)]
    asked = random.Random(SEED).choices(sentences, k=queries)
    with storage_errors(folder, "Free space, or give another --out."):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "queries.tsv").open("w", encoding="utf-8") as file:
            for number, sentence in enumerate(asked):
                file.write(f"q{number}\t{' '.join(sentence.split()[:WORDS_OF_A_QUERY])}\n")
        with (folder / "passages.jsonl").open("w", encoding="utf-8") as file:
            for number, text in zip(range(passages), cycle(drawn), strict=False):
                file.write(json.dumps({"_id": f"r{number}", "text": text}) + "\n")


def _sentences(source: str) -> tuple[list[str], list[int]]:
    """All sentences of a collection, each once, and the number of sentences of each passage."""
    sentences: dict[str, None] = {}
    lengths = []
    for passage in open_collection(source).load(as_of=datetime.now(UTC).date()).passages:
        parts = [" ".join(part.split()) for part in _SENTENCE_END.split(passage.text)]
        usable = [sentence for sentence in parts if len(sentence.split()) in WORDS]
        sentences.update(dict.fromkeys(usable))
        if usable:
            lengths.append(min(len(usable), MOST_SENTENCES))
    return list(sentences), lengths
