"""`perank train align` and `perank train rank`: a stage's training from data to a checkpoint."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer
from rich.console import Console

from perank_tasks.errors import ConfigError
from perank_tasks.training.recipe import PRESETS, AlignRecipe, RankRecipe, StageRecipe

if TYPE_CHECKING:
    from perank_tasks.artifacts.store import Store
    from perank_tasks.settings import Settings

out = Console()

Example = TypeVar("Example")

HOLD_OUT_AT_MOST = 1000
"""Passages that alignment keeps for measuring, at most."""


def _recipe_help(kind: type[StageRecipe]) -> str:
    """What a recipe holds: click leaves lines below a backspace character as they are."""
    fields = "\n".join(
        textwrap.fill(
            f"{name}: {field.description}", 78, initial_indent="  ", subsequent_indent="      "
        )
        for name, field in kind.model_fields.items()
    )
    return (
        f"\nThe recipe, by --set NAME=VALUE (NAME= empties it) or a TOML file with --recipe:\n\n"
        f"\b\n{fields}\n"
    )


ALIGN_HELP = """Stage 1: teach a projector to say passages from their embeddings.

LLM and embedder are frozen. The loss on passages that were held out is measured with their own
embeddings and, as a control, with shuffled ones: the difference is what the projector conveys.
Stopped or killed, the same command goes on and ends as if nothing had happened.

    \b
    perank train align --data training_data/dl21/0a1b… --out runs/aligned

    \b
    perank train align --data training_data/dl21/0a1b… --set max_minutes=20 --out runs/aligned

    \b
    accelerate launch -m perank_tasks.cli train align --data … --preset paper --out runs/aligned
    (several GPUs; not run by us)
""" + _recipe_help(AlignRecipe)

RANK_HELP = """Stage 2: teach the LLM to put passages out, best first.

ListMLE by teacher forcing over lists with golden rankings, with embeddings only and, where
text_weight is not 0, with texts, too. Begins with --start, stage 1's checkpoint or any other, or
with the recipe's base model. Stopped or killed, the same command goes on and ends as if nothing
had happened.

    \b
    perank train rank --data training_data/dl21/0a1b… --start runs/aligned/checkpoint --out runs/a

    \b
    perank train rank --data training_data/dl21/0a1b… --data training_data/dl22/2c3d…
        --set max_minutes=60 --set step_weights=discount --out runs/b

    \b
    accelerate launch -m perank_tasks.cli train rank --data … --preset paper --out runs/c
    (several GPUs; not run by us)
