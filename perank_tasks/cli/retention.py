"""`perank retention`: say which old artifacts nothing needs, and remove them if asked."""

from typing import Annotated

import typer
from rich.console import Console

from perank_tasks.config import RetentionOptions

_FIELDS = RetentionOptions.model_fields
out = Console()


def retention(
    keep_days: Annotated[int, typer.Option(help=_FIELDS["keep_days"].description)] = _FIELDS[
        "keep_days"
    ].default,
    keep_last: Annotated[int, typer.Option(help=_FIELDS["keep_last"].description)] = _FIELDS[
        "keep_last"
    ].default,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them.")] = False,
) -> None:
    """List old artifacts that nothing needs any more; with --delete, remove them."""
    from perank_tasks.artifacts.store import Store
    from perank_tasks.night.retention import apply_retention
    from perank_tasks.settings import Settings

    options = RetentionOptions.parse({"keep_days": keep_days, "keep_last": keep_last})
    root = Settings.from_environment().root
    removals = apply_retention(Store(root), options, delete=delete)
    for removal in removals:
        line = f"{removal.reference}  {removal.bytes:,} bytes  {removal.why}"
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    total = sum(removal.bytes for removal in removals)
    what = "removed" if delete else "to remove"
    out.print(
        f"{len(removals)} artifacts {what} in {root}: {total:,} bytes",
        highlight=False,
        soft_wrap=True,
    )
    if removals and not delete:
        out.print("[dim]next: the same with --delete[/]")
