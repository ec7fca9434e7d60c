"""`perank check-device`: in, a checkpoint and a device; out, whether it ranks there as it should.

The same lists are ranked in every way that must give the same rankings: each alone, in other
orders, in shards, beside a list that fails, after memory ran out. Where the device is a GPU,
float32 is held against the CPU, and the device's own precision against float32. Then speed: many
queries at once, and one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch

from perank_tasks.bench.hardware import describe, product_rate, seconds_of
from perank_tasks.bench.workload import cut, load_queries, with_embeddings
from perank_tasks.perank import PERank, RankingOptions
from perank_tasks.perank.block import Block
from perank_tasks.perank.engine import device_named
from perank_tasks.perank.shapes import MAX_ROWS
from perank_tasks.support.lists import CandidateList, RankedList

LARGE = 1_500_000_000
"""Weights from which float32, on a CPU or at all, is not waited for."""

LENGTHS = (100, 20, 45, 7, 30, 12, 60, 25)
"""Candidates of each list: windows of several sizes, prompts of several lengths."""


@dataclass(frozen=True)
class Agreement:
    """How far two ways of ranking the same lists agree.

    Attributes:
        what: the two ways.
        lists: ranked.
        orders: lists in the same order.
        logits: lists whose logits are the same to the last bit; None where they cannot be.
        moved: passages that stand at another place, of all lists.
        top_10: mean share of the top ten in common.
    """

    what: str
    lists: int
    orders: int
    logits: int | None
    moved: int
    top_10: float

    @property
    def holds(self) -> bool:
        """Whether everything agrees that can."""
        return self.orders == self.lists and self.logits in (None, self.lists)


@dataclass
class DeviceReport:
    """What a device did.

    `must` are agreements that rankings rely on; `moves` how far precisions are from each other.
    """

    device: str
    dtype: str
    depth: int
    """Candidates of the longest list."""
    matrix_rate: float = 0.0
    must: list[Agreement] = field(default_factory=list)
    moves: list[Agreement] = field(default_factory=list)
    seconds_a_query: float = 0.0
    queries_at_once: int = 0
    rate_share: float = 0.0
    seconds_alone: float = 0.0
    peak_bytes: int = 0

    @property
    def holds(self) -> bool:
        """Whether all that must agree does."""
        return all(agreement.holds for agreement in self.must)


def check_device(
    checkpoint: str, collection: str, device: str, advance: Callable[[str], object] = lambda _: None
) -> DeviceReport:
    """Rank a collection's queries in every way that must agree, and measure.

    Args:
        checkpoint, device: as for `PERank.from_pretrained`.
        collection: spec of what is ranked.
        advance: called with what comes next.

    Raises:
        ConfigError, CollectionError, CheckpointError: something named is not there or unfit.
    """
    place = device_named(device)  # before anything is read
    queries = load_queries(collection, queries=len(LENGTHS), depth=max(LENGTHS))
    load = partial(PERank.from_pretrained, checkpoint)
    engine = load(device=device)
    machine = describe(place, engine.model.dtype)
    dtype = machine["dtype"]
    lists = [
        cut(each, length)
        for each, length in zip(with_embeddings(queries, engine), LENGTHS, strict=False)
    ]
    report = DeviceReport(machine["device"], dtype, depth=max(map(len, lists)))
    large = engine.model.llm.parameters() > LARGE
    own = list(engine.rerank_many(lists))
    report.must += _invariance(engine, lists, own, dtype, advance)
    advance("measuring")
    _measure(engine, lists, report)
    del engine
    if dtype != "float32" and not large:
        advance("ranking in float32")
        engine = load(device=device, dtype="float32")
        exact = list(engine.rerank_many(lists))
        report.must += _invariance(engine, lists, exact, "float32", advance)
        report.moves.append(_agreement(f"{dtype} and float32", own, exact, bits=False))
        own = exact
    if place.type == "cuda" and not large:
        advance("ranking on the CPU")
        there = list(load(device="cpu", dtype="float32").rerank_many(lists))
        report.moves.append(_agreement("float32 on the GPU and the CPU", own, there, bits=False))
    return report


def _invariance(
    engine: PERank,
    lists: Sequence[CandidateList],
    expected: list[RankedList],
    dtype: str,
    advance: Callable[[str], object],
) -> Iterator[Agreement]:
    """The lists in ways that must make no difference, against all at once."""
    for name, rank in WAYS.items():
        advance(f"{dtype}: {name}")
        ranked = {result.query_id: result for result in rank(engine, lists)}
        results = [ranked[each.query_id] for each in lists]
        yield _agreement(f"{dtype}, together and {name}", expected, results, bits=True)


def _in_shards(shards: int, engine: PERank, lists: Sequence[CandidateList]) -> Iterator[RankedList]:
    for shard in range(shards):
        yield from engine.rerank_many(lists[shard::shards])


def _in_another_order(engine: PERank, lists: Sequence[CandidateList]) -> Iterable[RankedList]:
    order = np.random.default_rng(0).permutation(len(lists))
    return engine.rerank_many([lists[place] for place in order])


def _beside_one_that_fails(engine: PERank, lists: Sequence[CandidateList]) -> Iterable[RankedList]:
    assert lists[0].vectors is not None
    bad = replace(lists[0], query_id="fails", vectors=lists[0].vectors * np.float32(3e38))
    missing = replace(lists[0], query_id="missing", vectors=None)
    half = len(lists) // 2
    return engine.rerank_many([missing, *lists[:half], bad, *lists[half:]])


def _after_memory_ran_out(engine: PERank, lists: Sequence[CandidateList]) -> list[RankedList]:
    """The device's memory is said to be out once, in the middle of the work."""
    calls = 0
    prefill = Block.prefill

    def run_out(block: Block) -> None:
        nonlocal calls
        prefill(block)
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError("said to be out by check-device")

    with patch.object(Block, "prefill", run_out):
        return list(engine.rerank_many(lists))


