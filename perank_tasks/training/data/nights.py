"""Nights over the collections of a training: in, arms over one first stage; out, a `Night`."""

from datetime import date
from typing import Any

from perank_tasks.config import Night, NightOptions
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site

SERIES = "training"
"""What the results of these nights belong to: what they computed is reused on any date."""


def plan_arms(
    spec: str, day: date, site: Site, first_stage: dict[str, Any], arms: dict[str, dict[str, Any]]
) -> Night:
    """A night of these arms, all over one first stage.

    Raises:
        ConfigError, CollectionError: as `plan_night`.
    """
    file = ArmsFile.of(
        {"first-stage": "candidates", "first-stages": {"candidates": first_stage}, "arms": arms},
        "the training",
    )
    options = NightOptions.parse({"collection": spec, "run_date": day})
    return plan_night(options, day, site, arms=file, series=SERIES)
