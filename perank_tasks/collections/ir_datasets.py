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

A query's own passage is left out of BEIR's datasets, as BEIR's evaluation does: `identical_ids`
is `drop` for `beir/*`, else `keep`.

Out: `CollectionData` whose passages are read as they are asked for.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

import ir_datasets

from perank_tasks.artifacts.storage.s3_path import to_path
from perank_tasks.collections.odd import Odd
from perank_tasks.collections.records import CollectionData, IdenticalIds, Judgement, Query, RunLine
from perank_tasks.collections.rows import Row, to_passages, to_queries
from perank_tasks.collections.trec import read_run
from perank_tasks.config import did_you_mean
from perank_tasks.errors import CollectionError, PerankError

SCOREDDOCS = "scoreddocs"

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IrDatasetsCollection:
    """A dataset of the library under a name.

    `run` is `scoreddocs` or a file; `relevance_level` None: see the module. `identical_ids` None:
    as the dataset's own evaluation does.
    """

    dataset_id: str
    name: str
    run: str | None = None
    relevance_level: int | None = None
    strict: bool = False
    identical_ids: IdenticalIds | None = None

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
        dataset, odd = self._dataset(), Odd(strict=self.strict)
        is_beir = self.dataset_id.startswith("beir/")
        return CollectionData(
            name=self.name,
            passages=to_passages(lambda: self._rows(dataset), odd),
            queries=self._queries(dataset, odd),
            judgements=list(self._judgements(dataset)),
            run=self._run(dataset),
            relevance_level=self.relevance_level or _level(dataset),
            odd=odd,
            identical_ids=self.identical_ids or ("drop" if is_beir else "keep"),
        )

    @property
    def _where(self) -> str:
        return f"ir_datasets:{self.dataset_id}"

    def _dataset(self) -> Any:
        try:
            return ir_datasets.load(self.dataset_id)
        except KeyError:
            raise CollectionError(
                f"ir_datasets knows no dataset {self.dataset_id!r}{_close(self.dataset_id)}; "
                "https://ir-datasets.com lists them"
            ) from None

    def _rows(self, dataset: Any) -> Iterator[Row]:
        for number, doc in enumerate(self._read("passages", dataset.docs_iter), 1):
            where = f"{self._where}, document {number}"
            yield Row(where, doc.doc_id, *_text_and_title(doc))

    def _queries(self, dataset: Any, odd: Odd) -> list[Query]:
        rows = (
            Row(f"{self._where}, query {number}", query.query_id, query.default_text() or "")
            for number, query in enumerate(self._read("queries", dataset.queries_iter), 1)
        )
        return to_queries(rows, odd)

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
            RunLine(line.query_id, line.doc_id, float(getattr(line, "score", 0)))
            for line in self._read(SCOREDDOCS, dataset.scoreddocs_iter)
        ]
        scores = {(line.query_id, line.score) for line in lines}
        if lines and len(scores) == len({query_id for query_id, _ in scores}):
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
            words = " ".join(str(error).split())
            raise CollectionError(
                f"ir_datasets:{self.dataset_id}: its {what} cannot be read "
                f"({type(error).__name__}: {words[:300]}). They are fetched into "
                f"{ir_datasets.util.home_path()} (IR_DATASETS_HOME). Where this machine has no "
                f"network, run `ir_datasets export {self.dataset_id} docs > /dev/null`, and the "
                "same with queries and qrels, on one that has, and copy that folder here; what "
                "needs a licence, https://ir-datasets.com says how to get"
            ) from error


def _text_and_title(doc: Any) -> tuple[str, str | None]:
    text, title = getattr(doc, "text", None), getattr(doc, "title", None)
    if not isinstance(text, str):
        return doc.default_text() or "", None
    return text, title if isinstance(title, str) else None


def _level(dataset: Any) -> int:
    """The `rel=` of the dataset's official measures; 1 where they have none."""
    documentation = dataset.documentation() if hasattr(dataset, "documentation") else {}
    measures = " ".join(documentation.get("official_measures", []))
    level = re.search(r"rel=(\d+)", measures)
    return int(level.group(1)) if level else 1


def _close(dataset_id: str) -> str:
    known = list(ir_datasets.registry)
    below = [name for name in known if name.startswith(dataset_id)]
    if below:
        return f". Did you mean {' or '.join(below[:3])}?"
    return did_you_mean(dataset_id, known)