WAYS: dict[str, Callable[[PERank, Sequence[CandidateList]], Iterable[RankedList]]] = {
    "in another order": _in_another_order,
    "in 2 shards": partial(_in_shards, 2),
    "in 3 shards": partial(_in_shards, 3),
    "each alone": partial(_in_shards, len(LENGTHS)),
    "beside one that fails": _beside_one_that_fails,
    "after memory ran out": _after_memory_ran_out,
}


def _agreement(
    what: str, left: Sequence[RankedList], right: Sequence[RankedList], *, bits: bool
) -> Agreement:
    pairs = list(zip(left, right, strict=True))
    shares = [len(set(a.order[:10]) & set(b.order[:10])) / min(10, len(a.order)) for a, b in pairs]
    return Agreement(
        what,
        len(pairs),
        sum(a.order == b.order for a, b in pairs),
        sum(a.logits_checksum == b.logits_checksum for a, b in pairs) if bits else None,
        sum(int(np.sum(np.array(a.order) != np.array(b.order))) for a, b in pairs),
        float(np.mean(shares)),
    )


def _measure(engine: PERank, lists: Sequence[CandidateList], report: DeviceReport) -> None:
    """Seconds a query: as many at once as the device takes together, and one by itself."""
    on_gpu = engine.device.type == "cuda"
    deepest = max(lists, key=len)
    deep = [each for each in lists if len(each) == len(deepest)]
    count = MAX_ROWS[engine.device.type]
    many = [replace(deep[place % len(deep)], query_id=f"{place}") for place in range(count)]
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(engine.device)
    before = engine.counters.flops
    seconds = seconds_of(lambda: list(engine.rerank_many(many)), engine.device)
    report.matrix_rate = product_rate(engine.device, engine.model.dtype)
    report.queries_at_once, report.seconds_a_query = count, seconds / count
    report.rate_share = (engine.counters.flops - before) / seconds / report.matrix_rate
    one = RankingOptions(block=1)
    list(engine.rerank_many([deepest], one))
    report.seconds_alone = seconds_of(
        lambda: list(engine.rerank_many([deepest], one)), engine.device
    )
    if on_gpu:
        report.peak_bytes = torch.cuda.max_memory_allocated(engine.device)
