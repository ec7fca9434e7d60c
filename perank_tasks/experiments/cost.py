"""Cost: in, a plan; out, what each of its cells is expected to take, before any is computed.

Tokens follow from the windows' schedule and the lengths of the prompts' texts; a FLOP is a
multiplication or an addition, two for each of the LLM's parameters and tokens, its token embeddings
and attention's own left out. Seconds are those over a rate: of this experiment's cells that are
done on this machine, or else an assumed share of the matrix rate that is measured here and now.
What is shared, embeddings and candidates, and what is trained is counted, not estimated.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.collections import open_collection
from perank_tasks.config import CHECKPOINT_ARMS, LLM_OFF, NightOptions
from perank_tasks.experiments.cells import find_cell, plan_sharing
from perank_tasks.experiments.plan import Cell, ExperimentPlan
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.prompt import RELEASED_V1
from perank_tasks.perank.windows import schedule
from perank_tasks.planning import PROMPT_TOKENS, PROMPT_TOKENS_A_PASSAGE, UTILISATION
from perank_tasks.settings import Settings
from perank_tasks.text import contents

log = logging.getLogger(__name__)

COMPACT_TOKENS, COMPACT_TOKENS_A_PASSAGE = 60.0, 1.0
"""Of the compact prompt with its query, by SmolLM2's tokenizer: 80 for 20 passages."""

TOKENS_A_NUMBER = 6.0
"""Of an answer in numbers, `[12] > `."""

TOKENS_A_WORD = 1.5
"""Of passages' texts, by SmolLM2's tokenizer, roughly."""

SAMPLED_PASSAGES = 2000

BASELINE_QUERIES_A_SECOND = 500.0
"""Of arms without an LLM, roughly."""


@dataclass(frozen=True)
class CellCost:
    """What one cell takes; None where it cannot be said before its checkpoint is trained."""

    cell: Cell
    is_done: bool
    queries: int
    tokens: float
    """A query."""
    flops: float | None
    """A query."""
    seconds: float | None
    """The whole cell; 0 where it is done."""


@dataclass(frozen=True)
class PlanCost:
    """What a plan takes."""

    cells: list[CellCost]
    basis: str
    """What the seconds rest on."""
    candidate_lists: int
    """Lists of candidates and embeddings that cells share."""
    trainings: int

    @property
    def seconds(self) -> float:
        """Of all cells that are not done and can be said."""
        return sum(cost.seconds or 0 for cost in self.cells)


def estimate(plan: ExperimentPlan) -> PlanCost:
    """Say what is done and what the rest takes; computes nothing but snapshots."""
    done = {cell.hash: find_cell(plan, cell) for cell in plan.cells}
    sizes = {cell.collection: _size(cell.collection, plan) for cell in plan.cells}
    work = {cell.hash: _work(plan, cell, sizes[cell.collection]) for cell in plan.cells}
    measured = [found.manifest.counts["stats"] for found in done.values() if found]
    flops = sum(stats["flops"] for stats in measured)
    busy = sum(stats["seconds"] - stats["load_seconds"] for stats in measured if stats["flops"])
    if flops and busy:
        rate, basis = flops / busy, f"{flops / busy / 1e9:,.0f} GFLOP/s, of cells that are done"
    else:
        matrix, share = _matrix_rate(), UTILISATION["cpu"]
        rate = matrix * share
        basis = f"assumed: {share:.0%} of {matrix / 1e9:,.0f} GFLOP/s, measured now"
    costs = []
    for cell in plan.cells:
        queries, tokens, each = work[cell.hash]
        seconds: float | None = 0.0
        if not done[cell.hash]:
            seconds = None if each is None else queries * each / rate
            if each == 0:
                seconds = queries / BASELINE_QUERIES_A_SECOND
        costs.append(CellCost(cell, done[cell.hash] is not None, queries, tokens, each, seconds))
    return PlanCost(costs, basis, len(plan_sharing(plan)), len(plan.trainings()))


