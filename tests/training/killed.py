"""A training that kills itself: `python -m tests.training.killed OUT START WHEN`.

WHEN is `never`, `example N` (when the N-th example is read) or `save N` (in the middle of the
N-th file that torch writes). The process ends by SIGKILL, as where memory ran out.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from perank_tasks.training.examples import RankingExample
from perank_tasks.training.ranking import learn_to_rank
from perank_tasks.training.recipe import RankRecipe
from perank_tasks.training.training_folder import Run
from tests.training.examples import some_lists

RECIPE = RankRecipe.parse(
    RankRecipe.preset("tiny").model_dump()
    | {
        "max_steps": 24,
        "batch_size": 4,
        "eval_steps": 4,
        "learning_rate": 1e-3,
        "num_layers": None,
        "trained_llm": "full",
        "storage": "float32",
        "seed": 3,
    }
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Sequence[RankingExample]):
    """Lists, of which the N-th that is read is the last."""

    def __init__(self, lists: list[RankingExample], at: int | None) -> None:
        self._lists, self._left = lists, at

    def __len__(self) -> int:
        return len(self._lists)

    def __getitem__(self, place: Any) -> Any:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                die()
        return self._lists[place]


def main(out: Path, start: Path, when: str) -> None:
    kind, _, number = when.partition(" ")
    if kind == "save":
        save, left = torch.save, [int(number)]

        def deadly(value: Any, path: Any, *rest: Any, **options: Any) -> None:
            save(value, path, *rest, **options)
            left[0] -= 1
            if left[0] == 0:
                with Path(path).open("r+b") as file:
                    file.truncate(100)
                die()

        torch.save = deadly
    lists = some_lists(30, sizes=(6, 5))
    learn_to_rank(
        RECIPE,
        Deadly(lists, int(number) if kind == "example" else None),
        some_lists(6, seed=5),
        Run(out, out.parent / "cache", 1, start=start),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
