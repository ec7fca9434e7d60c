"""The meter: what a stage took, and no other stage of its process."""

import sys

import pytest

from perank_tasks.support.meter import Meter

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the peak anew")
def test_a_stage_is_not_blamed_for_the_memory_of_the_one_before() -> None:
    before = Meter()
    large = bytes([1]) * (300 * MIB)
    del large
    hungry = before.stats()["peak_memory_bytes"]
    after = Meter().stats()["peak_memory_bytes"]
    assert hungry - after > 250 * MIB
