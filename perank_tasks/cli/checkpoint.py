"""`perank checkpoint`: what is registered, which one nights use, and who decided so."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from perank_tasks.cli import parse_date
from perank_tasks.config import DEFAULT_CHECKPOINT

app = typer.Typer(
    help="Registered checkpoints, and which of them nights use as champion.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
out = Console()

_Checkpoint = Annotated[
    str, typer.Argument(help="A registered one, by reference or name, or a shipped one.")
]
_Name = Annotated[str, typer.Option(help="Who decides.")]
_Reason = Annotated[str, typer.Option(help="Why.")]
_AsOf = Annotated[
    str | None, typer.Option(help="From the night of which date on; empty: today, in UTC.")
]


@app.command("list")
def list_checkpoints() -> None:
    """List registered checkpoints, every decision on the champion, and who is champion today."""
    from perank_tasks.warehouse import registry

    store = registry.open_store()
    for artifact in registry.registered(store):
        manifest = artifact.manifest
        scores = manifest.counts.get("scores", {})
        said = ", ".join(f"{arm} {value:.4f}" for arm, value in scores.items())
        size = manifest.counts["bytes"] / 2**20
        _print(f"{artifact.reference}  {manifest.created_at[:10]}  {size:.1f} MiB  {said}")
    for act in registry.all_decisions(store):
        verb = {"promote": "promoted", "withdraw": "withdrawn"}[act["act"]]
        _print(f"{act['as_of']}  {verb}  {act['checkpoint']}  {act['name']}: {act['reason']}")
    standing = registry.champion(registry.all_decisions(store), _today())
    _print(f"champion today: {standing['checkpoint'] if standing else DEFAULT_CHECKPOINT}")


@app.command()
def show(checkpoint: _Checkpoint) -> None:
    """Print a checkpoint's model card."""
    from perank_tasks.perank.checkpoint_config import find_checkpoint
    from perank_tasks.settings import Settings
    from perank_tasks.warehouse import registry

    store = registry.open_store()
    name, _ = registry.resolve(checkpoint, _today(), store)
    folder = find_checkpoint(
        registry.local(name, store), cache=Settings.from_environment().cache
    ).folder
    card = folder / "README.md"
    print(card.read_text(encoding="utf-8") if card.is_file() else f"{folder} has no model card.")


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder, in either layout.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
) -> None:
    """Keep a copy of a checkpoint made elsewhere, so that it can be promoted."""
    from perank_tasks.night.provenance import fingerprint
    from perank_tasks.settings import Settings
    from perank_tasks.warehouse import registry

    reference = registry.register(
        registry.open_store(),
        name,
        folder,
        tables={},
        folders={},
        card=None,
        inputs={},
        config={"source": str(folder.resolve())},
        counts={},
        provenance=fingerprint(Settings.from_environment().threads),
    )
    _print(reference)
    out.print(f"[dim]next: perank checkpoint promote {reference} --name … --reason …[/]")


@app.command()
def promote(checkpoint: _Checkpoint, name: _Name, reason: _Reason, as_of: _AsOf = None) -> None:
    """Make a checkpoint champion: nights from a date on rank by it. Never changed or removed."""
    from perank_tasks.warehouse import registry

    store = registry.open_store()
    act = registry.promote(store, checkpoint, name, reason, as_of=parse_date(as_of) or _today())
    _say_champion(store, act)


@app.command()
def withdraw(
    name: _Name,
    reason: _Reason,
    checkpoint: Annotated[
        str | None, typer.Argument(help="By reference or name; empty: the champion.")
    ] = None,
    as_of: _AsOf = None,
) -> None:
    """Take a promotion back from a date on: the champion before it is champion again."""
    from perank_tasks.warehouse import registry

    store = registry.open_store()
    act = registry.withdraw(
        store, name, reason, as_of=parse_date(as_of) or _today(), checkpoint=checkpoint
    )
    _say_champion(store, act)


def _say_champion(store: Any, act: dict[str, Any]) -> None:
    from perank_tasks.warehouse import registry

    standing = registry.champion(registry.all_decisions(store), act["as_of"])
    found = standing["checkpoint"] if standing else DEFAULT_CHECKPOINT
    _print(f"champion as of {act['as_of']}: {found}")
    out.print("[dim]next: perank nightly, or the next run of the DAG, ranks by it[/]")


def _today() -> date:
    return datetime.now(UTC).date()


def _print(line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True, markup=False)
