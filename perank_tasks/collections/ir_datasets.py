"""Collection `ir_datasets`: a public collection by its id in the library of that name.

    ir_datasets:beir/scifact/test
    ir_datasets:msmarco-passage/trec-dl-2019/judged?run=scoreddocs

The library knows where each lies, fetches it once (into IR_DATASETS_HOME, by default
`~/.ir_datasets`) and checks it. A passage is a document's title and text; where its type has no
`text`, what the library calls its default text. The id names the collection in results, with `-`
for `/`, unless `name=` does.

`run=scoreddocs` takes the candidates that come with the dataset for a first-stage run,
`run=FILE` those of a TREC run file. The least grade that binary measures count is
`relevance_level=`, else the one in the dataset's own measures (TREC DL's `RR(rel=2)`), else 1.

Out: `CollectionData` whose passages are read as they are asked for. Documents without any text
are left out and counted: nothing can find them.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

import ir_datasets

from perank_tasks.artifacts.storage.s3_path import to_path
from perank_tasks.collections.records import CollectionData, Judgement, Passage, Query, RunLine
from perank_tasks.collections.trec import read_run
from perank_tasks.config import did_you_mean
from perank_tasks.errors import CollectionError, ConfigError, PerankError
from perank_tasks.support.text import clean_text

SCOREDDOCS = "scoreddocs"

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IrDatasetsCollection:
    """A dataset of the library under a name.

    `run` is `scoreddocs` or a file; `given_level` None: see the module.
    """

    dataset_id: str
    name: str
    run: str | None = None
    given_level: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"collection ir_datasets:{self.dataset_id}: {self.name!r} is no name; expected an "
                "id as in ir_datasets:beir/scifact/test, or name= with letters, digits, '.', '_' "
                "and '-'"
            )

    def check(self, as_of: date) -> None:
        """Look whether the library has such a dataset with passages and queries; fetch nothing.

        Raises:
            CollectionError: it has none, or one without passages, queries or the run asked for.
        """
        dataset = self._dataset()
        asked = {"docs", "queries", *([SCOREDDOCS] if self.run == SCOREDDOCS else [])}
        missing = sorted(kind for kind in asked if not dataset.has(kind))
        if missing:
            raise CollectionError(
                f"ir_datasets:{self.dataset_id} has no {' and no '.join(missing)}"
                f"{_close(self.dataset_id + '/')}"
            )
        if self.run and self.run != SCOREDDOCS and not to_path(self.run, "run").is_file():
            raise CollectionError(
                f"run={self.run}: no such file; expected scoreddocs or a TREC run"
            )

    def load(self, as_of: date) -> CollectionData:
        """Read queries, judgements and run; passages follow as they are asked for.

        Raises:
            CollectionError: as `check`, or its files cannot be fetched or read.
        """
        self.check(as_of)
        dataset = self._dataset()
        return CollectionData(
            name=self.name,
            passages=self._passages(dataset),
            queries=list(self._queries(dataset)),
            judgements=list(self._judgements(dataset)),
            run=self._run(dataset),
            relevance_level=self.given_level or _level(dataset),
        )

    def _dataset(self) -> Any:
        try:
            return ir_datasets.load(self.dataset_id)
        except KeyError:
            raise CollectionError(
                f"ir_datasets knows no dataset {self.dataset_id!r}{_close(self.dataset_id)}; "
                "https://ir-datasets.com lists them"
            ) from None

    def _passages(self, dataset: Any) -> Iterator[Passage]:
        empty = 0
        for doc in self._read("passages", dataset.docs_iter):
            title, text = _title_and_text(doc)
            if not title.strip() and not text.strip():
                empty += 1
                continue
            yield Passage(self._identifier(doc.doc_id), text, title or None)
        if empty:
            log.warning("%s: %d documents without text are left out", self.name, empty)

    def _queries(self, dataset: Any) -> Iterator[Query]:
        for query in self._read("queries", dataset.queries_iter):
            text = clean_text(query.default_text()).strip()
            if not text:
                raise CollectionError(
                    f"ir_datasets:{self.dataset_id}: query {query.query_id!r} has no text"
                )
            yield Query(self._identifier(query.query_id), text)

    def _judgements(self, dataset: Any) -> Iterator[Judgement]:
        if not dataset.has("qrels"):
            return
        grades: dict[tuple[str, str], int] = {}
        for qrel in self._read("judgements", dataset.qrels_iter):
            # Some come once for each assessor or subtopic; the best grade is the passage's.
            pair = (qrel.query_id, qrel.doc_id)
            grades[pair] = max(qrel.relevance, grades.get(pair, qrel.relevance))
        for (query_id, passage_id), grade in grades.items():
            yield Judgement(query_id, passage_id, int(grade))

    def _run(self, dataset: Any) -> list[RunLine]:
        if self.run is None:
            return []
        if self.run != SCOREDDOCS:
            return read_run(to_path(self.run, "run"))
        lines = [
            RunLine(found.query_id, found.doc_id, float(getattr(found, "score", 0)))
            for found in self._read("scoreddocs", dataset.scoreddocs_iter)
        ]
        scores: dict[str, set[float]] = defaultdict(set)
        for line in lines:
            scores[line.query_id].add(line.score)
        if lines and all(len(found) == 1 for found in scores.values()):
            log.warning(
                "%s: its scoreddocs have no order: of more than `depth` candidates, those with "
                "the greatest identifiers are taken",
                self.name,
            )
        return lines

    def _read(self, what: str, records: Callable[[], Iterator[T]]) -> Iterator[T]:
        """The library's records, its failures in our words.

        Raises:
            CollectionError: a file cannot be fetched or is not what the library expects.
        """
        try:
            yield from records()
        except PerankError:
            raise
        # A server, a disk or a format of any of 700 datasets: the library raises what comes.
        except Exception as error:
            said = " ".join(str(error).split())
            raise CollectionError(
                f"ir_datasets:{self.dataset_id}: its {what} cannot be read "
                f"({type(error).__name__}: {said[:300]}). They are fetched into "
                f"{ir_datasets.util.home_path()} (IR_DATASETS_HOME). Where this machine has no "
                f"network, run `ir_datasets export {self.dataset_id} docs > /dev/null`, and the "
                "same with queries and qrels, on one that has, and copy that folder here; what "
                "needs a licence, https://ir-datasets.com says how to get"
            ) from error

    def _identifier(self, value: str) -> str:
        identifier = clean_text(value).strip()
        if len(identifier.split()) != 1:
            raise CollectionError(
                f"ir_datasets:{self.dataset_id}: expected an identifier without white space, "
                f"which TREC files separate columns by; found {value!r}"
            )
        return identifier


def _title_and_text(doc: Any) -> tuple[str, str]:
    text = getattr(doc, "text", None)
    if not isinstance(text, str):
        return "", clean_text(doc.default_text())
    title = getattr(doc, "title", None)
    return clean_text(title) if isinstance(title, str) else "", clean_text(text)


def _level(dataset: Any) -> int:
    """The `rel=` of the dataset's official measures; 1 where they have none."""
    documentation = dataset.documentation() if hasattr(dataset, "documentation") else {}
    measures = " ".join(documentation.get("official_measures", []))
    found = re.search(r"rel=(\d+)", measures)
    return int(found.group(1)) if found else 1


def _close(dataset_id: str) -> str:
    known = list(ir_datasets.registry)
    below = [name for name in known if name.startswith(dataset_id)]
    if below:
        return f". Did you mean {' or '.join(below[:3])}?"
    return did_you_mean(dataset_id, known)
