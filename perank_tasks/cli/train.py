"""`perank train`: from a collection to a checkpoint, in three steps or in one run."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perank_tasks.cli import command_group, open_site, print_line, print_next, today
from perank_tasks.cli.options import described, description, takes_options
from perank_tasks.config import Options
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.recipe import AlignRecipe, RankRecipe
from perank_tasks.training.run_options import IMPLIED, PARTS, TrainingOptions
from perank_tasks.training.stage_options import StageOptions

app = command_group("Train a checkpoint: data, alignment, learning to rank.")

_WHOLE = ("data", "set")
_SET = "By --set NAME=VALUE (NAME= empties it; semicolons stand between a list's items):"


def _explains(fields: Mapping[str, str]) -> Callable[[Any], Any]:
    """A decorator that puts what `--set` may name below a command's help."""

    def decorate(command: Any) -> Any:
        help_text = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{_SET}\n\n"
        command.__doc__ = help_text + described(fields)
        return command

    return decorate


def _fields(kind: type[Options], prefix: str = "") -> dict[str, str]:
    fields = kind.model_fields.items()
    return {prefix + n: description(f) for n, f in fields if prefix + n not in IMPLIED}


@app.callback()
def _commands() -> None:
    """Train a checkpoint in three steps, each of which names the next:

    perank train data makes passages and ranked lists out of a collection; perank train align
    teaches the projector to speak the LLM's language; perank train rank teaches the LLM to rank.

    perank train run does all of it, evaluates what came out beside the champion, registers it and
    promotes it if it is not worse.
    """


@app.command("data")
@takes_options(DataOptions, whole=("terms",))
def data(options: DataOptions) -> dict[str, Any]:
    """Make training data: passages for stage 1, ranked lists for stage 2.

    Embeds and indexes the collections as a night does, reusing what is done; makes the lists in
    shards, so that the same command resumes after a kill; and prints the reference to train on.

    \b
    perank train data --stage alignment --collections files:/data/dl21

    \b
    perank train data --collections files:/data/dl21,files:/data/dl22
        --queries /data/msmarco-queries/queries.tsv --evaluation files:/data/dl19
        --drop-evaluation-queries     (teacher: cosine + 0.008*bm25)

    \b
    perank train data --collections files:/data/dl21 --judgements --lists-per-query 8

    \b
    perank train data --collections files:/data/manuals --queries cloze --judgements

    \b
    perank train data --reference-jsonl /data/listwise.jsonl
    """
    from perank_tasks.training.data import make, readers

    reference = make.make_training_data(options)
    artifact = open_site().store.open(reference)
    counts = artifact.manifest.counts
    print_line(reference, "bold")
    print_line(f"in {artifact.place}")
    for name, count in counts.items():
        print_line(f"  {name.replace('_', ' ')}: {count:,}")
    for source, note in readers.terms(artifact).items():
        print_line(f"  terms of {source}: {note}")
    stage = "align" if options.stage == "alignment" else "rank"
    print_next(f"perank train {stage} --data {reference}")
    return {"data": reference, "counts": counts}


@app.command("align")
@takes_options(StageOptions, whole=_WHOLE)
@_explains(_fields(AlignRecipe))
def align(options: StageOptions) -> dict[str, Any]:
    """Stage 1: teach a projector to say passages from their embeddings.

    LLM and embedder are frozen. The loss on passages that were held out is measured with their own
    embeddings and, as a control, with shuffled ones: the difference is what the projector conveys.
    Stopped or killed, the same command resumes and ends as if nothing had happened.

    \b
    perank train align --data training_data/dl21/0a1b… --out runs/aligned

    \b
    perank train align --data training_data/dl21/0a1b… --set max_minutes=20 --out runs/aligned

    \b
    accelerate launch -m perank_tasks.cli train align --data … --preset paper --out runs/aligned
    (several GPUs; not run by us)
    """
    from perank_tasks.training.by_hand import align_by_hand

    report = align_by_hand(options, open_site())
    _print_outcome(report, options.out)
    for name in ("before", "after"):
        measured = report[name]
        print_line(
            f"{name}: {measured['loss']:.3f} nats a token, {measured['control']:.3f} with shuffled "
            f"embeddings; difference {measured['gain']:.3f} ({measured['low']:.3f} to "
            f"{measured['high']:.3f}, 95% bootstrap over {measured['passages']} passages)"
        )
    print_next(f"perank train rank --data LISTS --start {report['checkpoint']} --out FOLDER")
    return report


