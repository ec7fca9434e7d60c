"""Dry run: in, a plan; out, what there is to rank in each of its cells. Nothing is computed.

Tokens follow from the windows' schedule, the length of the prompt and, where prompts hold texts,
the length of the passages.
"""

from datetime import date
from functools import cache
from itertools import islice
from typing import Any

import numpy as np

from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import PerankError
from perank_tasks.experiments.plan import Cell, ExperimentPlan
from perank_tasks.night.site import Site
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.prompt import RELEASED_V1
from perank_tasks.perank.windows import schedule
from perank_tasks.rankers.perank import PERankOptions
from perank_tasks.support.text import contents
from perank_tasks.training.stages.plan_run import plan_training

RELEASED = (127.0, 10.0)
"""Tokens of a prompt with its query by SmolLM2's tokenizer, and of each passage: 327 for 20."""

COMPACT = (60.0, 1.0)
"""80 tokens for 20 passages."""

TOKENS_A_NUMBER = 5.0
"""Of an answer in numbers, `[12] > `, and of each passage's number in its prompt."""

TOKENS_A_WORD = 1.5
"""Of passages' texts, by SmolLM2's tokenizer, roughly."""

SAMPLED_PASSAGES = 50_000


def estimate(plan: ExperimentPlan, site: Site) -> list[dict[str, Any]]:
    """Say how much there is to read for each cell.

    Returns:
        Its collection and name, and counts: queries, the windows that the LLM ranks for a query,
        the tokens that it reads and puts out for a query, and for all.
    """
    rows = []
    for cell in plan.cells:
        asked = _queries(cell.collection, plan.run_date)
        queries = min(asked, plan.experiment.query_limit or asked)
        windows, tokens = _windows_and_tokens(plan, site, cell)
        counts = {"queries": queries, "windows a query": windows}
        counts |= {"tokens a query": round(tokens), "tokens": round(queries * tokens)}
        rows.append({"collection": cell.collection_name, "cell": cell.label, **counts})
    return rows


def count_tokens(
    depth: int, ranking: RankingOptions, prompt: tuple[float, float], words_a_passage: float
) -> tuple[int, float]:
    """Windows of a list of `depth` candidates, and the tokens read and put out for them."""
    fixed, a_passage = prompt
    a_passage += words_a_passage * TOKENS_A_WORD
    if ranking.answers_in_numbers:
        a_passage += TOKENS_A_NUMBER
    windows = schedule(depth, ranking)
    tokens = 0.0
    for start, end, outputs in windows:
        size = end - start
        # The last passage put out is not read again.
        put_out = {"constrained": outputs - 1, "first-step": 0, "free": TOKENS_A_NUMBER * size}
        tokens += fixed + size * a_passage + put_out[ranking.decoding]
    return len(windows), tokens


def _windows_and_tokens(plan: ExperimentPlan, site: Site, cell: Cell) -> tuple[int, float]:
    """For one query; zeros for arms without an LLM, and where the checkpoint cannot be read."""
    file = cell.arms()
    (arm,) = file.select()
    if not isinstance(arm.options, PERankOptions) or not arm.options.reads_a_prompt:
        return 0, 0.0
    try:
        if cell.training is not None:
            prompt = plan_training(cell.training, plan.run_date, site).rank.prompt
        else:
            prompt = plan.night(cell, file, site).arms[0].identity["prompt"]
    except PerankError:  # the cell will say so
        return 0, 0.0
    ranking, orders = arm.options, arm.options.orders
    has_texts = ranking.passages != "embeddings"
    words = _words_a_passage(cell.collection, plan.run_date) if has_texts else 0.0
    depth = arm.depth or file.first_stage(arm.first_stage, of=cell.label).depth
    length = RELEASED if prompt == RELEASED_V1.name else COMPACT
    windows, tokens = count_tokens(depth, ranking, length, words)
    return orders * windows, orders * tokens


@cache
def _queries(collection: str, run_date: date) -> int:
    return len(open_collection(collection).load(run_date).queries)


@cache
def _words_a_passage(collection: str, run_date: date) -> float:
    """The mean over the collection's first passages."""
    passages = islice(open_collection(collection).load(run_date).passages, SAMPLED_PASSAGES)
    return float(np.mean([len(contents(p.title, p.text).split()) for p in passages]))
