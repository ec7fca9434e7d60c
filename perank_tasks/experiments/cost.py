"""Cost: in, a plan; out, what each of its cells is expected to take, before any is computed.

Tokens follow from the windows' schedule and the lengths of the prompts' texts; a FLOP is a
multiplication or an addition, two for each of the model's parameters that a token goes through, and
six where it is trained; the vocabulary's are left out. Seconds are those over a rate: of this
experiment's cells that are done on this machine, or else an assumed share of the matrix rate that
is measured here and now. Free generation, token by token, takes several times as long as that.
Indexes, and what training data takes, are left out.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.cli.planning import PROMPT_TOKENS, PROMPT_TOKENS_A_PASSAGE, UTILISATION
from perank_tasks.config import CHECKPOINT_ARMS, LLM_OFF, NightOptions
from perank_tasks.errors import PerankError
from perank_tasks.experiments.cells import embedder_of, find_cell, plan_sharing, snapshot_of
from perank_tasks.experiments.plan import Cell, ExperimentPlan
from perank_tasks.models.find import resolve_model
from perank_tasks.models.variants import ModelVariant
from perank_tasks.perank.checkpoint_files import read_json
from perank_tasks.perank.embedders import CHECKPOINT_PREFIX, identify
from perank_tasks.perank.options import RankingOptions
from perank_tasks.perank.prompt import RELEASED_V1
from perank_tasks.perank.windows import schedule
from perank_tasks.settings import Settings
from perank_tasks.support.text import contents
from perank_tasks.training.recipe import StageRecipe
from perank_tasks.training.stages.plan_run import plan_training
from perank_tasks.warehouse.registry import local, open_store

log = logging.getLogger(__name__)

COMPACT_TOKENS, COMPACT_TOKENS_A_PASSAGE = 60.0, 1.0
"""Of the compact prompt with its query, by SmolLM2's tokenizer: 80 for 20 passages."""

COMPACT_SHARED_TOKENS = 25.0
"""Of them, those that all prompts begin with, and that the engine reads once."""

TOKENS_A_NUMBER = 5.0
"""Of an answer in numbers, `[12] > `, and of each passage's number in its prompt."""

TOKENS_A_WORD = 1.5
"""Of passages' texts, by SmolLM2's tokenizer, roughly."""

SAMPLED_PASSAGES = 50_000

BASELINE_QUERIES_A_SECOND = 500.0
"""Of arms without an LLM, roughly."""


@dataclass(frozen=True)
class CellCost:
    """What one cell takes."""

    cell: Cell
    is_done: bool
    queries: int
    tokens: float
    """A query."""
    flops: float
    """A query."""
    seconds: float
    """Of ranking; 0 where it is done."""


@dataclass(frozen=True)
class PlanCost:
    """What a plan takes."""

    cells: list[CellCost]
    basis: str
    """What the seconds rest on."""
    candidate_lists: int
    """Lists of candidates and embeddings that cells share."""
    trainings: int
    embedding_seconds: float
    """Of the passages and queries that were not embedded yet."""
    training_seconds: float | None
    """Of the trainings that cells that are not done need; None: some end by themselves."""

    @property
    def ranking_seconds(self) -> float:
        """Of all cells that are not done."""
        return sum(cost.seconds for cost in self.cells)


def estimate(plan: ExperimentPlan) -> PlanCost:
    """Say what is done and what the rest takes; computes nothing but snapshots."""
    done = {cell.hash: find_cell(plan, cell) for cell in plan.cells}
    one_of_each = {cell.collection: cell for cell in plan.cells}
    sizes = {spec: _size(plan, cell) for spec, cell in one_of_each.items()}
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
        seconds = queries * each / rate if each else queries / BASELINE_QUERIES_A_SECOND
        is_done = done[cell.hash] is not None
        costs.append(CellCost(cell, is_done, queries, tokens, each, 0.0 if is_done else seconds))
    to_do = [cost.cell for cost in costs if not cost.is_done]
    trained = {cell.training_hash: cell for cell in to_do if cell.training}
    trainings = [_training_flops(plan, cell, sizes[cell.collection]) for cell in trained.values()]
    return PlanCost(
        costs,
        basis,
        len(plan_sharing(plan)),
        len(plan.trainings()),
        _embedding_flops(plan, to_do, sizes) / rate,
        None if None in trainings else sum(each or 0 for each in trainings) / rate,
    )


