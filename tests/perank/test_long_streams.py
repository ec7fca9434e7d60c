"""Long streams take no more memory at their end; rankers side by side do not disturb each other."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from perank_tasks.perank import PERank
from tests.perank.test_engine import request
from tests.perank.tiny import write_own

QUERIES = 600


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_own(tmp_path / "ranker")


def memory_by_query(checkpoint: Path) -> list[int]:
    """Resident bytes with the model loaded, then after every query."""
    torch.set_num_threads(1)
    process = psutil.Process()
    engine = PERank.from_pretrained(checkpoint, cache=checkpoint.parent, device="cpu")
    requests = (request(number, length=30) for number in range(QUERIES))
    sizes = [process.memory_info().rss]
    sizes += [process.memory_info().rss for _ in engine.rerank_many(requests)]
    return sizes


def orders(checkpoint: Path, queries: int) -> list[list[int]]:
    torch.set_num_threads(1)
    engine = PERank.from_pretrained(checkpoint, cache=checkpoint.parent, device="cpu")
    return [result.order for result in engine.rerank_many(map(request, range(queries)))]


@pytest.mark.long
@pytest.mark.slow
def test_a_stream_of_queries_takes_no_more_memory_at_its_end(checkpoint: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        model, *sizes = processes.submit(memory_by_query, checkpoint).result()
    assert len(sizes) == QUERIES
    assert max(sizes) - model < 2**29
    assert sizes[-1] < 1.1 * sizes[QUERIES // 10]


@pytest.mark.long
@pytest.mark.slow
def test_two_rankers_at_once_rank_as_one_alone(checkpoint: Path) -> None:
    alone = orders(checkpoint, 40)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        both = [processes.submit(orders, checkpoint, 40) for _ in range(2)]
        assert [each.result() for each in both] == [alone, alone]
    assert len({tuple(order) for order in alone}) > 1