""" + _recipe_help(RankRecipe)

Data = Annotated[
    list[str],
    typer.Option(
        help="Reference or folder of training data (perank train data); give it again to add more."
    ),
]
Development = Annotated[
    list[str] | None,
    typer.Option(help="The same, to measure on; of lists whose queries are not trained on."),
]
HoldOut = Annotated[
    float,
    typer.Option(
        min=0, max=0.9, help="Without --development: share of the data kept to measure on."
    ),
]
Preset = Annotated[str, typer.Option(help=f"Where the recipe begins: {', '.join(PRESETS)}.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe; again for more.")
]
File = Annotated[Path | None, typer.Option("--recipe", help="TOML file of recipe values.")]
Start = Annotated[
    str | None, typer.Option(help="Checkpoint to begin with: a folder, a shipped name, a hub id.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the training, new or gone on with.")]


@dataclass(frozen=True)
class Joined(Sequence[Example], Generic[Example]):
    """Several sequences as one."""

    parts: list[Sequence[Example]]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        for part in self.parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(place)

    def __iter__(self) -> Iterator[Example]:
        return (example for part in self.parts for example in part)


def align(
    data: Data,
    out_folder: Out,
    development: Development = None,
    hold_out: HoldOut = 0.1,
    preset: Preset = "tiny",
    changes: Changes = None,
    recipe_file: File = None,
    start: Start = None,
) -> None:
    """Train stage 1."""
    import numpy as np

    from perank_tasks.training.align import align as train
    from perank_tasks.training.data import open_alignment

    recipe = AlignRecipe.load(_preset(preset), changes or (), recipe_file)
    store, settings = _places()
    parts, record = _open(store, data, open_alignment)
    if development:
        held, held_record = _open(store, development, open_alignment)
        record["development"] = held_record
    else:
        record["hold_out"] = hold_out
        splits = []
        for part in parts:
            kept = min(HOLD_OUT_AT_MOST, round(hold_out * len(part)))
            order = np.random.default_rng(recipe.seed).permutation(len(part))
            splits.append((part.select(np.sort(order[kept:])), part.select(np.sort(order[:kept]))))
        parts, held = [split[0] for split in splits], [split[1] for split in splits]
    report = train(
        recipe,
        Joined(parts),
        Joined(held),
        out_folder,
        cache=settings.cache,
        threads=settings.threads,
        start=start,
        data=record,
    )
    before, after = report["before"], report["after"]
    _print_outcome(report, out_folder)
    for name, found in (("before", before), ("after", after)):
        _print(
            f"{name}: {found['loss']:.3f} nats a token, {found['control']:.3f} with shuffled "
            f"embeddings; difference {found['gain']:.3f} ({found['low']:.3f} to "
            f"{found['high']:.3f}, 95% bootstrap over {found['passages']} passages)"
        )
    _print(
        f"next: perank train rank --data LISTS --start {report['checkpoint']} --out FOLDER", "dim"
    )


def rank(
    data: Data,
    out_folder: Out,
    development: Development = None,
    hold_out: HoldOut = 0.1,
    preset: Preset = "tiny",
    changes: Changes = None,
    recipe_file: File = None,
    start: Start = None,
) -> None:
    """Train stage 2."""
    from perank_tasks.training.data import hold_out as split_by_query
    from perank_tasks.training.data import open_ranking
    from perank_tasks.training.rank import learn_to_rank

    recipe = RankRecipe.load(_preset(preset), changes or (), recipe_file)
    store, settings = _places()
    parts, record = _open(store, data, open_ranking)
    lists: Sequence[Any] = Joined(parts)
    held: Sequence[Any] = []
    if development:
        held_parts, record["development"] = _open(store, development, open_ranking)
        held = Joined(held_parts)
    elif hold_out:
        record["hold_out"] = hold_out
        queries = [query for part in parts for query in part.queries]
        trained, kept = split_by_query(queries, hold_out, recipe.seed)
        lists, held = _select(parts, trained), _select(parts, kept)
    report = learn_to_rank(
        recipe,
        lists,
        held,
        out_folder,
        cache=settings.cache,
        threads=settings.threads,
        start=start,
        data=record,
    )
    _print_outcome(report, out_folder)
    measures = ", ".join(f"{k.removeprefix('dev_')} {v:.4f}" for k, v in report["measures"].items())
    if measures:
        _print(f"development, step {report['kept_step']}: {measures}")
    _print(f"next: perank nightly --checkpoint {report['checkpoint']}", "dim")


def _preset(name: str) -> Any:
    if name not in PRESETS:
        raise ConfigError(f"--preset is {name!r}; expected one of {', '.join(PRESETS)}")
    return name


def _places() -> "tuple[Store, Settings]":
    from perank_tasks.artifacts.store import Store
    from perank_tasks.settings import Settings

    settings = Settings.from_environment()
    return Store(settings.root), settings


def _open(
    store: "Store", references: list[str], reader: Callable[["Store", str], Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Readers of the references, and what to record of them: names and terms of use."""
    from perank_tasks.training.data.readers import terms

    parts = [reader(store, _reference(store, name)) for name in references]
    used: dict[str, str] = {}
    for part in parts:
        used |= terms(part.artifact)
    return parts, {"references": [part.artifact.reference for part in parts], "terms": used}


def _reference(store: "Store", name: str) -> str:
    """A folder's reference where `name` is one below the store's root."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    try:
        return folder.resolve().relative_to(Path(str(store.root)).resolve()).as_posix()
    except ValueError:
        raise ConfigError(
            f"{name} is no training data of this root, {store.root}: give its reference, or set "
            f"PERANK_ROOT"
        ) from None


def _select(parts: list[Any], places: list[int]) -> Joined[Any]:
    """Readers of those examples that have these places in all parts together."""
    chosen, first = [], 0
    for part in parts:
        chosen.append(part.select([p - first for p in places if first <= p < first + len(part)]))
        first += len(part)
    return Joined(chosen)


def _print_outcome(report: dict[str, Any], folder: Path) -> None:
    why = {
        "schedule": "the whole schedule",
        "max_minutes": "cut off by max_minutes",
        "patience": "stopped early: no new best",
    }[report["stopped"]]
    _print(
        f"{report['steps']} of {report['planned']} steps in {report['seconds'] / 60:.1f} minutes, "
        f"{why}; kept step {report['kept_step']}"
    )
    _print(f"checkpoint: {report['checkpoint']}")
    _print(f"curves:     {folder / 'curves.csv'}, {folder / 'curves.jsonl'}")
    _print(f"plot:       {folder / 'curves.png'}")


def _print(text: str, style: str | None = None) -> None:
    from perank_tasks.training.runs import is_main_process

    if is_main_process():
        out.print(text, style=style, highlight=False, soft_wrap=True, markup=False)
