"""`perank check-device`: whether this machine's device ranks as it should, and how fast."""

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from perank_tasks.cli import print_line
from perank_tasks.cli.command import Guarded, printer
from perank_tasks.config import DEFAULT_CHECKPOINT


def check_device(
    checkpoint: Annotated[
        str, typer.Option(help="A shipped one, a folder, or a hub id.")
    ] = DEFAULT_CHECKPOINT,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    collection: Annotated[
        str, typer.Option(help="Where queries and passages come from.")
    ] = "pydocs",
) -> Guarded:
    """Check that a GPU, or this machine's CPU, ranks as it should, and how fast it is.

    Ranks a few lists alone, in other orders, in shards, beside lists that fail and after memory
    ran out: rankings and logits have to be the same to the last bit. On a GPU also float32 against
    the CPU, and what bfloat16 moves. Exit status 1 where something differs that must not.
    """
    from perank_tasks.bench.device import check_device

    report = check_device(checkpoint, collection, device, partial(print_line, style="dim"))
    headings = ("the same lists", "same orders", "same logits", "places moved", "top 10 alike")
    rows = []
    for agreement in (*report.must, *report.moves):
        bits = "–" if agreement.logits is None else f"{agreement.logits} of {agreement.lists}"
        orders = f"{agreement.orders} of {agreement.lists}"
        rows.append([agreement.what, orders, bits, str(agreement.moved), f"{agreement.top_10:.0%}"])
    printer.table(headings, rows)
    print_line(
        f"{report.device}, {report.dtype}: {report.seconds_a_query:.3f} s a query of "
        f"{report.depth} candidates, {report.queries_at_once} at once, "
        f"{report.rate_share:.0%} of {report.matrix_rate / 1e12:.2f} TFLOP/s in matrix products; "
        f"{report.seconds_alone:.2f} s for one by itself (block = 1)"
    )
    if report.peak_bytes:
        print_line(f"peak memory on the device: {report.peak_bytes / 2**30:.1f} GiB")
    if report.holds:
        print_line("Rankings are the same whatever stands beside them.", "green")
    else:
        print_line("Rankings depend on what stands beside them here: see docs/engine.md", "red")
    return Guarded(asdict(report), 0 if report.holds else 1)
