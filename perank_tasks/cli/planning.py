"""What a night will take: in, a corpus, queries, a model and devices; out, each stage's bytes,
tokens, FLOPs and seconds, and what the figure rests on.

Stages without a model are scaled from rates that `perank bench pipeline` measured: in proportion
to passages, to queries × candidates, or to both. Stages with a model are tokens × FLOPs a token
over what the devices do: of the machine that was measured, its measured embedding and its measured
matrix rate; of a GPU, the maker's peak and a share of it that is assumed. A FLOP is a
multiplication or an addition; attention's own, below a hundredth of it for these lengths, is left
out.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perank_tasks.errors import ConfigError

# Parameters outside the embedding and output matrices: what a token goes through. SmolLM2-135M and
# MiniLM-L6 by count; Mistral-7B: 32 layers of 4096 × (2 × 4096 + 2 × 1024 + 3 × 14336).
KNOWN_MODELS = {"smollm2-135m": 106.2e6, "minilm-l6": 10.65e6, "mistral-7b": 6.979e9}

UTILISATION = {"prefill": 0.4, "encode": 0.3, "bandwidth": 0.6, "cpu": 0.6}
"""Assumed shares of a device's peak: of its FLOP/s while prompts are read and texts are encoded, of
its memory's bandwidth while tokens are put out; of the measured matrix rate on a CPU."""

MEASURED_STAGES = ("snapshot", "embed", "index", "retrieve", "join", "evaluate", "load")
"""Stages whose seconds and bytes `perank bench pipeline` measures; reranking is computed."""

QUERIES_AT_ONCE = 64
"""Queries that the engine ranks together."""

PROMPT_TOKENS = 127.0
PROMPT_TOKENS_A_PASSAGE = 10.0
"""Of the released prompt with its query, by SmolLM2's tokenizer: 327 for 20 passages."""


@dataclass(frozen=True)
class Device:
    """Dense half-precision FLOP/s and bytes/s of memory, from the maker's data sheet."""

    flops: float
    bandwidth: float


# NVIDIA's data sheets; H100 and H200 SXM, A100 80 GB SXM. Without sparsity.
DEVICES = {
    "h200": Device(989e12, 4.8e12),
    "h100": Device(989e12, 3.35e12),
    "a100": Device(312e12, 2.039e12),
    "l4": Device(121e12, 0.3e12),
    "t4": Device(65e12, 0.32e12),
}

CPU = "cpu"
"""The machine that the rates were measured on."""


@dataclass(frozen=True)
class Work:
    """What there is to do; `ConfigError` where a number, a model or a device makes no sense."""

    passages: float
    queries: float
    model: str = "smollm2-135m"
    embedder: str = "minilm-l6"
    devices: str = CPU
    depth: int = 100
    window: int = 20
    step: int = 10
    passage_tokens: float | None = None
    """None: as in the corpus that was measured."""

    def __post_init__(self) -> None:
        for name in ("passages", "queries", "depth", "window", "step"):
            if not 1 <= getattr(self, name) < 1e15:
                raise ConfigError(
                    f"--{name} is {getattr(self, name):g}; expected 1 or more, below 1e15"
                )
        if self.step > self.window:
            raise ConfigError(
                f"--step is {self.step} and --window {self.window}: passages between two windows "
                "would never be ranked"
            )
        for model in (self.model, self.embedder):
            parameters(model)
        parse_devices(self.devices)
        if self.passage_tokens is not None and not 0 < self.passage_tokens < 1e15:
            raise ConfigError(
                f"--passage-tokens is {self.passage_tokens:g}; expected more than 0, below 1e15"
            )


@dataclass(frozen=True)
class StagePlan:
    """One stage: `basis` says where the seconds come from; measured ones end in `measured`."""

    stage: str
    device: str
    bytes: float
    tokens: float
    flops: float
    seconds: float
    basis: str


def read_rates(path: Path) -> dict[str, Any]:
    """The rates that `perank bench pipeline` wrote.

    Raises:
        ConfigError: the file is missing, lacks a figure, or is none of those.
    """
    try:
        rates: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in ("passages", "queries", "tokens_a_passage", "matrix_flops"):
            if not 0 < rates[name] < math.inf:
                raise ValueError(f"{name} is {rates[name]!r}")
        for stage in MEASURED_STAGES:
            for figure in ("seconds", "bytes"):
                if not 0 <= rates[figure][stage] < math.inf:
                    raise ValueError(f"{figure} of {stage} are {rates[figure][stage]!r}")
        machine = rates["machine"]
        _ = machine["processor"], machine["threads"], machine["code"]
        _ = rates["measured_at"][:10], machine["load_average"][0]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no rates ({error!r}); `perank bench pipeline` writes rates.json into "
            "its folder once a corpus has gone through every stage"
        ) from error
    return rates