@dataclass(frozen=True)
class _Size:
    passages: int
    queries: int
    words: float
    """Of a passage, in the mean."""


def _size(plan: ExperimentPlan, cell: Cell) -> _Size:
    snapshot = Store(Settings.from_environment().root).open(snapshot_of(plan, cell))
    words: list[int] = []
    for batch in snapshot.batches("passages", ["title", "text"]):
        pairs = zip(batch["title"].to_pylist(), batch["text"].to_pylist(), strict=True)
        words += [len(contents(title, text).split()) for title, text in pairs]
        if len(words) >= SAMPLED_PASSAGES:
            break
    counts = snapshot.manifest.counts
    mean = float(np.mean(words)) if words else 0.0
    return _Size(counts["passages"], counts["queries"], mean)


def _work(plan: ExperimentPlan, cell: Cell, size: _Size) -> tuple[int, float, float]:
    """Queries, tokens a query and FLOPs a query."""
    options = NightOptions.parse(cell.options)
    queries = min(size.queries, options.query_limit or size.queries)
    ranking = options.ranking
    if cell.arm not in CHECKPOINT_ARMS or cell.arm == LLM_OFF or not ranking.reads_a_prompt:
        return queries, 0.0, 0.0
    if cell.training is not None:
        recipe = plan_training(cell.training, plan.run_date).rank
        is_released, llm = recipe.prompt == RELEASED_V1.name, _llm_of(recipe)
    else:
        try:
            is_released, llm = _checkpoint(options.checkpoint)
        except PerankError:  # the cell will say so
            return queries, 0.0, 0.0
    tokens, flops = _reading(options.depth, ranking, is_released, size.words, llm)
    return queries, options.orders * tokens, options.orders * flops


@dataclass(frozen=True)
class _Model:
    """What a token meets."""

    parameters: float
    """All but token embeddings and the head."""
    attention: float
    """Values of all heads of all layers, that each earlier token is looked at by."""


def _reading(
    depth: int, ranking: RankingOptions, is_released: bool, words: float, llm: _Model
) -> tuple[float, float]:
    """Tokens that the LLM reads and puts out for a query, and their FLOPs."""
    fixed, each, shared = (
        (PROMPT_TOKENS, PROMPT_TOKENS_A_PASSAGE, 0.0)
        if is_released
        else (COMPACT_TOKENS, COMPACT_TOKENS_A_PASSAGE, COMPACT_SHARED_TOKENS)
    )
    if ranking.passages != "embeddings":
        each += words * TOKENS_A_WORD
    if ranking.decoding == "free":
        each += TOKENS_A_NUMBER
    tokens = flops = 0.0
    for start, end, outputs in schedule(depth, ranking):
        size = end - start
        put_out = {
            "constrained": outputs - 1,
            "first-step": 0,
            "free": TOKENS_A_NUMBER * size,
        }[ranking.decoding]
        window = fixed + size * each + put_out
        tokens += window
        # Every token looks at all before it: half of the square, two products, two FLOPs each.
        flops += 2 * llm.parameters * (window - shared) + 2 * llm.attention * window**2
    return tokens, flops


