"""Every exception the package raises on purpose.

Each message says what is wrong, where (file, line, column or key), what was expected
and found, and what to do next. `PerankError` is caught once, by the command line and by
the Airflow adapter; anything else that escapes is a bug.
"""


class PerankError(Exception):
    """Base of all errors that a user can cause or cure."""


class ConfigError(PerankError):
    """A setting, option or name is invalid; nothing was started."""


class CollectionError(PerankError):
    """Files of a collection, runs and qrels too, are missing, unreadable or contradictory."""


class ArtifactError(PerankError):
    """An artifact is missing, incomplete or not what its manifest says."""


class StorageError(PerankError):
    """The storage refused to read or write: full, read-only, gone. Worth a retry."""


class CheckpointError(PerankError):
    """A checkpoint's files do not make the model that its configuration promises."""


class EmbeddingError(PerankError):
    """Embeddings are missing, not finite, or of another width than the model expects."""


class TrainingError(PerankError):
    """Training cannot go on: its data, its loss or what an earlier run left is not usable."""


class ExperimentError(PerankError):
    """Cells of an experiment have no results. Those of the others are not touched by it."""


class RankerError(PerankError):
    """An arm's model, file or service is not there or does not work. Other arms are not touched."""


class MalformedError(RankerError):
    """A service answered something else than what was asked for."""


class DeviceMemoryError(PerankError):
    """Not even the smallest piece of work fits into the memory of the GPU or the machine, or a
    process that did one was killed, as is done where memory ends."""


class TrainingDataError(PerankError):
    """Training data cannot be made or read as asked; nothing was published."""


class QualityError(PerankError):
    """Results contradict themselves (a ranking that is no permutation, say)."""


class WarehouseError(PerankError):
    """The DuckDB file cannot be opened, is locked by another process, or is too old."""


class AlertError(PerankError):
    """An alert could not be delivered. The night's data and verdict are not touched by it."""
