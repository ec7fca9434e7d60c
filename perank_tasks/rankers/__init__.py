"""Rankers: what kinds of thing an arm can be.

    interface       what a ranker is
    first_stage     `first-stage`: the order that all others are held against
    cosine          `cosine` and `fusion`: embeddings, without and with the first stage's score
    perank          `perank`: the paper's method, with its LLM on or off
    cross_encoder   `cross-encoder`: a model that reads query and passage together
    listwise_text   `listwise-text`: the uncompressed way, any LLM that reads the passages' texts
    service         `service`: an HTTP server that reranks
    run             `run`: a ranking made elsewhere
    installed       what other packages bring by the entry point `perank.rankers`

To add one here: a module with an options class and a ranker, and a line in `RANKERS`.
"""

from perank_tasks.rankers.cosine import CosineOptions, FusionOptions
from perank_tasks.rankers.cross_encoder import CrossEncoderOptions
from perank_tasks.rankers.first_stage import FirstStageOptions
from perank_tasks.rankers.installed import Rankers
from perank_tasks.rankers.listwise_text import ListwiseTextOptions
from perank_tasks.rankers.perank import PERankOptions
from perank_tasks.rankers.run import RunOptions
from perank_tasks.rankers.service import ServiceOptions

RANKERS = Rankers(
    {
        "first-stage": FirstStageOptions,
        "cosine": CosineOptions,
        "fusion": FusionOptions,
        "perank": PERankOptions,
        "cross-encoder": CrossEncoderOptions,
        "listwise-text": ListwiseTextOptions,
        "service": ServiceOptions,
        "run": RunOptions,
    }
)
"""What an arm's `ranker` may be, and what such an arm may set."""
