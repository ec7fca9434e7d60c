"""The PE-Rank reference's training file, read into the same artifacts.

One JSON object a line:

    messages_wo_content   chat messages; the user's asks to rank for `Search Query: {query}.`
    messages_w_content    the same with texts; read for the query where the first is absent
    extra_texts           2n texts: n in the order of the prompt, then n in golden order
    ranking               n places in the prompt, best first, counted from 0 or from 1

Texts are embedded with the options' embedder; the file has no scores, so there is no BM25.

Notes: memory holds every text once.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, Field, StrictInt, ValidationError, model_validator

from perank_tasks.artifacts.store import artifact_key
from perank_tasks.collections.lines import json_records
from perank_tasks.errors import CollectionError, TrainingDataError
from perank_tasks.models.find import file_sha256
from perank_tasks.schemas import RANKING_DATA, rows_to_table
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

Text = Annotated[str, AfterValidator(clean_text), Field(pattern=r"\S")]


class _Message(BaseModel):
    role: str | None = None
    content: str | None = None


class ReferenceList(BaseModel):
    """One line of the file; `ranking` is counted from 0 here."""

    extra_texts: list[Text]
    ranking: list[StrictInt] = Field(min_length=2)
    messages_wo_content: list[_Message] | None = None
    messages_w_content: list[_Message] | None = None

    @property
    def texts(self) -> list[str]:
        """In the order of the prompt."""
        return self.extra_texts[: len(self.ranking)]

    @model_validator(mode="after")
    def _ranks_its_texts(self) -> Self:
        n = len(self.ranking)
        # Counted from 0 or from 1: a permutation can be read in one way only.
        base = min(self.ranking)
        if base not in (0, 1) or sorted(self.ranking) != list(range(base, base + n)):
            raise ValueError(
                f"expected each of 0 … n-1, or of 1 … n, once in 'ranking'; found {self.ranking}"
            )
        if len(self.extra_texts) != 2 * n:
            raise ValueError(
                f"expected {2 * n} texts in 'extra_texts', the prompt's then the golden order's; "
                f"found {len(self.extra_texts)} texts"
            )
        self.ranking = [place - base for place in self.ranking]
        if [self.texts[place] for place in self.ranking] != self.extra_texts[n:]:
            raise ValueError(
                "the second half of 'extra_texts' is not the first in the order of 'ranking' "
                f"(counted from {base}); make the file again, or correct the line"
            )
        return self

    @cached_property
    def query(self) -> str:
        """What the user asks to rank for."""
        messages = [*(self.messages_wo_content or ()), *(self.messages_w_content or ())]
        prompts = [m.content for m in messages if m.role == "user" and m.content]
        matches = (pattern.match(prompt) for prompt in prompts for pattern in _QUERY)
        return next((q for match in matches if match and (q := clean_text(match[1]).strip())), "")

    @model_validator(mode="after")
    def _names_its_query(self) -> Self:
        if not self.query:
            raise ValueError(
                "no user's message in 'messages_wo_content' or 'messages_w_content' names its "
                "query as in 'Search Query: ….'"
            )
        return self


def read_reference(path: Path) -> Iterator[ReferenceList]:
    """The lists of a file, one at a time.

    Raises:
        TrainingDataError: the file cannot be read or a line is not as it should be; nothing
            is made of it then.
    """
    try:
        for where, values in json_records(path):
            yield _list(where, values)
    except CollectionError as error:
        raise TrainingDataError(str(error)) from error


def _list(where: str, values: dict[str, Any]) -> ReferenceList:
    try:
        return ReferenceList.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = "".join(f"{name}: " for name in wrong["loc"])
        message = wrong["msg"].removeprefix("Value error, ")
        raise TrainingDataError(f"{where}: {place}{message}") from None


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
    texts, asked, lists = _read(path, source)
    queries, evaluation, dropped = check(asked, options)
    if not queries:
        raise TrainingDataError(f"{path}: every query is of an evaluation collection")
    content = file_sha256(path)
    pool = pool_of_texts(making, name, texts, {"file": path.name, "sha256": content})
    counts = {
        "read": len(lists),
        "repeated": len(lists) - len(asked),
        "of_evaluation_collections": dropped,
    }
    reference = publish_queries(making, name, queries, evaluation, counts)
    config: dict[str, Any] = {"stage": "ranking", "teacher": "the file's own ranking"}
    terms = terms_of([source], options)
    key = artifact_key(content=content, pool=pool, queries=reference, terms=terms, **config)
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    table = _table(lists, texts, queries)
    artifact.write_part("lists", table, RANKING_DATA)
    return artifact.publish(
        expected={"lists": 1},
        inputs={"passages": pool, "queries": reference},
        config=config,
        counts={
            "examples": table.num_rows,
            "queries": len(queries),
            "queries_of_evaluation_collections": dropped,
        },
        provenance=making.provenance | terms,
    )


class _List(NamedTuple):
    query_id: str
    hashes: list[str]
    ranking: list[int]


def _read(path: Path, source: str) -> tuple[dict[str, str], list[TrainingQuery], list[_List]]:
    """Every text once, {text hash: text}, every query once, and the lists of them."""
    texts: dict[str, str] = {}
    queries: dict[str, TrainingQuery] = {}
    lists = []
    for number, line in enumerate(read_reference(path), 1):
        new = TrainingQuery(f"{source}-{number}", line.query, source)
        query = queries.setdefault(normal_form(line.query), new)
        hashes = hashes_of(line.texts)
        texts |= zip(hashes, line.texts, strict=True)
        lists.append(_List(query.query_id, hashes, line.ranking))
    if not lists:
        raise TrainingDataError(f"{path}: the file is empty; expected one list a line")
    return texts, list(queries.values()), lists


def _table(lists: list[_List], texts: dict[str, str], queries: Sequence[TrainingQuery]) -> pa.Table:
    """The lists of these queries; those of evaluation collections are left out."""
    rows = {text_hash: row for row, text_hash in enumerate(texts)}
    places = {query.query_id: place for place, query in enumerate(queries)}
    numbers: Counter[str] = Counter()
    lines: list[tuple] = []
    for query_id, hashes, ranking in lists:
        if query_id in places:
            passages = [rows[name] for name in hashes]
            head = (places[query_id], query_id, numbers[query_id], passages, ranking)
            lines.append((*head, None, None, None, None))
            numbers[query_id] += 1
    return rows_to_table(lines, RANKING_DATA)
