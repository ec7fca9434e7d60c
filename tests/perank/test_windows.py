"""The sliding window's schedule, against the reference's loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perank_tasks.errors import ConfigError
from perank_tasks.perank.windows import schedule


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
    ranges = schedule(candidates, window=window, step=step)
    if candidates == window - step > 1:
        assert reference_loop(candidates, window, step) == []
        assert ranges == [(0, candidates)]
    else:
        reference = reference_loop(candidates, window, step)
        assert ranges == [(start, end) for start, end in reference if end - start > 1]


def test_thirty_five_candidates_take_three_windows() -> None:
    assert schedule(35, window=20, step=10) == [(15, 35), (5, 25), (0, 15)]


@pytest.mark.parametrize(("window", "step"), [(1, 1), (0, 0), (-3, 1), (20, 0), (20, 21), (20, -1)])
def test_a_window_or_step_that_cannot_work_is_refused(window: int, step: int) -> None:
    with pytest.raises(ConfigError, match=r"^(window|step) must"):
        schedule(100, window=window, step=step)
