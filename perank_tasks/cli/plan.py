"""`perank plan`: what a night over a larger corpus will take, before anything is run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from perank_tasks.cli.planning import (
    CPU,
    DEVICES,
    KNOWN_MODELS,
    Work,
    critical_path,
    read_rates,
)
from perank_tasks.cli.planning import plan as plan_stages
from perank_tasks.settings import Settings


def plan(
    passages: Annotated[float, typer.Option(help="Passages, all of them new, as in 1e7.")],
    queries: Annotated[float, typer.Option(help="Queries.")] = 1000,
    model: Annotated[
        str,
        typer.Option(help=f"The LLM: {', '.join(KNOWN_MODELS)}, or its parameters, as in 7b."),
    ] = "smollm2-135m",
    embedder: Annotated[str, typer.Option(help="The embedder, in the same way.")] = "minilm-l6",
    devices: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(DEVICES)}, or several, as in 4xh100; {CPU}: the machine that the "
            "rates were measured on."
        ),
    ] = CPU,
    depth: Annotated[int, typer.Option(help="Candidates a query.")] = 100,
    window: Annotated[int, typer.Option(help="Passages the LLM ranks at once.")] = 20,
    step: Annotated[int, typer.Option(help="How far the window moves.")] = 10,
    passage_tokens: Annotated[
        float | None,
        typer.Option(help="Tokens a passage. Empty: as in the corpus that was measured."),
    ] = None,
    rates: Annotated[
        Path | None,
        typer.Option(help="rates.json of `perank bench pipeline`. Empty: its last run's."),
    ] = None,
) -> None:
    """Say what a night will take: bytes, tokens, FLOPs and hours of every stage.

    From measured rates where there are any, and else from what the devices' makers say and an
    assumed share of it; each line says which.
    """
    work = Work(
        passages=passages,
        queries=queries,
        model=model,
        embedder=embedder,
        devices=devices,
        depth=depth,
        window=window,
        step=step,
        passage_tokens=passage_tokens,
    )
    last = Settings.from_environment().benchmarks / "pipeline" / "rates.json"
    measured = read_rates(rates or last)
    stages = plan_stages(work, measured)
    out = Console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("stage", "on"):
        table.add_column(heading, no_wrap=True)
    for heading in ("GB", "tokens", "FLOPs", "hours"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("rests on")
    for stage in stages:
        table.add_row(
            stage.stage,
            stage.device,
            f"{stage.bytes / 1e9:,.2f}",
            f"{stage.tokens:.2g}" if stage.tokens else "–",
            f"{stage.flops:.2g}" if stage.flops else "–",
            f"{stage.seconds / 3600:,.2f}",
            stage.basis,
        )
    out.print(
        f"{passages:,.0f} passages, {queries:,.0f} queries of {depth} candidates, {model}, "
        f"{devices}",
        highlight=False,
        soft_wrap=True,
    )
    out.print(table)
    machine = measured["machine"]
    out.print(
        f"The night: {critical_path(stages) / 3600:,.2f} hours, indexing beside "
        f"embedding; later nights embed new passages only.",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"[dim]measured: {measured['measured_at'][:10]}, {measured['passages']:,} passages and "
        f"{measured['queries']:,} queries, {machine['processor']}, {machine['threads']} threads, "
        f"load {machine['load_average'][0]:g}, code {machine['code']}; one process a stage, "
        f"shards side by side take less[/]",
        highlight=False,
        soft_wrap=True,
    )
