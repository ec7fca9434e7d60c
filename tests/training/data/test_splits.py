"""Splits by query: everything held out once, nothing on both sides."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perank_tasks.errors import TrainingDataError
from perank_tasks.training.data.leaks import bag_of_stems
from perank_tasks.training.data.splits import folds, hold_out

# Three lists a query; q7 asks what q3 asks.
TEXTS = [f"topic number{i}" for i in range(20)]
TEXTS[7] = "number3 topics"
QUERIES = [(f"q{i}", text) for i, text in enumerate(TEXTS) for _ in range(3)]


@given(st.integers(2, 10), st.integers(0, 5))
@settings(deadline=None)
def test_folds_hold_everything_out_once_and_keep_queries_together(k: int, seed: int) -> None:
    made = folds(QUERIES, k, seed)
    assert len(made) == k
    places = sorted(place for _, held_out in made for place in held_out)
    assert places == list(range(len(QUERIES)))
    sizes = []
    for trained, held_out in made:
        assert sorted([*trained, *held_out]) == list(range(len(QUERIES)))
        seen = {bag_of_stems(QUERIES[place][1]) for place in trained}
        assert not seen & {bag_of_stems(QUERIES[place][1]) for place in held_out}
        sizes.append(len({QUERIES[place][0] for place in held_out}))
    assert max(sizes) - min(sizes) <= 2
    assert made == folds(QUERIES, k, seed)


def test_folds_do_not_depend_on_the_order_of_examples() -> None:
    shuffled = QUERIES[:]
    random.Random(1).shuffle(shuffled)
    first, second = (
        [{queries[place][0] for place in held_out} for _, held_out in folds(queries, 4, seed=3)]
        for queries in (QUERIES, shuffled)
    )
    assert first == second
    assert first != [
        {QUERIES[place][0] for place in held_out} for _, held_out in folds(QUERIES, 4, seed=4)
    ]


def test_a_development_split_has_its_share() -> None:
    trained, held_out = hold_out(QUERIES, 0.25, seed=2)
    assert sorted([*trained, *held_out]) == list(range(len(QUERIES)))
    names = {QUERIES[place][0] for place in held_out}
    assert 5 <= len(names) <= 6
    assert not names & {QUERIES[place][0] for place in trained}


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(TrainingDataError, match="19 different queries cannot be cut into 20 folds"):
        folds(QUERIES, 20)
    with pytest.raises(TrainingDataError, match="cannot be cut into 1 folds"):
        folds(QUERIES, 1)
    with pytest.raises(TrainingDataError, match="leaves one side empty"):
        hold_out(QUERIES, 1.0)
    assert hold_out(QUERIES, 0.0) == (list(range(len(QUERIES))), [])
