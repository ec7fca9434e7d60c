"""`perank train data`: make training data of collections, and show what was made."""

import inspect
import types
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.console import Console
from rich.markup import escape

from perank_tasks.training.data.options import DataOptions

out = Console()

HELP = """Make training data: passages for stage 1, ranked lists for stage 2.

Embeds and indexes the collections as a night does, finding what is done; makes the lists in
shards, so that the same command goes on after a kill; and prints the reference to train on.

    perank train data --stage alignment --collections files:/data/dl21

    perank train data --collections files:/data/dl21,files:/data/dl22
        --queries /data/msmarco-queries/queries.tsv --evaluation files:/data/dl19
        --drop-evaluation-queries     (teacher: cosine + 0.03*bm25)

    perank train data --collections files:/data/dl21 --judgements --lists-per-query 8

    perank train data --collections files:/data/manuals --queries cloze --judgements

    perank train data --reference-jsonl /data/listwise.jsonl
"""

_LISTS = ("collections", "evaluation")


def data(show: int, **values: Any) -> None:
    from perank_tasks.artifacts.store import Store
    from perank_tasks.settings import Settings
    from perank_tasks.training.data.make import make_training_data

    given = {name: value for name, value in values.items() if value is not None}
    for name in _LISTS:
        given[name] = tuple(filter(None, map(str.strip, given.get(name, "").split(","))))
    options = DataOptions.parse(given)
    reference = make_training_data(options)
    store = Store(Settings.from_environment().root)
    _print_summary(store, reference)
    if show:
        _print_examples(store, reference, options.stage, show)
    command = "align" if options.stage == "alignment" else "rank"
    _print(f"next: perank train {command} --data {reference}", style="dim")


def _print_summary(store: Any, reference: str) -> None:
    from perank_tasks.training.data.readers import terms

    artifact = store.open(reference)
    counts = dict(artifact.manifest.counts)
    stats = counts.pop("stats", None)
    _print(reference, style="bold")
    _print(f"in {artifact.place}")
    for name, count in counts.items():
        _print(f"  {name.replace('_', ' ')}: {count:,}")
    if stats:
        _print(f"  made in {stats['seconds']:.1f} s on {stats['device']}, embedding aside")
    for source, note in terms(artifact).items():
        _print(f"  terms of {source}: {note}")


def _print_examples(store: Any, reference: str, stage: str, count: int) -> None:
    from perank_tasks.training.data.readers import open_alignment, open_ranking

    if stage == "alignment":
        for passage in open_alignment(store, reference)[:count]:
            _print(f"\n{passage.passage_id}\n    {_short(passage.text, 400)}")
        return
    for example in open_ranking(store, reference)[:count]:
        _print(f"\n{example.query_id}: {example.query}", style="bold")
        _print("  best first: rank, place in the prompt, BM25, passage")
        for rank, place in enumerate(example.ranking, 1):
            score = "     –" if example.scores is None else f"{example.scores[place]:6.2f}"
            text = _short((example.texts or [""])[place], 70)
            _print(f"  {rank:3} {place:3} {score}  {example.passage_ids[place]}  {text}")


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _print(text: str, style: str | None = None) -> None:
    out.print(escape(text), style=style, highlight=False, soft_wrap=True)


def _option(name: str, annotation: Any, description: str | None, default: Any) -> Any:
    """A command line option for a field: a list is given with commas, or, of terms, again and
    again, since notes hold commas."""
    flag = f"--{name.replace('_', '-')}"
    help_text = (description or "") + (" Separated by commas." if name in _LISTS else "")
    option = typer.Option(flag, help=help_text, show_default=default not in (None, ()))
    if name == "terms":
        return Annotated[list[str] | None, option]
    kinds = get_args(annotation) if get_origin(annotation) is types.UnionType else (annotation,)
    kind: Any = next((kind for kind in kinds if kind in (bool, int, float)), str)
    return Annotated[kind | None, option]


def _signature() -> inspect.Signature:
    only = inspect.Parameter.KEYWORD_ONLY
    show = Annotated[int, typer.Option(min=0, help="Print so many examples.")]
    parameters = [inspect.Parameter("show", only, default=0, annotation=show)]
    for name, field in DataOptions.model_fields.items():
        default = None if field.default == () else field.default
        annotation = _option(name, field.annotation, field.description, default)
        parameters.append(inspect.Parameter(name, only, default=default, annotation=annotation))
    return inspect.Signature(parameters)


data.__signature__ = _signature()  # type: ignore[attr-defined]
data.__annotations__ = {p.name: p.annotation for p in _signature().parameters.values()}