def plan(work: Work, rates: dict[str, Any]) -> list[StagePlan]:
    """Every stage of a night in which every passage is new."""
    count, device = parse_devices(work.devices)
    by_passage = work.passages / rates["passages"]
    by_query = work.queries / rates["queries"] * work.depth / 100
    scale = {
        "snapshot": by_passage,
        "index": by_passage,
        "retrieve": by_passage * work.queries / rates["queries"],
        # Row groups with candidates are read: of a large corpus, nearly all for many queries.
        "join": max(by_passage, by_query),
        "evaluate": max(by_passage, by_query),
        "load": by_query,
    }
    size = {**scale, "retrieve": by_query, "join": by_query, "evaluate": by_query}
    stages = {
        stage: StagePlan(
            stage,
            "1 process",
            rates["bytes"][stage] * size[stage],
            0,
            0,
            rates["seconds"][stage] * scale[stage],
            "measured",
        )
        for stage in scale
    }
    stages["embed"] = _embed(work, rates, count, device)
    stages["rerank"] = _rerank(work, rates, count, device)
    order = ("snapshot", "embed", "index", "retrieve", "join", "rerank", "evaluate", "load")
    return [stages[stage] for stage in order]


def critical_path(stages: Iterable[StagePlan]) -> float:
    """Seconds of the night: indexing goes on beside embedding."""
    seconds = {stage.stage: stage.seconds for stage in stages}
    side = seconds.pop("index")
    return sum(seconds.values()) - seconds["embed"] + max(seconds["embed"], side)


def parameters(model: str) -> float:
    """Parameters that a token goes through: of a known model, or a number such as 7b or 135m.

    Raises:
        ConfigError: it is neither.
    """
    if model in KNOWN_MODELS:
        return KNOWN_MODELS[model]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mb])", model.lower())
    if not match or not 0 < float(match[1]) < 1e9:
        raise ConfigError(
            f"{model!r} is no model's size; expected {', '.join(KNOWN_MODELS)}, or a number of "
            "parameters such as 135m or 7b"
        )
    return float(match[1]) * {"m": 1e6, "b": 1e9}[match[2]]


def parse_devices(text: str) -> tuple[int, str]:
    """How many and which, of `4xh100` or `cpu`.

    Raises:
        ConfigError: the device is unknown.
    """
    match = re.fullmatch(r"(?:([1-9]\d{0,5})x)?(\w+)", text.lower())
    if not match or match[2] not in (*DEVICES, CPU):
        raise ConfigError(
            f"--devices is {text!r}; expected one of {', '.join((*DEVICES, CPU))}, or several as "
            "in 4xh100"
        )
    return int(match[1] or 1), match[2]


def windows(work: Work) -> int:
    """Windows of one query, as the sliding window goes over its candidates once."""
    rest = max(0, work.depth - work.window)
    return 1 + -(-rest // work.step)


def _embed(work: Work, rates: dict[str, Any], count: int, device: str) -> StagePlan:
    tokens_a_passage = work.passage_tokens or rates["tokens_a_passage"]
    tokens = work.passages * tokens_a_passage
    flops = 2 * parameters(work.embedder) * tokens
    size = rates["bytes"]["embed"] * work.passages / rates["passages"]
    if device == CPU:
        measured = rates["seconds"]["embed"] * work.passages / rates["passages"]
        longer = tokens_a_passage / rates["tokens_a_passage"]
        larger = parameters(work.embedder) / parameters("minilm-l6")
        basis = "measured" if longer == larger == 1 else "measured, in proportion to FLOPs"
        seconds = measured * longer * larger / count
    else:
        share = UTILISATION["encode"]
        seconds = flops / (count * DEVICES[device].flops * share)
        basis = f"assumed: {share:.0%} of {DEVICES[device].flops / 1e12:,.0f} TFLOP/s"
    return StagePlan("embed", f"{count} × {device}", size, tokens, flops, seconds, basis)


def _rerank(work: Work, rates: dict[str, Any], count: int, device: str) -> StagePlan:
    size = min(work.window, work.depth)
    each = windows(work)
    read = each * (PROMPT_TOKENS + PROMPT_TOKENS_A_PASSAGE * size)
    put_out = each * size
    weights = parameters(work.model)
    tokens = work.queries * (read + put_out)
    flops = 2 * weights * tokens
    if device == CPU:
        share = UTILISATION["cpu"]
        seconds = flops / (count * rates["matrix_flops"] * share)
        basis = f"assumed: {share:.0%} of {rates['matrix_flops'] / 1e9:,.0f} GFLOP/s, measured"
    else:
        peak, share = DEVICES[device], UTILISATION["prefill"]
        reading = 2 * weights * work.queries * read / (peak.flops * share)
        # One step puts out one token of every query in the batch and reads all weights, 2 bytes
        # each.
        steps = -(-work.queries // QUERIES_AT_ONCE) * put_out
        moved = steps * 2 * weights / (peak.bandwidth * UTILISATION["bandwidth"])
        computed = 2 * weights * work.queries * put_out / (peak.flops * share)
        seconds = (reading + max(moved, computed)) / count
        basis = (
            f"assumed: {share:.0%} of {peak.flops / 1e12:,.0f} TFLOP/s, "
            f"{UTILISATION['bandwidth']:.0%} of {peak.bandwidth / 1e12:g} TB/s"
        )
    written = rates["bytes"]["join"] * work.queries / rates["queries"] * work.depth / 100
    return StagePlan("rerank", f"{count} × {device}", written, tokens, flops, seconds, basis)
