"""Cost: is a night slower, hungrier or longer-winded than usual? Apart from quality.

In: one quantity of a night and of the nights since its baseline on the same device. Out:
a `CostFinding` with a word of its own: usual, slower, faster, costlier, cheaper, or
`first` where that device has too few earlier nights to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perank_tasks.regression.statistics import noise_band
from perank_tasks.regression.thresholds import DEFAULT, Thresholds

SPEED = "queries/s"
TOKENS = "tokens/query"
MEMORY = "peak memory"


@dataclass(frozen=True)
class CostFinding:
    """The word and the band that led to it, in the quantity's own unit. Its fields are columns of
    the table `cost_verdicts`."""

    verdict: str
    band_low: float | None
    band_high: float | None
    nights: int


def judge_cost(
    quantity: str,
    value: float,
    earlier: Sequence[tuple[float, str]],
    thresholds: Thresholds = DEFAULT,
) -> CostFinding:
    """Judge one quantity against the same device's earlier nights.

    Args:
        value: queries a second, tokens a query or bytes; above 0.
        earlier: (value, word) of the nights since the baseline, the baseline included; nights
            called anything but usual do not widen the band.

    The band is one of ratios: quartiles of the logarithm -/+ 3 IQR.
    """
    usual = [v for v, word in earlier if word in ("first", "usual") and v > 0]
    if len(usual) < thresholds.band_min_nights:
        return CostFinding("first", None, None, len(usual))
    floor, below, above = {
        SPEED: (thresholds.speed_floor, "slower", "faster"),
        TOKENS: (thresholds.tokens_floor, "cheaper", "costlier"),
        MEMORY: (thresholds.memory_floor, "cheaper", "costlier"),
    }[quantity]
    logs = noise_band(np.log(usual), float(np.log1p(floor)), thresholds)
    at = float(np.log(value))
    word = "usual" if logs.holds(at) else below if at < logs.low else above
    return CostFinding(word, float(np.exp(logs.low)), float(np.exp(logs.high)), len(usual))
