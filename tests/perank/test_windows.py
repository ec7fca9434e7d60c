"""The sliding window's schedule, against the reference's loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perank_tasks.errors import ConfigError
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.windows import initial_order, schedule
from perank_tasks.support.lists import CandidateList


def reference_loop(candidates: int, window: int, step: int) -> list[tuple[int, int]]:
    ranges = []
    start, end = candidates - window, candidates
    while end > 0 and start + step != 0:
        start = max(start, 0)
        ranges.append((start, end))
        start, end = start - step, end - step
    return ranges


@given(
    candidates=st.integers(0, 300),
    sizes=st.tuples(st.integers(2, 40), st.integers(1, 40)).filter(lambda pair: pair[1] <= pair[0]),
)
def test_it_is_the_references_loop_but_for_its_flaw(
    candidates: int, sizes: tuple[int, int]
) -> None:
    window, step = sizes
    ranges = [
        (start, end)
        for start, end, _ in schedule(candidates, RankingOptions(window=window, step=step))
    ]
    if candidates == window - step > 1:
        assert reference_loop(candidates, window, step) == []
        assert ranges == [(0, candidates)]
    else:
        reference = reference_loop(candidates, window, step)
        assert ranges == [(start, end) for start, end in reference if end - start > 1]


def test_thirty_five_candidates_take_three_windows() -> None:
    ranges = schedule(35, RankingOptions())
    assert ranges == [(15, 35, 20), (5, 25, 20), (0, 15, 15)]


@pytest.mark.parametrize(("window", "step"), [(1, 1), (0, 0), (-3, 1), (20, 0), (20, 21), (20, -1)])
def test_a_window_or_step_that_cannot_work_is_refused(window: int, step: int) -> None:
    with pytest.raises(ConfigError, match=r"window|step"):
        RankingOptions(window=window, step=step)


def test_the_top_ten_take_ten_outputs_a_window() -> None:
    ranges = schedule(35, RankingOptions(top_k=10))
    assert ranges == [(15, 35, 10), (5, 25, 10), (0, 15, 10)]


def test_a_top_that_reaches_into_a_window_takes_its_places_too() -> None:
    assert schedule(30, RankingOptions(top_k=25)) == [(10, 30, 15), (0, 20, 20)]


def test_windows_that_the_top_does_not_depend_on_are_left_out() -> None:
    assert schedule(30, RankingOptions(window=10, step=10, top_k=5)) == [(0, 10, 5)]


def test_every_pass_but_the_last_ranks_all() -> None:
    ranges = schedule(15, RankingOptions(window=10, step=5, top_k=2, passes=2))
    assert ranges == [(5, 15, 10), (0, 10, 10), (5, 15, 5), (0, 10, 2)]


def test_the_order_to_start_from() -> None:
    four = CandidateList("q", "question", "abcd", grades=[0, 2, 0, 1])
    assert initial_order(four, RankingOptions()) == [0, 1, 2, 3]
    assert initial_order(four, RankingOptions(initial_order="inverted")) == [3, 2, 1, 0]
    assert initial_order(four, RankingOptions(initial_order="oracle")) == [1, 3, 0, 2]
    q, r = (CandidateList(query_id, "question", ["d"] * 50) for query_id in "qr")
    drawn = initial_order(q, RankingOptions(initial_order="random", order_seed=3))
    assert sorted(drawn) == list(range(50))
    assert drawn == initial_order(q, RankingOptions(initial_order="random", order_seed=3))
    assert drawn != initial_order(q, RankingOptions(initial_order="random", order_seed=4))
    assert drawn != initial_order(r, RankingOptions(initial_order="random", order_seed=3))