@dataclass(frozen=True)
class _Size:
    queries: int
    words: float
    """Of a passage, in the mean."""


@cache
def _size_of(spec: str, run_date: Any) -> _Size:
    data = open_collection(spec).load(run_date)
    words = []
    for passage in data.passages:
        words.append(len(contents(passage.title, passage.text).split()))
        if len(words) == SAMPLED_PASSAGES:
            break
    return _Size(len(list(data.queries)), float(np.mean(words)) if words else 0.0)


def _size(spec: str, plan: ExperimentPlan) -> _Size:
    return _size_of(spec, plan.run_date)


def _work(plan: ExperimentPlan, cell: Cell, size: _Size) -> tuple[int, float, float | None]:
    """Queries, tokens a query and FLOPs a query."""
    options = NightOptions.parse(cell.options)
    queries = min(size.queries, options.query_limit or size.queries)
    if cell.arm not in CHECKPOINT_ARMS or cell.arm == LLM_OFF:
        return queries, 0.0, 0.0
    ranking = options.ranking
    if not ranking.reads_a_prompt:
        return queries, 0.0, 0.0
    summary = None
    if cell.training is None:
        from perank_tasks.perank.checkpoint_config import summarize_checkpoint

        summary = summarize_checkpoint(options.checkpoint, cache=Settings.from_environment().cache)
    is_released = summary is not None and summary.prompt == RELEASED_V1.name
    tokens = options.orders * _tokens(options.depth, ranking, is_released, size.words)
    if summary is None:
        return queries, tokens, None
    return queries, tokens, 2 * tokens * _parameters(options.checkpoint)


def _tokens(depth: int, ranking: RankingOptions, is_released: bool, words: float) -> float:
    """Tokens that the LLM reads and puts out for a query."""
    fixed, each = (
        (PROMPT_TOKENS, PROMPT_TOKENS_A_PASSAGE)
        if is_released
        else (COMPACT_TOKENS, COMPACT_TOKENS_A_PASSAGE)
    )
    text = words * TOKENS_A_WORD if ranking.passages != "embeddings" else 0.0
    total = 0.0
    for start, end, outputs in schedule(depth, ranking):
        size = end - start
        put_out = {
            "constrained": outputs - 1,
            "first-step": 0,
            "free": TOKENS_A_NUMBER * size,
        }[ranking.decoding]
        total += fixed + size * (each + text) + put_out
    return total


@cache
def _parameters(checkpoint: str) -> float:
    """Parameters that a token goes through: the LLM's without token embeddings and output."""
    from perank_tasks.models import resolve_model
    from perank_tasks.perank.checkpoint_config import open_checkpoint
    from perank_tasks.perank.checkpoint_files import read_json

    cache_folder = Settings.from_environment().cache
    found, config = open_checkpoint(checkpoint, cache=cache_folder, revision=None)
    llm = config
    if config.get("format") == "perank":
        base = found.folder / Path(config["base_model"])
        folder = (
            base
            if base.is_dir()
            else resolve_model(config["base_model"], cache=cache_folder).folder
        )
        llm = read_json(folder / "config.json") | {"num_hidden_layers": config["num_layers"]}
    hidden, inner = llm["hidden_size"], llm["intermediate_size"]
    heads = llm["num_attention_heads"]
    width = llm.get("head_dim") or hidden // heads
    keys = (llm.get("num_key_value_heads") or heads) * width
    layer = 2 * hidden * heads * width + 2 * hidden * keys + 3 * hidden * inner
    return float(llm["num_hidden_layers"] * layer)


@cache
def _matrix_rate() -> float:
    """FLOP/s of matrix products on this machine, now."""
    import torch
    from transformers import LlamaConfig

    from perank_tasks.bench.hardware import matrix_rate

    torch.set_num_threads(Settings.from_environment().threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = LlamaConfig(hidden_size=576, intermediate_size=1536)
    return matrix_rate(shape, device, torch.float32, repeats=2)
