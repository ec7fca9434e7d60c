"""`perank train`: from a collection to a checkpoint, in three steps or in one run."""

import inspect
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from perank_tasks.cli import command_group, open_site, print_line, print_next, today
from perank_tasks.cli.options import described, description, takes_options
from perank_tasks.training.data.data_options import DataOptions
from perank_tasks.training.recipe import AlignRecipe, RankRecipe, StageRecipe
from perank_tasks.training.run_options import TrainingOptions, form, words_to_values
from perank_tasks.training.stage_options import StageOptions

app = command_group("Train a checkpoint: data, alignment, learning to rank.")

Show = Annotated[int, typer.Option(min=0, help="Print so many examples.")]
Words = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE; see above.")]


_WHOLE = ("data", "development", "set")


def _explains(introduction: str, fields: Mapping[str, str]) -> Callable[[Any], Any]:
    """A decorator that puts what `--set` may name below a command's help."""

    def decorate(command: Any) -> Any:
        help_text = f"{inspect.cleandoc(command.__doc__)}\n\n{introduction}\n\n"
        command.__doc__ = help_text + described(fields)
        return command

    return decorate


def _explains_recipe(kind: type[StageRecipe]) -> Callable[[Any], Any]:
    return _explains(
        "The recipe, by --set NAME=VALUE (NAME= empties it) or a TOML file with --recipe:",
        {name: description(field) for name, field in kind.model_fields.items()},
    )


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
def data(options: DataOptions, show: Show = 0) -> None:
    """Make training data: passages for stage 1, ranked lists for stage 2.

    Embeds and indexes the collections as a night does, reusing what is done; makes the lists in
    shards, so that the same command resumes after a kill; and prints the reference to train on.

    \b
    perank train data --stage alignment --collections files:/data/dl21

    \b
    perank train data --collections files:/data/dl21,files:/data/dl22
        --queries /data/msmarco-queries/queries.tsv --evaluation files:/data/dl19
        --drop-evaluation-queries     (teacher: cosine + 0.03*bm25)

    \b
    perank train data --collections files:/data/dl21 --judgements --lists-per-query 8

    \b
    perank train data --collections files:/data/manuals --queries cloze --judgements

    \b
    perank train data --reference-jsonl /data/listwise.jsonl
    """
    from perank_tasks.training.data import make, readers

    reference = make.make_training_data(options)
    is_alignment = options.stage == "alignment"
    read: Any = readers.AlignmentExamples if is_alignment else readers.RankingExamples
    examples = read(open_site().store, reference)
    artifact = examples.artifact
    counts = dict(artifact.manifest.counts)
    stats = counts.pop("stats", None)
    print_line(reference, "bold")
    print_line(f"in {artifact.place}")
    for name, count in counts.items():
        print_line(f"  {name.replace('_', ' ')}: {count:,}")
    if stats:
        print_line(f"  made in {stats['seconds']:.1f} s on {stats['device']}, embedding aside")
    for source, note in readers.terms(artifact).items():
        print_line(f"  terms of {source}: {note}")
    for example in islice(examples, show):
        _print_passage(example) if is_alignment else _print_list(example)
    print_next(f"perank train {'align' if is_alignment else 'rank'} --data {reference}")


@app.command("align")
@takes_options(StageOptions, whole=_WHOLE)
@_explains_recipe(AlignRecipe)
def align(options: StageOptions) -> None:
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


@app.command("rank")
@takes_options(StageOptions, whole=_WHOLE)
@_explains_recipe(RankRecipe)
def rank(options: StageOptions) -> None:
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


@app.command("run")
@takes_options(TrainingOptions)
@_explains(
    "--set NAME=VALUE sets what belongs to the data and to either stage; NAME= empties it, and "
    "semicolons stand between a list's items:",
    {n: s["description"] for n, s in form().items() if n not in TrainingOptions.model_fields},
)
def run(options: TrainingOptions, set_words: Words = None) -> None:
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

    values = options.model_dump(exclude_unset=True) | words_to_values(set_words or ())
    training = plan_training(values, today())
    results = run_training(training)
    registered, promoted = results["register"], results["promote"]
    print_line(f"registered: {registered}")
    print_line(f"in {open_site().store.root / registered}")
    print_line(("promoted: " if promoted["promoted"] else "not promoted: ") + promoted["reason"])
    print_line(f"champion as of {training.run_date}: {promoted['champion']}")
    print_next(f"perank checkpoint show {registered}")


def _print_outcome(report: dict[str, Any], folder: Path) -> None:
    why = {
        "schedule": "the whole schedule",
        "max_minutes": "cut off by max_minutes",
        "patience": "stopped early: no new best",
    }[report["stopped"]]
    print_line(
        f"{report['steps']} of {report['planned']} steps in {report['seconds'] / 60:.1f} minutes, "
        f"{why}; kept step {report['kept_step']}"
    )
    print_line(f"checkpoint: {report['checkpoint']}")
    print_line(f"curves:     {folder / 'curves.jsonl'}")
    print_line(f"plot:       {folder / 'curves.png'}")


def _print_passage(passage: Any) -> None:
    print_line(f"\n{passage.passage_id}\n    {_short(passage.text, 400)}")


def _print_list(example: Any) -> None:
    print_line(f"\n{example.query_id}: {example.query}", "bold")
    print_line("  best first: rank, place in the prompt, BM25, passage")
    for rank, place in enumerate(example.ranking, 1):
        score = "     –" if example.scores is None else f"{example.scores[place]:6.2f}"
        text = _short((example.texts or [""])[place], 70)
        print_line(f"  {rank:3} {place:3} {score}  {example.passage_ids[place]}  {text}")


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
