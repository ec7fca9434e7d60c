"""Whole training runs of seconds: random tiny models, two small collections of the same passages.

Candidates are all passages in a mixed order, so that an order by cosine is good and its reverse is
bad, whatever a random LLM adds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perank_tasks.warehouse import registry
from tests.perank.tiny import write_own
from tests.small import NIGHT, TOPICS, small_embedder, some_passages, write_collection


@dataclass(frozen=True)
class World:
    """What a run needs, on disk."""

    folder: Path
    embedder: str
    base: Path
    development: str
    training: str

    def values(self, **changes: Any) -> dict[str, Any]:
        """The options of a run of two steps a stage."""
        return {
            "name": "tiny",
            "run_date": NIGHT,
            "development": self.development,
            "first_stage": "given",
            "depth": 40,
            "stop_share": 0.3,
            "data_collections": [self.training],
            "data_teacher": "cosine",
            "data_hard": 4,
            "data_random": 2,
            "data_depth": 8,
            "data_min_words": 3,
            "align_base_model": str(self.base),
            "align_encoder": self.embedder,
            "align_max_steps": 2,
            "align_eval_steps": 1,
            "align_eval_examples": 8,
            "rank_num_layers": 2,
            "rank_max_steps": 2,
            "rank_eval_steps": 1,
            "rank_batch_size": 4,
            "rank_llm_scale": 1e-4,
            "rank_learning_rate": 1e-6,
            **changes,
        }

    def words(self, **changes: Any) -> list[str]:
        """The same, as a command line and a form take them."""
        lists = {k: ";".join(v) if isinstance(v, list) else v for k, v in self.values().items()}
        return [f"{name}={value}" for name, value in {**lists, **changes}.items()]

    def checkpoint(self, name: str, *, b: float) -> Path:
        """A checkpoint that ranks by b times the cosine, its LLM all but silent."""
        extra = {
            "projector.weight": torch.eye(32),
            "projector.bias": torch.zeros(32),
            "residual.t": torch.tensor(1e-6),
            "residual.b": torch.tensor(b),
        }
        return write_own(self.folder / name, extra=extra, encoder=self.embedder, embedding_size=32)

    def registered(self, name: str, *, b: float) -> str:
        """The same, in the registry."""
        return registry.register(
            registry.open_store(),
            name,
            self.checkpoint(name, b=b),
            tables={},
            folders={},
            card=None,
            inputs={},
            config={},
            counts={},
            provenance={},
        )


def make_world(folder: Path) -> World:
    passages = some_passages()
    # One of each topic after the other: the best are spread over the whole list.
    mixed = [passages[8 * topic + i]["_id"] for i in range(8) for topic in range(len(TOPICS))]
    specs = {}
    for name, starts in (("development", (0, 1, 2)), ("training", (4, 5, 6))):
        queries = {
            f"{name[0]}-{topic}-{first}": " ".join(text.split()[first : first + 5])
            for topic, text in TOPICS.items()
            for first in starts
        }
        specs[name] = write_collection(
            folder / name,
            queries=queries,
            qrels=[(q, f"{q.split('-')[1]}-{i}", 1) for q in queries for i in range(8)],
            run=[(q, p, 100.0 - rank) for q in queries for rank, p in enumerate(mixed)],
        )
    embedder = small_embedder(folder / "embedder")
    write_own(folder / "own", encoder=embedder, embedding_size=32)
    return World(folder, embedder, folder / "own-base", specs["development"], specs["training"])
