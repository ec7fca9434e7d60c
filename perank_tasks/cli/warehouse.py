"""`perank warehouse`: keep the DuckDB files."""

from typing import Any

from perank_tasks.cli import command_group, open_site, print_line

app = command_group("Keep the DuckDB files.")


@app.command()
def rebuild() -> dict[str, Any]:
    """Make the warehouse again from Parquet: the same rows in every table."""
    from perank_tasks.warehouse.rebuild import rebuild

    site = open_site()
    artifacts = rebuild(site.settings.warehouse, site.store)
    print_line(f"{site.settings.published_warehouse}: made of {artifacts} results")
    return {"warehouse": site.settings.published_warehouse, "results": artifacts}
