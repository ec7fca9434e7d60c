"""Forms: option classes as the Params that Airflow's trigger form asks for.

In: pydantic options. Out: a Param for each field, with its type, range, default, description,
title and section, which a field names by `json_schema_extra={"section": "Data"}`.
"""

from typing import Any

from airflow.sdk import Param
from pydantic import BaseModel

from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.config import NightOptions, RetentionOptions


def night_params() -> dict[str, Param]:
    """The form of a night."""
    return params(NightOptions, AlertOptions)


def training_params() -> dict[str, Param]:
    """The form of a training run; data and stages are set by NAME=VALUE words."""
    from perank_tasks.training.run_options import TrainingOptions

    return params(TrainingOptions)


def experiment_params() -> dict[str, Param]:
    """The form of an experiment."""
    from perank_tasks.experiments.options import RunOptions

    return params(RunOptions)


def retention_params() -> dict[str, Param]:
    """The form of a clean-up."""
    about = "Remove; switched off, only list what would go."
    return {**params(RetentionOptions), "delete": Param(True, type="boolean", description=about)}


def params(*options: type[BaseModel]) -> dict[str, Param]:
    """The Params of option classes."""
    return {
        name: _param(schema)
        for options_class in options
        for name, schema in options_class.model_json_schema()["properties"].items()
    }


def _param(schema: dict[str, Any]) -> Param:
    schema = dict(schema)
    default, description = schema.pop("default"), " ".join(schema.pop("description").split())
    kinds = schema.pop("anyOf", None)
    if kinds:  # an option that may be left empty
        schema |= {key: value for kind in kinds for key, value in kind.items() if key != "type"}
        schema["type"] = ["null", *(k["type"] for k in kinds if k["type"] != "null")]
    return Param(default, description=description, **schema)
