"""`perank bench pipeline`: in, sizes of corpora; out, what a night takes, stage by stage.

For each size a process of its own runs a night of the arm `cosine` over a generated corpus.
Seconds and peak memory are those that the artifacts' manifests record; `evaluate` and `load`
record none, and are timed here. Results are written after every size.

Texts are embedded up to `EMBEDDED` passages. Larger corpora repeat the texts of the largest such
corpus, whose vectors are reused; the seconds of embedding them are extrapolated, and marked so.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.bench.corpus import write_corpus
from perank_tasks.bench.options import EMBEDDED, PipelineOptions
from perank_tasks.bench.output import write_json
from perank_tasks.config import NightOptions
from perank_tasks.errors import StorageError
from perank_tasks.night.arms import BUILT_IN, ArmsFile
from perank_tasks.night.pipeline import STAGES as NIGHT_STAGES
from perank_tasks.night.pipeline import stages
from perank_tasks.night.plan import plan_night
from perank_tasks.night.provenance import fingerprint
from perank_tasks.night.site import Site
from perank_tasks.settings import Settings
from perank_tasks.support.files import storage_errors
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.printer import Printer

FITTED = 10_000
"""Passages of the smallest corpus that a stage's growth is fitted to."""

STAGES = NIGHT_STAGES[: NIGHT_STAGES.index("load") + 1]
"""Those of a night that are measured."""

RUN_DATE = date(2026, 1, 31)


Stats = dict[str, Any]
"""What a stage took, as `Meter.stats` has it: seconds and peak_memory_bytes, among others."""


@dataclass
class Results:
    """Everything measured: {size: {stage: what it took}}."""

    queries: int
    machine: dict[str, Any]
    sizes: dict[int, dict[str, Stats]] = field(default_factory=dict)

    def seconds(self, stage: str) -> list[tuple[int, float]]:
        """(passages, seconds) of a stage, smallest first; of embedding, where it was measured."""
        return [
            (size, measured[stage]["seconds"])
            for size, measured in self.sizes.items()
            if stage != "embed" or size <= EMBEDDED
        ]

    def exponent(self, stage: str) -> float | None:
        """How seconds grow with passages: the slope of a line through both logarithms.

        From `FITTED` passages on, but for embedding: below, what every size takes alike would make
        growth look slower than it is.
        """
        points = [p for p in self.seconds(stage) if stage == "embed" or p[0] >= FITTED]
        if len(points) < 2:
            return None
        x, y = np.log(points).T
        return float(np.polyfit(x, y, 1)[0])

    def extrapolated(self) -> dict[int, float]:
        """Seconds of embedding the sizes that were not embedded: {passages: seconds}.

        On a line through the two largest that were, since the queries are embedded at every size;
        in proportion to passages where there is one.
        """
        (before, less), (passages, seconds) = [(0, 0.0), *self.seconds("embed")][-2:]
        each = (seconds - less) / (passages - before)
        return {s: seconds + each * (s - passages) for s in self.sizes if s > EMBEDDED}


def run_pipeline(options: PipelineOptions, folder: Path) -> Results:
    """Measure every size, and write what there is after each.

    Raises:
        StorageError: a measuring process was killed.
        PerankError: of a stage.
    """
    settings = Settings.from_environment()
    load_average = round(os.getloadavg()[0], 2)
    machine = {**fingerprint(settings.of_a_piece.threads), "load_average": load_average}
    results = Results(options.queries, machine)
    embedded = max(size for size in options.sizes if size <= EMBEDDED)
    with storage_errors(folder, "Give another --out."):
        folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="work-", dir=folder) as name:
        work = Path(name)
        for size in options.sizes:
            texts = min(size, embedded)
            write_corpus(work / "corpus", size, options.queries, texts, options.source)
            # Corpora of the same texts share a store, and so these texts' vectors.
            home = work / f"home-{texts}"
            own = replace(
                settings,
                root=str(home / "artifacts"),
                warehouse=home / "warehouse",
                reports=home / "reports",
            )
            results.sizes[size] = _in_a_process(work / "corpus", own)
            write_results(folder, results)
    return results


def _in_a_process(corpus: Path, settings: Settings) -> dict[str, Stats]:
    """`measure_night` in a process of its own, whose peak memory is the night's."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            return process.submit(measure_night, corpus, settings).result()
    except BrokenProcessPool as error:
        raise StorageError(
            "The process that measured a night was killed, maybe for want of memory. The sizes "
            "before it are in results.json."
        ) from error


def measure_night(corpus: Path, settings: Settings) -> dict[str, Stats]:
    """Run a night over a corpus; returns what each stage took.

    The night is of the built-in arm that reads embeddings and needs no LLM, by BM25's candidates.
    """
    site = Site(Store(settings.root), settings)
    options = NightOptions.parse({"collection": f"files:{corpus}", "arms": ("cosine",)})
    night = plan_night(options, RUN_DATE, site, arms=ArmsFile.read(BUILT_IN))
    measured: dict[str, Stats] = {}
    meter = Meter()
    for stage, result in stages(night, site):
        measured[stage] = meter.stats()
        references = result.values() if isinstance(result, dict) else [result]
        counts = [site.store.open(r).manifest.counts for r in references if isinstance(r, str)]
        if recorded := [each["stats"] for each in counts if "stats" in each]:
            measured[stage] = total(recorded)
        if stage == STAGES[-1]:
            break
        meter = Meter()
    return measured


def write_results(folder: Path, results: Results) -> Path:
    """Write results.json; returns its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    values = {
        **asdict(results),
        "exponents": {stage: results.exponent(stage) for stage in STAGES},
        "embed_seconds_extrapolated": results.extrapolated(),
    }
    return write_json(folder, values)


def print_results(printer: Printer, results: Results) -> None:
    """The table, a stage a line."""
    machine = results.machine
    printer.line(
        f"{machine['processor']}, {machine['threads']} threads, load {machine['load_average']} "
        f"at the start; {results.queries:,} queries"
    )
    rows = []
    for stage in STAGES:
        seconds = {size: f"{value:,.1f} s" for size, value in results.seconds(stage)}
        if stage == "embed":
            seconds |= {size: f"~{value:,.0f} s" for size, value in results.extrapolated().items()}
        cells = [
            f"{text} {results.sizes[size][stage]['peak_memory_bytes'] / 2**30:.2f} GiB"
            for size, text in seconds.items()
        ]
        exponent = results.exponent(stage)
        rows.append([stage, *cells, "–" if exponent is None else f"n^{exponent:.2f}"])
    printer.table(["stage", *(f"{size:,}" for size in results.sizes), "grows as"], rows)
    printer.line(
        "Seconds, and peak memory of the stage's largest process. ~: extrapolated "
        f"from {EMBEDDED:,} passages; its memory is that of reusing vectors. Growth: of "
        f"seconds, from {FITTED:,} passages on, but for embedding.",
        "dim",
    )
