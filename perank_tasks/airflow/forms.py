"""Forms: option classes as the Params that Airflow's trigger form asks for.

In: pydantic options. Out: a Param for each field, with its type, range, default, description,
title and section. A field names its section by `json_schema_extra={"section": "Data"}`; one
without stands at the top of the form.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Param
from pydantic import BaseModel

from perank_tasks.airflow.conf import AlertOptions
from perank_tasks.config import NightOptions, RetentionOptions

SECTIONS = ("Data", "Arms", "Verdict", "Alerts", "Advanced")
"""Of a night's form, from its top to its bottom."""


def night_params() -> dict[str, Param]:
    """The form of a night."""
    return params(NightOptions, AlertOptions, sections=SECTIONS)


def training_params() -> dict[str, Param]:
    """The form of a training run: its own options, its data's, and both stages'."""
    from perank_tasks.training.run_options import form

    return params_of(form())


def experiment_params() -> dict[str, Param]:
    """The form of an experiment."""
    from perank_tasks.experiments.options import RunOptions

    return params(RunOptions)


def retention_params() -> dict[str, Param]:
    """The form of a clean-up."""
    about = "Remove; switched off, only list what would go."
    return {**params(RetentionOptions), "delete": Param(True, type="boolean", description=about)}


def params(*options: type[BaseModel], sections: Sequence[str] = ()) -> dict[str, Param]:
    """The Params of option classes.

    Args:
        sections: from the top of the form to its bottom; fields of other sections, and of none,
            stand before them.
    """
    schemas = {
        name: schema
        for options_class in options
        for name, schema in options_class.model_json_schema()["properties"].items()
    }
    return params_of(schemas, sections)


def params_of(
    schemas: Mapping[str, dict[str, Any]], sections: Sequence[str] = ()
) -> dict[str, Param]:
    """The Params of fields, given as {name: JSON schema}, as `params` groups them."""
    place = {section: number for number, section in enumerate(sections)}
    names = sorted(schemas, key=lambda name: place.get(schemas[name].get("section", ""), -1))
    return {name: _param(schemas[name]) for name in names}


def _param(schema: dict[str, Any]) -> Param:
    schema = dict(schema)
    default, description = schema.pop("default"), schema.pop("description")
    kinds = schema.pop("anyOf", None)
    if kinds:  # an option that may be left empty
        schema |= {key: value for kind in kinds for key, value in kind.items() if key != "type"}
        schema["type"] = ["null", *(k["type"] for k in kinds if k["type"] != "null")]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return Param(default, description=description, **schema)
