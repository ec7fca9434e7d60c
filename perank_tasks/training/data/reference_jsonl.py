"""The PE-Rank reference's training file, read into the same artifacts.

One JSON object a line:

    messages_wo_content   chat messages; the user's asks to rank for `Search Query: {query}.`
    messages_w_content    the same with texts; read for the query where the first is absent
    extra_texts           2n texts: n in the order of the prompt, then n in golden order
    ranking               n places in the prompt, best first, counted from 0 or from 1

Its texts and queries become a `files` collection, which a night's own stages read and embed; the
file has no scores, so there is no BM25.

Notes: memory holds every text once.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, Field, StrictInt, ValidationError, model_validator

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.collections.lines import json_records
from perank_tasks.errors import CollectionError, TrainingDataError
from perank_tasks.schemas import RANKING_DATA
from perank_tasks.support.files import file_sha256
from perank_tasks.support.text import clean_text
from perank_tasks.training.data.leaks import normal_form
from perank_tasks.training.data.pool import Making, build_pool, hashes_of, prepare
from perank_tasks.training.data.queries import TrainingQueries, make_queries
from perank_tasks.training.data.readers import KIND, terms_of

# The prompt's last mention of the query, and its first.
_QUERY = (
    re.compile(r".*Search Query: (.*?)\.?\s*\nRank the ", re.DOTALL),
    re.compile(r".*?relevance to the search query: (.*?)\.?\s*\n", re.DOTALL),
)

Text = Annotated[str, AfterValidator(clean_text), Field(pattern=r"\S")]


Messages = list[dict[str, str]]


class ReferenceList(BaseModel):
    """One line of the file; `ranking` is counted from 0 here."""

    extra_texts: list[Text]
    ranking: list[StrictInt] = Field(min_length=2)
    messages_wo_content: Messages | None = None
    messages_w_content: Messages | None = None

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
        prompts = [m.get("content", "") for m in messages if m.get("role") == "user"]
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
            try:
                line = ReferenceList.model_validate(values)
            except ValidationError as error:
                wrong = error.errors()[0]
                place = "".join(f"{name}: " for name in wrong["loc"])
                message = wrong["msg"].removeprefix("Value error, ")
                raise TrainingDataError(f"{where}: {place}{message}") from None
            yield line
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
    name = options.name or re.sub(r"[^A-Za-z0-9._-]", "-", path.name.partition(".")[0])
    with TemporaryDirectory() as folder:
        lists = _write_collection(path, name, Path(folder))
        source = prepare(making, f"files:{folder}?name={name}")
    queries, pool = make_queries(making, build_pool(making, [source]), [source])
    config = {
        "stage": "ranking",
        "teacher": "the file's own ranking",
        "compared_with": queries.evaluation.counts,
    }
    terms = terms_of([name], options)
    key = artifact_key(
        content=file_sha256(path), pool=pool, queries=queries.key, terms=terms, **config
    )
    artifact = store.artifact(KIND, name, key)
    if artifact.use():
        return artifact.reference
    table = _table(lists, store.open(pool), queries, queries.vectors(making))
    artifact.write_part("lists", table, RANKING_DATA)
    return artifact.publish(
        expected={"lists": 1},
        inputs={"passages": pool},
        config=config,
        counts={
            "examples": table.num_rows,
            "queries": len(queries.queries),
            "queries_of_evaluation_collections": queries.counts["of_evaluation_collections"],
        },
        provenance=making.provenance | terms,
    )


def _write_collection(
    path: Path, name: str, folder: Path
) -> list[tuple[str, list[str], list[int]]]:
    """Write every text and every query of a file once, in the layout of a `files` collection;
    returns the lists: query, passages, ranking."""
    texts: dict[str, str] = {}
    query_ids: dict[str, str] = {}
    queries: dict[str, str] = {}
    lists = []
    for number, line in enumerate(read_reference(path), 1):
        query_id = query_ids.setdefault(normal_form(line.query), f"{name}-{number}")
        queries.setdefault(query_id, line.query)
        hashes = hashes_of(line.texts)
        texts |= zip(hashes, line.texts, strict=True)
        lists.append((query_id, hashes, line.ranking))
    if not lists:
        raise TrainingDataError(f"{path}: the file is empty; expected one list a line")
    for file, rows in (("passages.jsonl", texts), ("queries.jsonl", queries)):
        with (folder / file).open("w", encoding="utf-8") as written:
            for row_id, text in rows.items():
                written.write(json.dumps({"id": row_id, "text": text}) + "\n")
    return lists


def _table(
    lists: Sequence[tuple], pool: Artifact, queries: TrainingQueries, vectors: np.ndarray
) -> pa.Table:
    """The lists of these queries; those of evaluation collections are left out."""
    names = pool.read("passages")["passage_id"].to_pylist()
    rows = {name: row for row, name in enumerate(names)}
    places = {query.query_id: place for place, query in enumerate(queries.queries)}
    numbers: Counter[str] = Counter()
    lines = []
    for query_id, passage_ids, ranking in lists:
        if query_id in places:
            place = places[query_id]
            line = {
                "query_id": query_id,
                "query": queries.queries[place].text,
                "query_embedding": vectors[place],
                "list": numbers[query_id],
                "passage_rows": [rows[name] for name in passage_ids],
                "ranking": ranking,
            }
            lines.append(line)
            numbers[query_id] += 1
    return pa.Table.from_pylist(lines, RANKING_DATA)
