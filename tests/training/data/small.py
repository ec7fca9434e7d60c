"""Training data of small real collections, embedded by the golden checkpoint's own encoder."""

from typing import Any

from perank_tasks.artifacts.store import Store
from perank_tasks.settings import Settings
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.data.make import make_training_data
from perank_tasks.training.data.readers import RankingExamples
from tests.small import GOLDEN, NIGHT

EMBEDDER = f"checkpoint:{GOLDEN}"


def small_options(*specs: str, **options: Any) -> DataOptions:
    """Lists of 6 = 4 hard of the top 8 and 2 random."""
    values = {
        "collections": specs,
        "embedder": EMBEDDER,
        "as_of": NIGHT,
        "hard": 4,
        "random": 2,
        "depth": 8,
        **options,
    }
    if values.get("stage") == "alignment":
        values = {key: v for key, v in values.items() if key not in ("hard", "random", "depth")}
    return DataOptions.parse(values)


def the_store() -> Store:
    return Store(Settings.from_environment().root)


def small_lists(*specs: str, **options: Any) -> RankingExamples:
    return RankingExamples(the_store(), make_training_data(small_options(*specs, **options)))


def columns(examples: RankingExamples) -> list[dict[str, Any]]:
    """The rows of the table `lists` as a person would see them."""
    return examples.artifact.read("lists").to_pylist()
