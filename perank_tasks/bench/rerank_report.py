"""The report of `perank bench rerank`: in, what was measured; out, a table, JSON and plots."""

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from perank_tasks.bench import output
from perank_tasks.bench.contenders import contenders
from perank_tasks.bench.rerank import Report


def print_report(out: Console, report: Report) -> None:
    """The table, then what it comes to in a few lines."""
    machine, options = report.machine, report.options
    out.print(
        f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, "
        f"{report.matrix_rate / 1e9:,.0f} GFLOP/s in matrix products; {options.collection}, "
        f"up to {options.depth} candidates a query, window {options.window}, step {options.step}",
        highlight=False,
    )
    headings = ("s/query", "× plain", "tokens", "steps", "prefill", "as plain", "at once")
    table = output.new_table("contender", *headings)
    for contender in contenders(options.top_k):
        measurements = report.of(contender.name)
        if not measurements:
            continue
        ranked = sum(len(m.queries) for m in measurements)
        share, same = report.prefill_share(contender.name), report.agreement(contender)
        table.add_row(
            contender.name,
            f"{report.seconds(contender.name):.3f}",
            _times(report.ratio("plain", contender.name)),
            f"{sum(m.tokens_in for m in measurements) / ranked:,.0f}",
            f"{sum(m.decode_steps for m in measurements) / ranked:,.0f}",
            f"{share:.0%}" if share is not None else "–",
            f"{same[0]} of {same[1]}" if same else "–",
            "1" if contender.options is None else str(len(measurements[0].queries)),
        )
    out.print(table)
    out.print(
        f"[dim]Medians; blocks of queries measured: {len(report.matrix_rates)}. prefill: "
        "of the matrix rate while prompts are read. as plain: queries ranked as the plain way "
        "does. at once: queries ranked together.[/]"
    )
    for line, value in ratios(report).items():
        if value is not None:
            out.print(f"{line}: {_times(value)}", highlight=False)
    if report.skipped:
        out.print(f"not measured, for want of time (--minutes): {', '.join(report.skipped)}")


def ratios(report: Report) -> dict[str, float | None]:
    """What the benchmark is for, by what it says; None where a part was not measured."""
    top = f", top {report.options.top_k}"
    pairs = [
        ("plain", "released"),
        ("plain", f"compact{top}"),
        ("full text", "released"),
        ("full text", "compact"),
        (f"full text{top}", f"compact{top}"),
    ]
    return {f"{slow} / {fast}": report.ratio(slow, fast) for slow, fast in pairs} | {
        f"{slow} / {fast}, as many queries at once": report.ratio_alike(slow, fast)
        for slow, fast in pairs
    }


def write_report(folder: Path, report: Report) -> list[Path]:
    """Write results.json, latency.png and throughput.png; returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    results = {
        "options": report.options.model_dump(),
        "machine": report.machine,
        "matrix_flops_a_second": report.matrix_rates,
        "median_seconds_a_query": {
            m.contender: report.seconds(m.contender) for m in report.measurements
        },
        "ratios": ratios(report),
        "measurements": [asdict(m) for m in report.measurements],
        "latency_seconds_by_depth": report.latency,
        "queries_a_second_by_batch": report.throughput,
        "skipped": report.skipped,
    }
    paths = [output.write_json(folder, results)]
    if report.latency:
        paths += [folder / "latency.png", folder / "throughput.png"]
        output.plot_latency(paths[1], report.latency)
        output.plot_throughput(paths[2], report.throughput)
    return paths


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"
