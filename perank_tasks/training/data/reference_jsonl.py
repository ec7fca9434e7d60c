"""The PE-Rank reference's training file, read into the same artifacts.

One JSON object a line:

    messages_wo_content   chat messages; the user's asks to rank for `Search Query: {query}.`
    messages_w_content    the same with texts; read for the query where the first is absent
    extra_texts           2n texts: n in the order of the prompt, then n in golden order
    ranking               n places in the prompt, best first, counted from 0 or from 1
    query, query_id       ours and optional: where they are, nothing is read out of a prompt

Texts are embedded with the options' embedder; the file has no scores, so there is no BM25.

Notes: memory holds every text once.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from perank_tasks.artifacts.store import artifact_key
from perank_tasks.collections.lines import Record, json_records
from perank_tasks.errors import CollectionError, TrainingDataError
from perank_tasks.schemas import RANKING_DATA, rows_to_table
from perank_tasks.support.files import file_sha256
from perank_tasks.support.text import clean_text
from perank_tasks.training.data.leaks import normal_form
from perank_tasks.training.data.pool import pool_of_texts
from perank_tasks.training.data.queries import TrainingQuery, check, publish_queries
from perank_tasks.training.data.readers import KIND, terms_of
from perank_tasks.training.data.vectors import Making, hashes_of

# The prompt's last mention of the query, and its first.
_QUERY = (
    re.compile(r".*Search Query: (.*?)\.?\s*\nRank the ", re.DOTALL),
    re.compile(r".*?relevance to the search query: (.*?)\.?\s*\n", re.DOTALL),
)


@dataclass(frozen=True, slots=True)
class ReferenceList:
    """One line: the query, n texts in the order of the prompt, places in it, best first."""

    where: str
    query_id: str | None
    query: str
    texts: list[str]
    ranking: list[int]


def read_reference(path: Path) -> Iterator[ReferenceList]:
    """The lists of a file, one at a time.

    Raises:
        TrainingDataError: the file cannot be read or a line is not as it should be; nothing
            is made of it then.
    """
    try:
        for record in json_records(path):
            yield _read_list(record)
    except CollectionError as error:
        raise TrainingDataError(str(error)) from error


def make_from_reference(making: Making) -> str:
    """Read the options' `reference_jsonl` into training data; returns the reference.

    Raises:
        TrainingDataError: the file is not as it should be, or holds queries of an evaluation
            collection.
    """
    store, options = making.store, making.options
    path = Path(options.reference_jsonl or "").expanduser()
    if not path.is_file():
        raise TrainingDataError(f"{path}: no such file; give the reference's JSONL file")
    source = path.name.partition(".")[0]
    name = options.name or re.sub(r"[^A-Za-z0-9._-]", "-", source)
    file = _read_file(path, source)
    queries, evaluation, dropped = check(list(file.queries.values()), options)
    if not queries:
        raise TrainingDataError(f"{path}: every query is of an evaluation collection")
    content = file_sha256(path)
    about = {"file": path.name, "sha256": content}
    pool = pool_of_texts(making, name, file.texts, about)
    counts = {
        "read": len(file.lists),
        "repeated": len(file.lists) - len(file.queries),
        "of_evaluation_collections": dropped,
    }
    reference = publish_queries(making, name, queries, evaluation, counts)
    config: dict[str, Any] = {"stage": "ranking", "teacher": "the file's own ranking"}
    terms = terms_of([source], options)
    key = artifact_key(content=content, pool=pool, queries=reference, terms=terms, **config)
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    lists = _lists(file, queries)
    artifact.write_part("lists", lists, RANKING_DATA)
    return artifact.publish(
        expected={"lists": 1},
        inputs={"passages": pool, "queries": reference},
        config=config,
        counts={
            "examples": lists.num_rows,
            "queries": len(queries),
            "queries_of_evaluation_collections": dropped,
        },
        provenance=making.provenance | terms,
    )


@dataclass
class _File:
    """A file, with every text and every query once.

    Attributes:
        texts: {text hash: text}, in the order in which they appear.
        queries: {normal form: query}, likewise.
        lists: of each line the query's normal form, the texts' hashes and the ranking.
    """

    texts: dict[str, str]
    queries: dict[str, TrainingQuery]
    lists: list[tuple[str, list[str], list[int]]]


def _read_file(path: Path, source: str) -> _File:
    file = _File({}, {}, [])
    taken: dict[str, str] = {}
    for number, line in enumerate(read_reference(path), 1):
        query_id = line.query_id or f"{source}-{number}"
        form = normal_form(line.query)
        if form not in file.queries:
            if query_id in taken:
                raise TrainingDataError(
                    f"{line.where}: query_id {query_id!r} is that of another query, "
                    f"{taken[query_id]!r}; give each query one of its own"
                )
            taken[query_id] = line.query
            file.queries[form] = TrainingQuery(query_id, line.query, source)
        hashes = hashes_of(line.texts)
        for text, name in zip(line.texts, hashes, strict=True):
            file.texts.setdefault(name, text)
        file.lists.append((form, hashes, line.ranking))
    if not file.lists:
        raise TrainingDataError(f"{path}: the file is empty; expected one list a line")
    return file


def _lists(file: _File, queries: Sequence[TrainingQuery]) -> pa.Table:
    """The lists of these queries; those of evaluation collections are left out."""
    rows = {text_hash: row for row, text_hash in enumerate(file.texts)}
    places = {normal_form(query.text): place for place, query in enumerate(queries)}
    numbers: dict[str, int] = {}
    lines = []
    for form, hashes, ranking in file.lists:
        if form in places:
            number = numbers[form] = numbers.get(form, -1) + 1
            head = (places[form], queries[places[form]].query_id, number)
            unknown = (None, None, None, None)
            lines.append((*head, [rows[name] for name in hashes], ranking, *unknown))
    return rows_to_table(lines, RANKING_DATA)


def _read_list(record: Record) -> ReferenceList:
    where, values = record
    ranking = values.get("ranking")
    texts = values.get("extra_texts")
    if not isinstance(ranking, list) or not all(type(place) is int for place in ranking):
        raise _malformed(where, "a list of whole numbers in 'ranking'", repr(ranking))
    n = len(ranking)
    # Counted from 0 or from 1: a permutation can be read in one way only.
    base = min(ranking, default=0)
    if n < 2 or base not in (0, 1) or sorted(ranking) != list(range(base, base + n)):
        raise _malformed(where, "each of 0 … n-1, or of 1 … n, once in 'ranking'", repr(ranking))
    ranking = [place - base for place in ranking]
    if (
        not isinstance(texts, list)
        or len(texts) != 2 * n
        or not all(isinstance(text, str) and text.strip() for text in texts)
    ):
        found = f"{len(texts)} texts" if isinstance(texts, list) else repr(texts)
        raise _malformed(
            where, f"{2 * n} texts in 'extra_texts', the prompt's then the golden order's", found
        )
    prompt = [clean_text(text) for text in texts[:n]]
    golden = [clean_text(text) for text in texts[n:]]
    if [prompt[place] for place in ranking] != golden:
        raise TrainingDataError(
            f"{where}: the second half of 'extra_texts' is not the first in the order of "
            f"'ranking' (counted from {base}); make the file again, or correct the line"
        )
    query_id = values.get("query_id")
    return ReferenceList(
        where, None if query_id is None else str(query_id), _query(where, values), prompt, ranking
    )


def _query(where: str, values: dict[str, Any]) -> str:
    query = values.get("query")
    if isinstance(query, str) and query.strip():
        return clean_text(query).strip()
    for key in ("messages_wo_content", "messages_w_content"):
        for message in values.get(key) or ():
            said = message.get("content") if isinstance(message, dict) else None
            if not isinstance(said, str) or message.get("role") != "user":
                continue
            for pattern in _QUERY:
                if (match := pattern.match(said)) and match[1].strip():
                    return clean_text(match[1]).strip()
    raise TrainingDataError(
        f"{where}: no user's message in 'messages_wo_content' or 'messages_w_content' names its "
        "query as in 'Search Query: ….'; add the query under 'query'"
    )


def _malformed(where: str, expected: str, found: str) -> TrainingDataError:
    shown = found if len(found) <= 80 else f"{found[:79]}…"
    return TrainingDataError(f"{where}: expected {expected}; found {shown}")
