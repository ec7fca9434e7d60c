"""Measures against values worked out by hand, by trec_eval's definitions."""

import math

import pytest

from perank_tasks.regression.measures import MEASURES, evaluate_run

QRELS = {"q1": {"a": 3, "b": 2, "c": 1, "d": 0}, "q2": {"a": 1}}


def test_values_worked_out_by_hand() -> None:
    run = {"q1": {"c": 3.0, "x": 2.0, "a": 1.0}, "q2": {"a": 1.0}}
    values = evaluate_run(run, QRELS, relevance_level=1)
    gain = 1 / math.log2(2) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert values["nDCG@10"]["q1"] == pytest.approx(gain / ideal)
    assert values["MRR@10"]["q1"] == 1
    assert values["recall@100"]["q1"] == pytest.approx(2 / 3)
    assert values["MAP"]["q1"] == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert values["judged@10"]["q1"] == pytest.approx(2 / 3)
    assert [values[measure]["q2"] for measure in MEASURES] == [1, 1, 1, 1, 1]


def test_binary_measures_start_at_the_relevance_level() -> None:
    run = {"q1": {"c": 3.0, "x": 2.0, "a": 1.0}}
    values = evaluate_run(run, {"q1": QRELS["q1"]}, relevance_level=2)
    assert values["MRR@10"]["q1"] == pytest.approx(1 / 3)
    assert values["recall@100"]["q1"] == pytest.approx(1 / 2)
    assert values["MAP"]["q1"] == pytest.approx((1 / 3) / 2)


def test_equal_scores_are_ordered_as_trec_eval_does_by_id_descending() -> None:
    qrels = {"q": {"a": 1}}
    assert evaluate_run({"q": {"a": 1.0, "b": 1.0}}, qrels, 1)["MRR@10"]["q"] == 0.5
    assert evaluate_run({"q": {"a": 1.0, "0": 1.0}}, qrels, 1)["MRR@10"]["q"] == 1


def test_a_judged_query_without_a_ranking_counts_nothing() -> None:
    values = evaluate_run({"q1": {}}, QRELS, relevance_level=1)
    assert all(value == 0 for by_query in values.values() for value in by_query.values())
    assert all(set(by_query) == {"q1", "q2"} for by_query in values.values())


def test_a_negative_grade_is_judged_and_gains_nothing() -> None:
    values = evaluate_run({"q": {"spam": 2.0, "a": 1.0}}, {"q": {"spam": -2, "a": 1}}, 1)
    assert values["nDCG@10"]["q"] == pytest.approx(1 / math.log2(3))
    assert values["judged@10"]["q"] == 1


def test_unjudged_queries_are_left_out() -> None:
    assert set(evaluate_run({"other": {"a": 1.0}}, QRELS, 1)["MAP"]) == {"q1", "q2"}


def test_a_querys_values_are_its_own_where_passages_are_called_as_queries_are() -> None:
    """As in Cranfield, whose queries and passages are both 1, 2, 3, …"""
    ids = [str(i) for i in range(1, 31)]
    qrels = {q: {q: 1} for q in ids}
    run = {q: {p: float(30 - (int(p) + 7 * int(q)) % 30) for p in ids} for q in ids}
    values = evaluate_run(run, qrels, relevance_level=1)
    for q in ids:
        order = sorted(run[q], key=lambda p: -run[q][p])
        assert values["MAP"][q] == pytest.approx(1 / (order.index(q) + 1))
