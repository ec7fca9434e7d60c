"""The meter: what a stage took, and no other stage of its process."""

import sys
from typing import Any

import pytest

from perank_tasks.support.meter import SUMMED, Meter, total

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the peak anew")
def test_a_stage_is_not_blamed_for_the_memory_of_the_one_before() -> None:
    before = Meter()
    large = bytes([1]) * (300 * MIB)
    del large
    hungry = before.stats()["peak_memory_bytes"]
    after = Meter().stats()["peak_memory_bytes"]
    assert hungry - after > 250 * MIB


def shard(began: float, seconds: float, **more: float) -> dict[str, Any]:
    work = dict.fromkeys((*SUMMED, "peak_memory_bytes"), 0)
    return {**work, "device": "cpu", "began": began, "seconds": seconds, **more}


def test_seconds_side_by_side_count_once_and_those_between_two_runs_do_not() -> None:
    together = [shard(100, 10, load_seconds=4, items=3), shard(102, 10, load_seconds=4, items=2)]
    assert total(together)["seconds"] == 12
    resumed = total([shard(5000, 1), *together])
    assert resumed["seconds"] == 13
    assert resumed["began"] == 100
    assert resumed["items"] == 5
    # As of one process that worked for 12 of their 20 seconds.
    assert total(together)["load_seconds"] == pytest.approx(8 * 12 / 20)
    assert total([])["seconds"] == 0
