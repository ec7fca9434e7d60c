"""`perank retention`: say which old artifacts nothing needs, and remove them if asked."""

from typing import Annotated, Any

import typer

from perank_tasks.cli import open_site, print_line, print_next
from perank_tasks.cli.options import takes_options
from perank_tasks.config import RetentionOptions


@takes_options(RetentionOptions)
def retention(
    options: RetentionOptions,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them.")] = False,
) -> list[Any]:
    """List old artifacts that nothing needs any more; with --delete, remove them."""
    from perank_tasks.night.retention import apply_retention

    store = open_site().store
    removals = apply_retention(store, options, delete=delete)
    for removal in removals:
        print_line(f"{removal.reference}  {removal.bytes:,} bytes  {removal.why}")
    total, what = sum(removal.bytes for removal in removals), "removed" if delete else "to remove"
    print_line(f"{len(removals)} artifacts {what} in {store.root}: {total:,} bytes")
    if removals and not delete:
        print_next("the same with --delete")
    return removals
