"""Data: the training data of both stages, as `perank train data` makes it.

In: the run's collections, queries and teacher. Out: two artifacts `training_data/<name>/<key>`, or
one where the run leaves stage 1 out.
"""

from perank_tasks.training.data.make import make_training_data
from perank_tasks.training.run_options import Training


def make_data(training: Training) -> dict[str, str]:
    """Make the data, unless it is there; returns the references by stage.

    Raises:
        ConfigError, CollectionError: a collection, a model or a file is not there.
        TrainingDataError: a query of an evaluation collection, or too little of something.
    """
    data = {"ranking": make_training_data(training.ranking_data)}
    if training.alignment_data:
        data["alignment"] = make_training_data(training.alignment_data)
    return data
