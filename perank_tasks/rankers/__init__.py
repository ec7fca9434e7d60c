"""Rankers: what kinds of thing an arm can be.

    interface     what a ranker is
    first_stage   `first-stage`: the order that all others are held against
    cosine        `cosine` and `fusion`: embeddings, without and with the first stage's score
    perank        `perank`: the paper's method, with its LLM on or off

To add one: a module with an options class and a ranker, and a line in `RANKERS`.
"""

from perank_tasks.rankers.cosine import CosineOptions, FusionOptions
from perank_tasks.rankers.first_stage import FirstStageOptions
from perank_tasks.rankers.interface import RankerOptions
from perank_tasks.rankers.perank import PERankOptions

RANKERS: dict[str, type[RankerOptions]] = {
    "first-stage": FirstStageOptions,
    "cosine": CosineOptions,
    "fusion": FusionOptions,
    "perank": PERankOptions,
}
"""What an arm's `ranker` may be, and what such an arm may set."""
