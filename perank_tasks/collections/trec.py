"""TREC run and qrels files, in and out, as trec_eval reads them.

    run     query_id Q0 passage_id rank score tag      white space between, best first
    qrels   query_id 0  passage_id grade [text_hash]   grade: an integer, may be negative
            or BEIR's three columns between tabs, under their header

Identifiers hold no white space. A run is read by its scores alone, as trec_eval does: nobody
looks at the rank column. The fifth qrels column is ours
and optional: the `text_hash` of the passage that was judged. `cut -f1-4` takes it off.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from perank_tasks.artifacts.storage.s3_path import AnyPath
from perank_tasks.collections.lines import shortened, text_lines
from perank_tasks.collections.odd import Odd
from perank_tasks.collections.records import Judgement, RunLine
from perank_tasks.errors import CollectionError
from perank_tasks.support.files import replacing

RUN_LINE = "query_id Q0 passage_id rank score tag"
QRELS_LINE = "query_id 0 passage_id grade"
BEIR_HEADER = ["query-id", "corpus-id", "score"]

_INTEGER = re.compile(r"[-+]?\d{1,9}")  # what tables of 32-bit numbers hold


def read_run(path: AnyPath) -> list[RunLine]:
    """Lines of a TREC run in the file's order; blank lines are passed over.

    Raises:
        CollectionError: the file is missing, unreadable, empty, has a malformed line or a
            (query, passage) pair twice.
    """
    lines: list[RunLine] = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in text_lines(path):
        fields = line.split()
        if len(fields) != 6:
            raise _malformed(path, number, f"6 columns, {RUN_LINE}", f"{len(fields)}: {fields}")
        query_id, _, passage_id, _, score, _ = fields
        if not _is_finite(score):
            raise _malformed(path, number, "a finite number in column 5, the score", repr(score))
        if (first := seen.setdefault((query_id, passage_id), number)) != number:
            raise _twice(path, number, (query_id, passage_id), first)
        lines.append(RunLine(query_id, passage_id, float(score)))
    if not lines:
        raise CollectionError(f"{path}: the run is empty; expected lines of the form {RUN_LINE}")
    return lines


def write_run(path: Path, lines: Iterable[RunLine], tag: str) -> None:
    """Write a TREC run that every tool sorts into exactly the order given, whole or not at all.

    `lines` come query by query, best first, as they are to be ranked. Scores are written in
    full precision; where one does not fall below the one before it, in the single precision
    that trec_eval reads, the next lower single-precision number is written instead.

    Raises:
        StorageError: the file cannot be written.
    """
    written: list[str] = []
    query_id, rank, last = None, 0, np.float32(np.inf)
    for line in lines:
        if line.query_id != query_id:
            query_id, rank, last = line.query_id, 0, np.float32(np.inf)
        score = float(line.score)
        with np.errstate(over="ignore"):
            single = np.float32(score)
        if single >= last:
            single = np.nextafter(last, np.float32(-np.inf))
            score = float(single)
        rank, last = rank + 1, single
        written.append(f"{query_id} Q0 {line.passage_id} {rank} {score!r} {tag}\n")
    with replacing(path, "Give another place and run the same command again.") as temporary:
        temporary.write_text("".join(written), encoding="utf-8", newline="\n")


def read_qrels(path: AnyPath, odd: Odd | None = None) -> list[Judgement]:
    """Lines of a qrels file in the file's order; one that is there again is passed over.

    The first line says whether it is TREC's or BEIR's.

    Raises:
        CollectionError: the file is missing, unreadable, empty, has a malformed line or judges
            a (query, passage) pair in two ways.
    """
    judgements: list[Judgement] = []
    seen: dict[tuple[str, str], tuple[int, Judgement]] = {}
    is_beir, odd = False, odd or Odd()
    for place, (number, line) in enumerate(text_lines(path, odd)):
        if place == 0 and line.split() == BEIR_HEADER:
            is_beir = True
            continue
        if is_beir:
            judgement = _from_beir(path, number, line)
        else:
            judgement = _from_trec(path, number, line.split())
        odd.read["judgements"] += 1
        pair = judgement.query_id, judgement.passage_id
        first, earlier = seen.setdefault(pair, (number, judgement))
        if first == number:
            judgements.append(judgement)
        elif earlier == judgement:
            odd.count("repeated_judgements", f"{path}, line {number}", " ".join(pair))
        else:
            raise _twice(path, number, pair, first)
    if not judgements:
        raise CollectionError(
            f"{path}: the file is empty; expected one judgement a line. Where there are none, "
            "remove the file"
        )
    return judgements


def _from_trec(path: AnyPath, number: int, fields: list[str]) -> Judgement:
    if len(fields) not in (4, 5):
        expected = f"4 columns, {QRELS_LINE} (and perhaps a text_hash)"
        raise _malformed(path, number, expected, f"{len(fields)}: {fields}")
    query_id, _, passage_id, grade, *hashes = fields
    if not _INTEGER.fullmatch(grade):
        raise _malformed(path, number, "an integer of up to 9 digits in column 4", repr(grade))
    return Judgement(query_id, passage_id, int(grade), hashes[0] if hashes else None)


def _from_beir(path: AnyPath, number: int, line: str) -> Judgement:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 3 or not _INTEGER.fullmatch(fields[2]):
        expected = f"{', tab, '.join(BEIR_HEADER)} (an integer)"
        raise _malformed(path, number, expected, shortened(line))
    return Judgement(fields[0], fields[1], int(fields[2]))


def write_qrels(path: Path, judgements: Iterable[Judgement]) -> None:
    """Write judgements as they come, tab-separated, with `text_hash` where it is known."""
    rows = ((j.query_id, "0", j.passage_id, str(j.relevance), j.text_hash) for j in judgements)
    lines = ["\t".join(filter(None, row)) + "\n" for row in rows]
    with replacing(path, "Give another place and run the same command again.") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")


def _twice(path: AnyPath, number: int, pair: tuple[str, str], first: int) -> CollectionError:
    return CollectionError(
        f"{path}, line {number}: query {pair[0]!r} and passage {pair[1]!r} are on line {first} "
        "already; keep one of the two"
    )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _malformed(path: AnyPath, number: int, expected: str, found: str) -> CollectionError:
    return CollectionError(f"{path}, line {number}: expected {expected}; found {found}")
