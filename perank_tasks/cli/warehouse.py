"""`perank warehouse`: keep the DuckDB files."""

import typer
from rich.console import Console

app = typer.Typer(help="Keep the DuckDB files.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _commands() -> None:
    """Keep the DuckDB files."""


@app.command()
def rebuild() -> None:
    """Make the warehouse again from Parquet: the same rows in every table."""
    from perank_tasks.artifacts.store import Store
    from perank_tasks.settings import Settings
    from perank_tasks.warehouse.rebuild import rebuild

    settings = Settings.from_environment()
    artifacts = rebuild(settings.warehouse, Store(settings.root))
    Console().print(
        f"{settings.published_warehouse}: made of {artifacts} results",
        highlight=False,
        soft_wrap=True,
    )
