"""The page that a newcomer reads first is true: it names the files that a query comes through."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

import perank_tasks
from perank_tasks.artifacts.store import Store
from perank_tasks.night.embed import read_vectors
from perank_tasks.settings import Settings
from tests.needs import PROJECT
from tests.small import run_night, small_night, write_collection

PACKAGE = Path(perank_tasks.__file__).parent
PAGE = PROJECT / "docs" / "architecture.md"

QUERY, TEXT = "q-zebra", "does the zebra sleep"
PASSAGE = {"_id": "p-zebra", "title": "", "text": "A zebra sleeps on its feet."}

LONGEST_RECORD = 8
"""Fields of a tuple that is a record; longer ones, lists and tables carry many queries."""


class Trace:
    """Files with a function that was handed the query or the passage's embedding, or gave it: by
    itself or in a record.

    Attributes:
        files: in the order in which it came there first.
    """

    def __init__(self, vector: np.ndarray):
        self.vector = vector
        self.files: list[str] = []

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(str(PACKAGE)):
            return
        name = Path(path).relative_to(PACKAGE).as_posix()
        if name in self.files:
            return
        values = frame.f_locals.values() if event == "call" else [value]
        if any(self._has(value) for value in list(values)):
            self.files.append(name)

    def _has(self, value: Any) -> bool:
        if isinstance(value, str):
            return TEXT in value or value == QUERY
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            value = value.detach().numpy()
        if isinstance(value, np.ndarray):
            same = value.dtype == np.float32 and value.ndim and value.shape[-1] == len(self.vector)
            return bool(same and (np.abs(value - self.vector).max(-1) < 1e-6).any())
        if isinstance(value, tuple) and len(value) < LONGEST_RECORD:
            return any(self._has(item) for item in value)
        if hasattr(value, "__dataclass_fields__") and hasattr(value, "__dict__"):
            return any(self._has(item) for item in vars(value).values() if _is_plain(item))
        return False


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | np.ndarray | torch.Tensor)


def traced(folder: Path, run: Iterable[str] = ("perank",)) -> list[str]:
    """The files that one query and one passage's embedding come through, of a second night."""
    passages = [
        PASSAGE,
        *({"_id": f"p{i}", "text": f"Text number {i} of zebra."} for i in range(9)),
    ]
    spec = write_collection(
        folder, passages=passages, queries={QUERY: TEXT}, qrels=[(QUERY, "p-zebra", 1)]
    )
    night = small_night(spec, arms=list(run), shards=1)
    references = run_night(night, until="embed")["embed"]
    embeddings = Store(Settings.from_environment().root).open(references[next(iter(references))])
    _, vectors = read_vectors(embeddings, "passages", ["p-zebra"])
    run_night(night)
    trace = Trace(vectors[0])
    sys.setprofile(trace)
    try:
        run_night(small_night(spec, arms=list(run), shards=1, run_date="2026-02-01"))
    finally:
        sys.setprofile(None)
    return trace.files


def test_the_way_of_a_query_is_on_the_page_and_comes_through_few_files(tmp_path: Path) -> None:
    files = traced(tmp_path / "zebras")
    print("\n".join(files))
    page = PAGE.read_text()
    assert len(files) <= 20
    assert [name for name in files if f"`{name}`" not in page] == []
    assert len(page.splitlines()) <= 80


def test_every_file_that_the_page_names_is_there() -> None:
    names = {word for word in PAGE.read_text().split("`") if word.endswith((".py", "/"))}
    roots = (PACKAGE, PROJECT, PROJECT / "docs")
    assert [name for name in names if not any((root / name).exists() for root in roots)] == []
