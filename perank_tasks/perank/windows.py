"""The sliding window's schedule: in, a list's length; out, the windows to rank, in turn.

A window's ranked passages are put back in its range before the next window, `step` places
nearer to the front, is ranked; so the best `window - step` of each travel on (paper,
section 3.4: "sliding window", after RankGPT).
"""

import hashlib
import random
from typing import NamedTuple

from perank_tasks.perank.options import RankingOptions
from perank_tasks.support.lists import CandidateList


class Range(NamedTuple):
    """The places [start, end) that are ranked together, and how many of them have to be.

    After `outputs` of its places are filled, the window's other passages may follow in any
    order: no place that has to be exact depends on it.
    """

    start: int
    end: int
    outputs: int


def schedule(candidates: int, options: RankingOptions) -> list[Range]:
    """The windows to rank for a list of `candidates` passages.

    One pass has the same ranges as the reference's loop, but for a list of exactly
    `window - step`, which that loop never ranks and which is one window here, and for ranges of
    a single passage, which need no ranking and are left out, as are those that no place up to
    `top_k` depends on.
    """
    ranges: list[Range] = []
    for turn in range(options.passes):
        top_k = options.top_k if turn == options.passes - 1 else None
        start, end = candidates, candidates
        while start > 0:
            start = max(end - options.window, 0)
            # The next window, if there is one, begins `step` places earlier and takes these along;
            # what it leaves behind stays where it is.
            travelling = max(end - start - options.step, 0) if start > 0 else 0
            outputs = end - start
            if top_k is not None:
                outputs = min(outputs, max(travelling, top_k - start))
            if end - start > 1 and outputs > 0:
                ranges.append(Range(start, end, outputs))
            end -= options.step
    return ranges


def initial_order(candidates: CandidateList, options: RankingOptions) -> list[int]:
    """The order that ranking starts from: positions in the given list, 0 to n - 1.

    A random one depends on seed and query id alone, not on the queries ranked beside it.
    """
    order = list(range(len(candidates)))
    if options.initial_order == "inverted":
        order.reverse()
    elif options.initial_order == "random":
        drawn = hashlib.sha256(f"{options.order_seed} {candidates.query_id}".encode()).digest()
        random.Random(drawn).shuffle(order)
    elif options.initial_order == "oracle" and candidates.grades is not None:
        order.sort(key=[-grade for grade in candidates.grades].__getitem__)
    return order
