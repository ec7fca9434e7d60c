"""`perank simulate`: how far a verdict can be trusted, measured on simulated nights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from perank_tasks.cli import print_line
from perank_tasks.support.files import replacing


def simulate(
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 1,
    nights: Annotated[int, typer.Option(min=1, help="Unchanged nights.")] = 2000,
    trials: Annotated[int, typer.Option(min=1, help="Drops of each kind.")] = 400,
    curve_trials: Annotated[int, typer.Option(min=1, help="Drops of each point of it.")] = 100,
    out: Annotated[
        Path | None, typer.Option(help="Folder for simulation.json and power.png.")
    ] = None,
) -> dict[str, Any]:
    """Simulate nights: false alarms, and the power to see a drop.

    Noise: which queries were drawn, near ties flipped, passages added and removed, judgements
    added. An arm's four tests are under Holm's correction.
    """
    from perank_tasks.regression import simulation

    report = simulation.simulate(
        seed, nights, trials, curve_trials, say=lambda doing: print_line(f"{doing} …", "dim")
    )
    for arms, words in report.words.items():
        counts = ", ".join(f"{count:,} {word}" for word, count in words.items())
        print_line(
            f"unchanged nights, arms a night {arms}: {report.alarms(arms):.2%} called ({counts})"
        )
    print_line(
        f"a drop of .05 over 80 queries, a regression at once: {report.first_night:.1%}\n"
        f"five drops of .01 in a row, a regression by the fifth: {report.five_drops:.1%}\n"
        f"a drop of .05 that lasts, called each night: {report.lasting:.1%}, without a gap once "
        f"called: {report.lasting_without_gap:.1%}\n"
        f"the same drop within a fortnight, a regression again: {report.after_an_outlier:.1%}\n"
        f"nights called after it was accepted: {report.after_acceptance:.1%}\n\n"
        "a regression on the first night:"
    )
    drops = sorted({point["drop"] for point in report.curve})
    print_line("queries   " + "".join(f"{-drop:>8.2f}" for drop in drops))
    for n in sorted({point["queries"] for point in report.curve}):
        powers = [point["power"] for point in report.curve if point["queries"] == n]
        print_line(f"{n:7.0f}   " + "".join(f"{p:8.2f}" for p in powers))
    if out:
        with replacing(out / "simulation.json", "Give another folder with --out.") as file:
            file.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        simulation.plot_curve(report, out / "power.png")
        print_line(f"\n{out / 'simulation.json'}\n{out / 'power.png'}")
    return asdict(report)
