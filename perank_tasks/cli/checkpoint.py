"""`perank checkpoint`: what is registered, which one nights use, and who decided so."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perank_tasks.cli import command_group, open_site, parse_date, print_line, print_next, today
from perank_tasks.config import CHAMPION

if TYPE_CHECKING:
    from perank_tasks.artifacts.store import Store

app = command_group("Registered checkpoints, and which of them nights use as champion.")

_Checkpoint = Annotated[
    str, typer.Argument(help="A registered one, by reference or name, or a shipped one.")
]
_Name = Annotated[str, typer.Option(help="Who decides.")]
_Reason = Annotated[str, typer.Option(help="Why.")]
_AsOf = Annotated[
    str | None, typer.Option(help="From the night of which date on; empty: today, in UTC.")
]


@app.command("list")
def list_checkpoints() -> dict[str, Any]:
    """List registered checkpoints, every decision on the champion, and who is champion today."""
    from perank_tasks.warehouse import registry

    store = open_site().store
    checkpoints = []
    for artifact in registry.registered(store):
        counts, created_at = artifact.manifest.counts, artifact.manifest.created_at
        size, scores = counts["bytes"], counts.get("scores", {})
        shown = ", ".join(f"{arm} {value:.4f}" for arm, value in scores.items())
        print_line(f"{artifact.reference}  {created_at[:10]}  {size / 2**20:.1f} MiB  {shown}")
        made = {"registered_at": created_at, "bytes": size, "scores": scores}
        checkpoints.append({"checkpoint": artifact.reference, **made})
    decisions = registry.all_decisions(store)
    for act in decisions:
        verb = {"promote": "promoted", "withdraw": "withdrawn"}[act["act"]]
        print_line(f"{act['as_of']}  {verb}  {act['checkpoint']}  {act['name']}: {act['reason']}")
    champion, _ = registry.resolve(CHAMPION, today(), store)
    print_line(f"champion today: {champion}")
    return {"checkpoints": checkpoints, "decisions": decisions, "champion": champion}


@app.command()
def show(checkpoint: _Checkpoint) -> dict[str, Any]:
    """Print a checkpoint's model card."""
    from perank_tasks.perank.checkpoint_config import find_checkpoint
    from perank_tasks.warehouse import registry

    site = open_site()
    name, _ = registry.resolve(checkpoint, today(), site.store)
    folder = find_checkpoint(registry.local(name, site.store), cache=site.settings.cache).folder
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    print_line(text or f"{folder} has no model card.")
    return {"checkpoint": name, "folder": folder, "card": text}


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder, in either layout.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
) -> dict[str, Any]:
    """Keep a copy of a checkpoint made elsewhere, so that it can be promoted."""
    from perank_tasks.night.provenance import fingerprint
    from perank_tasks.warehouse import registry

    site = open_site()
    reference = registry.register(
        site.store,
        name,
        folder,
        tables={},
        folders={},
        card=None,
        inputs={},
        config={"source": str(folder.resolve())},
        counts={},
        provenance=fingerprint(site.settings.threads),
    )
    print_line(reference)
    print_next(f"perank checkpoint promote {reference} --name … --reason …")
    return {"checkpoint": reference}


@app.command()
def promote(
    checkpoint: _Checkpoint, name: _Name, reason: _Reason, as_of: _AsOf = None
) -> dict[str, Any]:
    """Make a checkpoint champion: nights from a date on rank by it. Never changed or removed."""
    from perank_tasks.warehouse import registry

    store, day = open_site().store, parse_date(as_of) or today()
    registry.promote(store, checkpoint, name, reason, as_of=day)
    return _print_champion(store, day)


@app.command()
def withdraw(
    name: _Name,
    reason: _Reason,
    checkpoint: Annotated[
        str | None, typer.Argument(help="By reference or name; empty: the champion.")
    ] = None,
    as_of: _AsOf = None,
) -> dict[str, Any]:
    """Take a promotion back from a date on: the champion before it is champion again."""
    from perank_tasks.warehouse import registry

    store, day = open_site().store, parse_date(as_of) or today()
    registry.withdraw(store, name, reason, as_of=day, checkpoint=checkpoint)
    return _print_champion(store, day)


def _print_champion(store: "Store", day: date) -> dict[str, Any]:
    from perank_tasks.warehouse import registry

    champion, _ = registry.resolve(CHAMPION, day, store)
    print_line(f"champion as of {day}: {champion}")
    print_next("perank nightly, or the next run of the DAG, ranks by it")
    return {"as_of": day, "champion": champion}
