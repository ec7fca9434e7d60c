"""`perank train run`, `ablation`, `crossvalidate`: whole runs, from collections to a decision."""

import inspect
import types
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from rich.console import Console
from rich.markup import escape

from perank_tasks.training.options import TrainingOptions, form, words_to_values

if TYPE_CHECKING:
    from perank_tasks.training.options import Training

out = Console()


def _settings_help() -> str:
    fields = "\n".join(
        f"    {name}: {schema['description']}"
        for name, schema in form().items()
        if name not in TrainingOptions.model_fields
    )
    return (
        "\n--set NAME=VALUE sets what belongs to the data and to either stage; NAME= empties it, "
        f"and semicolons stand between a list's items:\n\n{fields}"
    )


RUN_HELP = """Train from collections to a decision: what the DAG perank_train does.

Data, stage 1, stage 2, evaluation on the development collection beside the champion, registry, and
promotion if it is not worse. Stopped or killed, the same command goes on.

    perank train run --name mine --development 'files:/data/dev?relevance_level=2'
        --set data_collections=files:/data/dl21 --set data_judgements=true

    perank train run --preset tiny --no-align --set data_collections=pydocs
        --set data_queries=cloze --set rank_max_minutes=30 --development files:/data/dl21
"""

ABLATION_HELP = """Train a run with each part of its recipe switched, and compare.

Alignment, KL, texts in training, residual, query token: what the recipe has is left out, what it
lacks is put in. Prints a table with paired tests against the recipe as it is and of the LLM against
the residual alone; writes it as Markdown and JSON. Stopped, the same command goes on with the next
cell.

    perank train ablation --preset tiny --development files:/data/dl21
        --set data_collections=files:/data/manuals --set data_queries=cloze
        --set rank_text_weight=1 --set rank_kl_weight=0.2
"""

CROSSVALIDATE_HELP = """Measure what the LLM adds over a labelled collection, by cross-validation.

Trains on k - 1 folds of the queries of --development and measures the queries of the last, LLM on
and off, until each has been measured once; prints the paired test. Stopped, the same command goes
on with the next fold.

    perank train crossvalidate --development 'files:/data/dl21?relevance_level=2' --folds 5
"""

Folds = Annotated[int, typer.Option(min=2, help="Parts that the queries are cut into.")]
Parts = Annotated[
    str,
    typer.Option(
        help="Parts to switch, separated by commas: alignment, kl, text, residual, query-token."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="How often each cell is trained, by other seeds.")]
Folder = Annotated[
    Path | None, typer.Option("--out", help="Folder for results. Empty: in PERANK_HOME.")
]


def _run(values: dict[str, Any]) -> None:
    from perank_tasks.artifacts.store import Store
    from perank_tasks.settings import Settings
    from perank_tasks.training.pipeline import run_training

    training = _plan(values)
    done = run_training(training)
    promoted = done["promote"]
    _print(f"registered: {done['register']}")
    _print(f"in {Store(Settings.from_environment().root).root / done['register']}")
    _print(("promoted: " if promoted["promoted"] else "not promoted: ") + promoted["reason"])
    _print(f"champion as of {training.run_date}: {promoted['champion']}")
    _print(f"next: perank checkpoint show {done['register']}", "dim")


def _ablation(values: dict[str, Any], parts: str, seeds: int, out_folder: Path | None) -> None:
    from perank_tasks.settings import Settings
    from perank_tasks.training.ablation import as_markdown, run_ablation, write_table

    training = _plan(values)
    names = [part.strip() for part in parts.split(",") if part.strip()]
    found = run_ablation(training, names, seeds)
    _print(as_markdown(found))
    default = Settings.from_environment().benchmarks / f"ablation-{training.hash}"
    for path in write_table(found, out_folder or default):
        _print(f"written: {path}")


def _crossvalidate(values: dict[str, Any], folds: int, out_folder: Path | None) -> None:
    from perank_tasks.settings import Settings
    from perank_tasks.training.crossvalidation import cross_validate, write_result
    from perank_tasks.training.options import labelled

    values["set"] = values.get("set") or []
    if not any(word.startswith("data_collections") for word in values["set"]):
        spec = values["development"] or Settings.from_environment().collection
        values["set"] = [*values["set"], f"data_collections={spec}"]
    training = labelled(_plan(values))
    found = cross_validate(training, folds)
    _print(f"{found.collection}: {sum(found.folds)} queries in {len(found.folds)} folds")
    for line in found.lines():
        _print(line)
    default = Settings.from_environment().benchmarks / f"crossvalidation-{training.hash}"
    _print(f"written: {write_result(found, out_folder or default)}")


def _plan(values: dict[str, Any]) -> "Training":
    from perank_tasks.training.stages.plan import plan_training

    words = values.pop("set", None) or []
    given = {name: value for name, value in values.items() if value is not None}
    return plan_training({**given, **words_to_values(words)}, datetime.now(UTC).date())


def _with_training_options(
    command: Callable[..., None], *own: inspect.Parameter
) -> Callable[..., None]:
    """A command whose options are its own, then a run's, then `--set`."""

    def run(**values: Any) -> None:
        mine = {parameter.name: values.pop(parameter.name) for parameter in own}
        command(values, **mine)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = list(own)
    for name, field in TrainingOptions.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        option = typer.Option(
            f"{flag}/--no-{name}" if field.annotation is bool else flag,
            help=field.description,
            show_default=field.default is not None,
        )
        kind: Any = Annotated[_kind(field.annotation) | None, option]
        parameters.append(inspect.Parameter(name, keyword, default=field.default, annotation=kind))
    words: Any = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE; see above.")]
    parameters.append(inspect.Parameter("set", keyword, default=None, annotation=words))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _kind(annotation: Any) -> type:
    kinds = get_args(annotation) if get_origin(annotation) is types.UnionType else (annotation,)
    return next((kind for kind in kinds if kind in (bool, int, float)), str)


def _own(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _print(text: str, style: str | None = None) -> None:
    out.print(escape(text), style=style, highlight=False, soft_wrap=True)


run = _with_training_options(_run)
ablation = _with_training_options(
    _ablation,
    _own("parts", Parts, "alignment,kl,text,residual,query-token"),
    _own("seeds", Seeds, 1),
    _own("out_folder", Folder, None),
)
crossvalidate = _with_training_options(
    _crossvalidate, _own("folds", Folds, 5), _own("out_folder", Folder, None)
)
RUN_HELP += _settings_help()
ABLATION_HELP += "\nOptions as of perank train run, whose help explains --set.\n"
CROSSVALIDATE_HELP += "\nOptions as of perank train run, whose help explains --set.\n"
