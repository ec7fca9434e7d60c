"""Queries of evaluation collections are found by their text, however they are written."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perank_tasks.collections.formats import read_queries
from perank_tasks.collections.pydocs import DATA
from perank_tasks.collections.records import Query
from perank_tasks.errors import TrainingDataError
from perank_tasks.training.data.leaks import (
    EvaluationQueries,
    bag_of_stems,
    normal_form,
    without_evaluation_queries,
)
from tests.small import write_collection

EVALUATION = EvaluationQueries([("dl", [Query("e1", "What is the cost of interior flooring?")])])

words = st.lists(st.sampled_from(["cost", "flea", "dog", "running", "the", "of"]), min_size=1)


@pytest.mark.parametrize(
    "text",
    [
        "what is the cost of interior flooring",
        "  WHAT   is the\tcost of interior flooring?! ",
        "flooring, interior: what cost",  # order and stopwords
        "What's the cost of interior floorings",
        "what is the cost of interior_flooring",
        "ｗhat is the cost of interior flooring",
    ],
)
def test_the_same_query_is_found_in_other_words(text: str) -> None:
    found = EVALUATION.find(Query("t", text))
    assert found is not None
    assert found[1].query_id == "e1"


@pytest.mark.parametrize(
    "text", ["what is the cost of exterior flooring", "interior flooring", "cost cost interior"]
)
def test_another_query_is_another(text: str) -> None:
    assert EVALUATION.find(Query("t", text)) is None


def test_queries_of_stopwords_alone_are_told_apart() -> None:
    evaluation = EvaluationQueries([("dl", [Query("e", "to be or not to be")])])
    assert evaluation.find(Query("t", "To be, or not to be!"))
    assert evaluation.find(Query("t", "that is it")) is None


@given(words, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_forms_do_not_depend_on_order_case_or_punctuation(said: list[str], random: object) -> None:
    text = " ".join(said)
    assert normal_form(f" {text.upper()}?! ") == normal_form(text)
    random.shuffle(said)  # type: ignore[attr-defined]
    assert bag_of_stems(", ".join(said)) == bag_of_stems(text) or not set(said) - {"the", "of"}


def test_coincidences_are_refused_by_name_or_left_out_and_counted() -> None:
    queries = [Query("t1", "cost of interior flooring, what?"), Query("t2", "thai food")]
    with pytest.raises(TrainingDataError, match=r"1 of 2 .*\n  t1 .* is dl's e1 .*\n.*--drop"):
        without_evaluation_queries(queries, EVALUATION, drop=False)
    allowed = without_evaluation_queries(queries, EVALUATION, drop=True)
    assert [query.query_id for query in allowed] == ["t2"]


def test_pydocs_always_counts_and_named_collections_too(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics", queries={"q": "flea life"})
    evaluation = EvaluationQueries.of([spec, "pydocs"], date(2026, 1, 31))
    pydocs = read_queries(DATA / "queries.tsv")
    assert evaluation.counts == {"pydocs": len(pydocs), "topics": 1}
    for query in pydocs:
        found = evaluation.find(Query("t", query.text.upper()))
        assert found is not None
        assert found[0] == "pydocs"
    assert evaluation.find(Query("t", "life of fleas"))