@app.command("rank")
@takes_options(StageOptions, whole=_WHOLE)
@_explains(_fields(RankRecipe))
def rank(options: StageOptions) -> dict[str, Any]:
    """Stage 2: teach the LLM to put passages out, best first.

    ListMLE by teacher forcing over lists with golden rankings, with embeddings only and, where
    text_weight is not 0, with texts, too. Begins with --start, stage 1's checkpoint or any other,
    or with the recipe's base model. Stopped or killed, the same command resumes and ends as if
    nothing had happened.

    \b
    perank train rank --data training_data/dl21/0a1b… --start runs/aligned/checkpoint --out runs/a

    \b
    perank train rank --data training_data/dl21/0a1b… --data training_data/dl22/2c3d…
        --set max_minutes=60 --set step_weights=discount --out runs/b

    \b
    accelerate launch -m perank_tasks.cli train rank --data … --preset paper --out runs/c
    (several GPUs; not run by us)
    """
    from perank_tasks.training.by_hand import rank_by_hand

    report = rank_by_hand(options, open_site())
    _print_outcome(report, options.out)
    measures = ", ".join(f"{k.removeprefix('dev_')} {v:.4f}" for k, v in report["measures"].items())
    if measures:
        print_line(f"development, step {report['kept_step']}: {measures}")
    print_next(f"perank nightly --set perank.checkpoint={report['checkpoint']}")
    return report


@app.command("run")
@takes_options(TrainingOptions, whole=_WHOLE)
@_explains({n: d for part in PARTS for n, d in _fields(PARTS[part], f"{part}_").items()})
def run(options: TrainingOptions) -> dict[str, Any]:
    """Train from collections to a decision: what the DAG perank_train does.

    Data, stage 1, stage 2, evaluation on the development collection beside the champion, registry,
    and promotion if it is not worse. Stopped or killed, the same command resumes.

    \b
    perank train run --name mine --development 'files:/data/dev?relevance_level=2'
        --set data_collections=files:/data/dl21 --set data_judgements=true

    \b
    perank train run --preset tiny --no-align --set data_collections=pydocs
        --set data_queries=cloze --set rank_max_minutes=30 --development files:/data/dl21
    """
    from perank_tasks.training.run_training import run_training
    from perank_tasks.training.stages.plan_run import plan_training

    site = open_site()
    training = plan_training(options.model_dump(exclude_unset=True), today(), site)
    results = run_training(training, site)
    registered, promoted = results["register"], results["promote"]
    print_line(f"registered: {registered}")
    print_line(f"in {site.store.root / registered}")
    print_line(("promoted: " if promoted["promoted"] else "not promoted: ") + promoted["reason"])
    print_line(f"champion as of {training.run_date}: {promoted['champion']}")
    print_next(f"perank checkpoint show {registered}")
    return {"registered": registered, **promoted}


def _print_outcome(report: dict[str, Any], folder: Path) -> None:
    print_line(
        f"{report['steps']} of {report['planned']} steps in {report['seconds'] / 60:.1f} minutes, "
        f"ended by {report['stopped']}; kept step {report['kept_step']}"
    )
    print_line(f"checkpoint: {report['checkpoint']}")
    print_line(f"curves: {folder / 'curves.jsonl'}, curves.png")