def _model(config: dict[str, Any], layers: int | None = None) -> _Model:
    """Of a transformer, by its config.json; `layers`: of its first ones."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    keys = (config.get("num_key_value_heads") or heads) * width
    # SiLU stands in gated MLPs, of three matrices; those of BERT have two.
    matrices = 3 if config.get("hidden_act") == "silu" else 2
    layer = 2 * hidden * heads * width + 2 * hidden * keys + matrices * hidden * inner
    count = layers or config["num_hidden_layers"]
    return _Model(float(count * layer), float(count * heads * width))


@cache
def _checkpoint(name: str) -> tuple[bool, _Model]:
    """Whether a checkpoint has the released prompt, and its LLM."""
    from perank_tasks.perank.checkpoint_config import open_checkpoint, summarize_checkpoint

    cache_folder = Settings.from_environment().cache
    name = local(name, open_store())
    is_released = summarize_checkpoint(name, cache=cache_folder).prompt == RELEASED_V1.name
    found, config = open_checkpoint(name, cache=cache_folder, revision=None)
    if config.get("format") != "perank":
        return is_released, _model(config)
    base = found.folder / Path(config["base_model"])
    model = str(base) if base.is_dir() else config["base_model"]
    return is_released, _model(_model_config(model), config["num_layers"])


def _llm_of(recipe: StageRecipe) -> _Model:
    return _model(_model_config(recipe.base_model), recipe.num_layers)


@cache
def _model_config(name: str) -> dict[str, Any]:
    folder = resolve_model(name, cache=Settings.from_environment().cache).folder
    return read_json(folder / "config.json")


def _embedding_flops(plan: ExperimentPlan, cells: list[Cell], sizes: dict[str, _Size]) -> float:
    """Of all that the cells' embedders have not embedded yet."""
    settings = Settings.from_environment()
    store = Store(settings.root)
    flops: dict[tuple[str, str], float] = {}
    for cell in cells:
        try:
            embedder = embedder_of(plan, cell)
            if embedder is None or (cell.collection, embedder) in flops:
                continue
            config = {
                "embedder": identify(local(embedder, store), settings) | {"name": embedder},
                "precision": cell.options["embedding_precision"],
            }
            parameters = _encoder(embedder)
        except PerankError:  # the cell will say so
            continue
        is_there = any(
            found.manifest.config == config
            and found.manifest.inputs["snapshot"] == snapshot_of(plan, cell)
            for found in store.published("embeddings", cell.collection_name)
        )
        size = sizes[cell.collection]
        tokens = (size.passages + size.queries) * size.words * TOKENS_A_WORD
        flops[cell.collection, embedder] = 0.0 if is_there else 2 * tokens * parameters
    return sum(flops.values())


def _encoder(embedder: str) -> float:
    """Parameters that a token goes through."""
    if embedder.startswith(CHECKPOINT_PREFIX):
        from perank_tasks.perank.checkpoint_config import summarize_checkpoint

        name = local(embedder, open_store()).removeprefix(CHECKPOINT_PREFIX)
        encoder = summarize_checkpoint(name, cache=Settings.from_environment().cache).encoder
        embedder = str(encoder.folder or encoder.name)
    variant = ModelVariant.parse(embedder)
    config = _model_config(variant.base if variant else embedder)
    return _model(config, variant.layers if variant else None).parameters


def _training_flops(plan: ExperimentPlan, cell: Cell, size: _Size) -> float | None:
    """Of both stages; None where a stage has no number of steps."""
    training = plan_training(cell.training or {}, plan.run_date)
    rank, data = training.rank, training.ranking_data
    passages = data.hard + data.random
    tokens = COMPACT_TOKENS + (1 + COMPACT_TOKENS_A_PASSAGE) * passages
    if rank.has_text_branch:
        tokens += min(rank.max_tokens, tokens + passages * size.words * TOKENS_A_WORD)
    stages: list[tuple[StageRecipe, float]] = [(rank, tokens)]
    if training.options.align:
        align = training.align
        stages.append((align, min(align.max_tokens, size.words * TOKENS_A_WORD)))
    flops = 0.0
    for recipe, each in stages:
        if recipe.max_steps is None:
            return None
        examples = recipe.max_steps * recipe.batch_size
        flops += 6 * examples * each * _llm_of(recipe).parameters
    return flops


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
