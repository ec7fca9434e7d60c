"""Trainings that are kept: in, how to train; out, the artifact `trained/<stage>/<key>`.

Its key is that of what is trained: recipe, data, start. The same training is reused by whichever
run asks for it, be it a DAG or a cell of an experiment; one that was killed is resumed from its
last point, in a folder below the cache. The artifact holds

    model/     the checkpoint
    run/       curves.jsonl, curves.png, report.json

Neither the code nor the machine is in the key: results of a night are recomputed to notice either,
hours of training are not. Provenance says what they were; another seed trains again.
"""

import shutil
from collections.abc import Callable
from typing import Any

from perank_tasks.artifacts.store import Artifact, artifact_key
from perank_tasks.night.site import Site
from perank_tasks.training.recipe import StageRecipe
from perank_tasks.training.run_options import Training
from perank_tasks.training.training_folder import Run
from perank_tasks.warehouse import registry

FORMAT = 2
"""Raise it when the same recipe and data train something else."""

RUN = "run"


def keep_training(
    training: Training,
    site: Site,
    recipe: StageRecipe,
    train: Callable[[Run], dict[str, Any]],
    *,
    data: str,
    aligned: str | None = None,
    **content: Any,
) -> str:
    """Train, unless that was done, and return the artifact's reference.

    Args:
        recipe: of either stage.
        train: trains or resumes, and returns the report, whose `checkpoint` is the folder of the
            result.
        data: reference of what it is trained on.
        aligned: reference of what it begins with; None: the run's own start.
        content: what else the result depends on.
    """
    store, settings = site.store, site.settings
    stage = recipe.stage
    inputs = {"data": data} | ({"start": aligned} if aligned else {})
    start_hash = None if aligned else training.start_hash
    recipe_json = recipe.model_dump(mode="json")
    config = {"stage": stage, "recipe": recipe_json, "start": start_hash, **content}
    key = artifact_key(version=FORMAT, inputs=inputs, **config)
    artifact = store.artifact(registry.TRAINED, stage, key)
    if artifact.use():
        return artifact.reference
    out = settings.cache / "training" / f"{stage}-{key}"
    start = aligned or training.start
    report = train(
        Run(
            out,
            settings.cache,
            settings.threads,
            start=registry.local(start, store) if start else None,
            data={"reference": data},
        )
    )
    with store.draft(registry.TRAINED, stage) as draft:
        with draft.writing(registry.MODEL) as folder:
            shutil.copytree(report["checkpoint"], folder, dirs_exist_ok=True)
        with draft.writing(RUN) as folder:
            for file in (*out.glob("curves.*"), out / "report.json"):
                shutil.copy(file, folder)
        draft.publish(
            key=key,
            expected={},
            inputs=inputs,
            config=config,
            counts={"report": report | {"checkpoint": registry.MODEL}},
            provenance=training.fingerprint,
        )
    shutil.rmtree(out, ignore_errors=True)
    return artifact.reference


def report_of(artifact: Artifact) -> dict[str, Any]:
    """How a kept training went, as its stage reported it."""
    return dict(artifact.manifest.counts["report"])
