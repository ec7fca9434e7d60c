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
from pathlib import Path
from typing import Any

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.settings import Settings
from perank_tasks.training.recipe import StageRecipe
from perank_tasks.training.training_folder import Run
from perank_tasks.warehouse.registry import MODEL, TRAINED, local

FORMAT = 2
"""Raise it when the same recipe and data train something else."""

RUN = "run"
_FILES = ("curves.jsonl", "curves.png", "report.json")


def keep_training(
    store: Store,
    recipe: StageRecipe,
    train: Callable[[Path], dict[str, Any]],
    *,
    inputs: dict[str, str],
    content: dict[str, Any],
    provenance: dict[str, str],
) -> str:
    """Train, unless that was done, and return the artifact's reference.

    Args:
        recipe: of either stage.
        train: given a folder, trains into it or resumes there, and returns the report, whose
            `checkpoint` is the folder of the result.
        inputs: references of what it is trained on and begins with.
        content: what else the result depends on.
        provenance: of this process.
    """
    stage = recipe.stage
    config = {"stage": stage, "recipe": recipe.model_dump(mode="json"), **content}
    key = artifact_key(version=FORMAT, inputs=inputs, **config)
    artifact = store.artifact(TRAINED, stage, key)
    if artifact.use():
        return artifact.reference
    out = Settings.from_environment().cache / "training" / f"{stage}-{key}"
    report = train(out)
    with store.draft(TRAINED, stage) as draft:
        with draft.writing(MODEL) as folder:
            shutil.copytree(report["checkpoint"], folder, dirs_exist_ok=True)
        with draft.writing(RUN) as folder:
            for name in _FILES:
                if (out / name).is_file():
                    shutil.copy(out / name, folder / name)
        draft.publish(
            key=key,
            expected={},
            inputs=inputs,
            config=config,
            counts={"report": report | {"checkpoint": MODEL}},
            provenance=provenance,
        )
    shutil.rmtree(out, ignore_errors=True)
    return artifact.reference


def run_in(folder: Path, store: Store, *, start: str | None, reference: str) -> Run:
    """A training in a folder, from a checkpoint by name and data by reference."""
    settings = Settings.from_environment()
    return Run(
        folder,
        settings.cache,
        settings.threads,
        start=local(start, store) if start else None,
        data={"reference": reference},
    )


def report_of(artifact: Artifact) -> dict[str, Any]:
    """How a kept training went, as its stage reported it."""
    return dict(artifact.manifest.counts["report"])
