"""What `rerank` takes in Python: the shapes that people have; wrong ones are refused by name."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from perank_tasks.errors import ConfigError
from perank_tasks.perank import PERank
from perank_tasks.support.lists import CandidateList
from tests.small import GOLDEN

QUERY = "how long do fleas live"
TEXTS = ["Cats sleep all day.", "Fleas live for some weeks.", "Rice is cooked.", "A flea's life."]
IDS = ["d7", "d1", "d9", "d3"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> PERank:
    """The golden checkpoint, which brings its own encoder."""
    return PERank.from_pretrained(GOLDEN, cache=tmp_path_factory.mktemp("cache"), device="cpu")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame({"docid": IDS, "text": TEXTS}, index=[10, 11, 12, 13])


SHAPES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "mapping": lambda frame: dict(zip(IDS, TEXTS, strict=True)),
    "pairs": lambda frame: list(zip(IDS, TEXTS, strict=True)),
    "lists of two": lambda frame: [list(pair) for pair in zip(IDS, TEXTS, strict=True)],
    "generator of pairs": lambda frame: (pair for pair in zip(IDS, TEXTS, strict=True)),
    "rows of a table": lambda frame: list(frame.itertuples(index=False)),
    "columns of a table": lambda frame: dict(zip(frame.docid, frame.text, strict=True)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_come_back_best_first_with_their_scores(
    engine: PERank, frame: pd.DataFrame, shape: str
) -> None:
    plain = engine.rerank(QUERY, TEXTS)
    result = engine.rerank(QUERY, SHAPES[shape](frame))
    assert result.order == plain.order
    assert result.top(3) == [
        (IDS[place], score) for place, score in zip(plain.order[:3], plain.scores, strict=False)
    ]
    assert result.top() == result.top(4)
    assert result.texts == TEXTS
    assert list(result.passage_ids) == IDS


def test_texts_without_ids_are_known_by_their_places(engine: PERank, frame: pd.DataFrame) -> None:
    for passages in (TEXTS, tuple(TEXTS), iter(TEXTS), frame.text.tolist()):
        result = engine.rerank(QUERY, passages)
        assert [place for place, _ in result.top()] == result.order
        assert sorted(result.order) == [0, 1, 2, 3]
    numbers = engine.rerank(QUERY, frame.text.to_dict())
    assert {name for name, _ in numbers.top()} == {10, 11, 12, 13}


def test_embeddings_alone_are_known_by_their_places(engine: PERank) -> None:
    result = engine.rerank(QUERY, embeddings=engine.encode(TEXTS))
    assert result.order == engine.rerank(QUERY, TEXTS).order
    assert result.texts is None
    assert [place for place, _ in result.top(2)] == result.order[:2]


def test_nothing_to_rank_is_no_error(engine: PERank) -> None:
    assert engine.rerank(QUERY, []).top() == []
    assert engine.rerank(QUERY, {}).top(3) == []


def test_many_queries_take_the_same_shapes(engine: PERank, frame: pd.DataFrame) -> None:
    lists = [(QUERY, make(frame)) for make in SHAPES.values()]
    given = CandidateList(
        "q", QUERY, IDS, vectors=engine.encode(TEXTS), query_embedding=engine.encode([QUERY])[0]
    )
    results = list(engine.rerank_many([*lists, given, (QUERY, TEXTS)]))
    expected = engine.rerank(QUERY, TEXTS)
    assert {tuple(result.order) for result in results} == {tuple(expected.order)}
    assert results[0].top(1) == results[-2].top(1) == [(IDS[expected.order[0]], 1.0)]
    assert results[0].texts == TEXTS
    assert (results[-2].query_id, results[-2].texts) == ("q", None)


WRONG = {
    "table": (lambda frame: frame, "passages is of type pandas.DataFrame, expected a mapping"),
    "column": (lambda frame: frame.text, r"pandas.Series, expected .* list\(texts\)"),
    "array": (lambda frame: frame.text.to_numpy(), "numpy.ndarray, expected a mapping"),
    "set": (lambda frame: set(TEXTS), "type set, expected a mapping"),
    "one text": (lambda frame: TEXTS[0], "type str, expected a mapping"),
    "bytes": (lambda frame: b"text", "type bytes, expected a mapping"),
    "number": (lambda frame: 7, "type int, expected a mapping"),
    "records": (lambda frame: frame.to_dict("records"), "passage 0 is of type dict, expected text"),
    "three columns": (lambda frame: [("d", "t", "x")], "passage 0 is of type tuple, expected text"),
    "some pairs": (lambda frame: ["a", ("d", "b")], "passage 1 is of type tuple, expected text"),
    "numbers": (lambda frame: (i for i in range(3)), "passage 0 is of type int, expected text"),
    "no text": (lambda frame: {"d1": "a", "d2": None}, "passage 'd2' is of type NoneType"),
    "missing": (lambda frame: {"d1": float("nan")}, "passage 'd1' is of type float"),
    "texts of a key": (lambda frame: frame.to_dict("list"), "passage 'docid' is of type list"),
    "an id twice": (lambda frame: [("d1", "a"), ("d1", "b")], "have the id 'd1' twice"),
    "lists as ids": (lambda frame: [(["d1"], "a")], "an id of a passage is no plain value"),
}  # fmt: skip


@pytest.mark.parametrize("shape", WRONG)
def test_what_is_no_list_of_passages_is_refused_by_name(
    engine: PERank, frame: pd.DataFrame, shape: str
) -> None:
    make, message = WRONG[shape]
    with pytest.raises(ConfigError, match=message):
        engine.rerank(QUERY, make(frame))
    with pytest.raises(ConfigError, match=message):
        list(engine.rerank_many([(QUERY, make(frame))]))


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([QUERY], "list 0 is of type str, expected .query, passages. or a CandidateList"),
        ({QUERY: TEXTS}, "list 0 is of type str"),
        ([(QUERY, TEXTS), {QUERY: TEXTS}], "list 1 is of type dict"),
        ([(QUERY, TEXTS, 1)], "list 0 is of type tuple"),
        ([(7, TEXTS)], "the query is of type int, expected text"),
    ],
)
def test_what_are_no_lists_is_refused_by_name(engine: PERank, lists: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(engine.rerank_many(lists))


def test_as_many_embeddings_as_passages(engine: PERank) -> None:
    with pytest.raises(ConfigError, match="1 embeddings for 4 passages"):
        engine.rerank(QUERY, dict(zip(IDS, TEXTS, strict=True)), np.ones((1, 4), np.float32))


def test_a_type_checker_finds_the_types(tmp_path: Path) -> None:
    """`py.typed` is in the package, and so are the shapes."""
    import perank_tasks

    assert (Path(perank_tasks.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("encoder", ["inside the checkpoint", "in its own folder"])
def test_nothing_of_other_libraries_goes_to_standard_error(tmp_path: Path, encoder: str) -> None:
    checkpoint = shutil.copytree(GOLDEN, tmp_path / "checkpoint")
    if encoder == "in its own folder":
        tensors = load_file(checkpoint / "model.safetensors")
        outside = {name: t for name, t in tensors.items() if "encoder" not in name}
        save_file(outside, checkpoint / "model.safetensors", metadata={"format": "pt"})
    code = (
        "from perank_tasks.perank import PERank\n"
        f"ranker = PERank.from_pretrained({str(checkpoint)!r}, cache='cache', device='cpu')\n"
        "print(ranker.rerank('fleas', {'a': 'Fleas.', 'b': 'Cats.'}).top(1)[0][1])\n"
    )
    tqdm_on = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=tqdm_on
    )
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_one_text_is_not_embedded_letter_by_letter(engine: PERank) -> None:
    with pytest.raises(ConfigError, match=r"a sequence of texts, not one: give \['how long"):
        engine.encode(QUERY)
    assert engine.encode([QUERY]).shape == (1, 32)
