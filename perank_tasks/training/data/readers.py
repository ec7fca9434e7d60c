"""Readers: in, the reference of training data; out, a sequence of examples, made one by one.

Passages' embeddings are mapped into memory, not read; texts and lists are held as Arrow columns.
"""

from typing import TypeVar

import numpy as np
from torch.utils.data import Dataset

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.errors import TrainingDataError
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.data.pool import Pool
from perank_tasks.training.data.queries import CLOZE
from perank_tasks.training.examples import AlignmentExample, RankingExample

KIND = "training_data"

TERMS = {
    "pydocs": "Python's documentation, under the PSF License Agreement",
    CLOZE: "sentences of the passages",
}
NO_TERMS = "not stated: find out before you publish what is trained on it"

Example = TypeVar("Example", AlignmentExample, RankingExample)


class _Examples(Dataset[Example]):
    """The examples of one artifact.

    Raises:
        ArtifactError: it is not there.
        TrainingDataError: it is data for the other stage.
    """

    stage: str

    def __init__(self, store: Store, reference: str):
        self.artifact = store.open(reference)
        made_for = self.artifact.manifest.config.get("stage", "something else")
        if made_for != self.stage:
            raise TrainingDataError(
                f"{reference} is data for {made_for}, and {self.stage} is asked for; make it with "
                f"perank train data --stage {self.stage}"
            )
        self.pool = Pool(store.open(self.artifact.manifest.inputs["passages"]))

    def __len__(self) -> int:
        return int(self.artifact.manifest.counts["examples"])


class AlignmentExamples(_Examples[AlignmentExample]):
    """Passages with their embeddings, for stage 1."""

    stage = "alignment"

    def __init__(self, store: Store, reference: str):
        super().__init__(store, reference)
        self._rows = self.artifact.read("passages")["passage_row"].to_numpy()

    def __getitem__(self, place: int) -> AlignmentExample:
        row = self._rows[place]
        (passage_id,), (text,) = self.pool.ids([row]), self.pool.texts([row])
        return AlignmentExample(passage_id, text, self.pool.embeddings([row])[0])


class RankingExamples(_Examples[RankingExample]):
    """Lists of candidates with their golden rankings, for stage 2."""

    stage = "ranking"

    def __init__(self, store: Store, reference: str):
        super().__init__(store, reference)
        columns = ["query_id", "query", "query_embedding", "passage_rows", "ranking", "bm25"]
        self._lists = self.artifact.read("lists", columns).combine_chunks()

    @property
    def queries(self) -> list[tuple[str, str]]:
        """(identifier, text) of each example's query."""
        columns = (self._lists[name].to_pylist() for name in ("query_id", "query"))
        return list(zip(*columns, strict=True))

    def __getitem__(self, place: int) -> RankingExample:
        line = {name: self._lists[name][place].as_py() for name in self._lists.column_names}
        rows = np.array(line["passage_rows"], np.int64)
        return RankingExample(
            query_id=line["query_id"],
            query=line["query"],
            query_embedding=np.array(line["query_embedding"], np.float32),
            passage_ids=self.pool.ids(rows),
            embeddings=self.pool.embeddings(rows),
            texts=self.pool.texts(rows),
            ranking=line["ranking"],
            scores=None if line["bm25"] is None else np.array(line["bm25"], np.float32),
        )


def terms(artifact: Artifact) -> dict[str, str]:
    """The terms of use of each source of training data, by its name."""
    notes = artifact.manifest.provenance.items()
    return {key.removeprefix("terms."): n for key, n in notes if key.startswith("terms.")}


def terms_of(sources: list[str], options: DataOptions) -> dict[str, str]:
    """The terms of use of each source, for the provenance, from where `terms` reads them.

    Raises:
        TrainingDataError: terms are given for what is no source.
    """
    given = dict(term.split("=", 1) for term in options.terms)
    if unknown := set(given) - set(sources):
        raise TrainingDataError(
            f"Terms are given for {', '.join(sorted(unknown))}, but the sources are "
            f"{', '.join(sources)}."
        )
    return {f"terms.{name}": given.get(name) or TERMS.get(name, NO_TERMS) for name in sources}
