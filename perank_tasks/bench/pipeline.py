"""`perank bench pipeline`: in, sizes of corpora; out, what a night takes, stage by stage.

For each size a process of its own runs a night of the arm `cosine` over a generated corpus.
Seconds and peak memory are those that the artifacts' manifests record; `evaluate` and `load`
record none, and are timed here. Results are written after every size.

Passages are embedded up to `EMBEDDED`. Larger corpora take over the vectors of the largest embedded
one, over again; the seconds of embedding them are extrapolated, and marked so.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.bench import plots
from perank_tasks.bench.compared import (
    BY_HAND,
    Measured,
    compare_embedding,
    measure_bm25s,
    measured_of,
)
from perank_tasks.bench.corpus import write_corpus
from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ConfigError, StorageError
from perank_tasks.night.arms import BUILT_IN, ArmsFile
from perank_tasks.night.pipeline import stages
from perank_tasks.night.plan import plan_night
from perank_tasks.night.provenance import fingerprint
from perank_tasks.night.site import Site
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing
from perank_tasks.support.meter import Meter, total
from perank_tasks.support.progress import progress
from perank_tasks.support.streams import in_groups

EMBEDDED = 10_000
"""Passages of the largest corpus that is embedded."""

FITTED = 10_000
"""Passages of the smallest corpus that a stage's growth is fitted to."""

STAGES = ("snapshot", "embed", "index", "retrieve", "rerank", "evaluate", "load")

RUN_DATE = date(2026, 1, 31)


@dataclass
class Results:
    """Everything measured: {size: {stage or what it is compared with: Measured}}."""

    queries: int
    machine: dict[str, Any]
    sizes: dict[int, dict[str, Measured]] = field(default_factory=dict)
    embedding: dict[str, float] = field(default_factory=dict)
    """Passages a second of the stage and of the library's plain call, `ours` and `plain`, and the
    `largest_difference` between numbers of their vectors."""

    def seconds(self, stage: str) -> list[tuple[int, float]]:
        """(passages, seconds) of a stage, smallest first; of embedding, where it was measured."""
        return [
            (size, measured[stage]["seconds"])
            for size, measured in self.sizes.items()
            if stage in measured and (stage != "embed" or size <= EMBEDDED)
        ]

    def exponent(self, stage: str) -> float | None:
        """How seconds grow with passages: the slope of a line through both logarithms.

        From `FITTED` passages on, but for embedding: below, what every size takes alike would make
        growth look slower than it is.
        """
        return slope([p for p in self.seconds(stage) if stage == "embed" or p[0] >= FITTED])

    def extrapolated(self) -> dict[int, float]:
        """Seconds of embedding the sizes that were not embedded: {passages: seconds}.

        On a line through the two largest that were, since the queries are embedded at every size;
        in proportion to passages where there is one.
        """
        (before, less), (passages, seconds) = [(0, 0.0), *self.seconds("embed")][-2:]
        each = (seconds - less) / (passages - before)
        return {s: seconds + each * (s - passages) for s in self.sizes if s > EMBEDDED}

    def ratios(self) -> dict[str, float]:
        """How many times as fast the stages are as what they are compared with."""
        ratios = {
            f"{stage} / bm25s by hand, {size:,} passages": (
                measured[by_hand]["seconds"] / measured[stage]["seconds"]
            )
            for size, measured in self.sizes.items()
            for stage, by_hand in BY_HAND.items()
            if by_hand in measured
        }
        if self.embedding:
            ratios["embed / sentence-transformers' plain call"] = (
                self.embedding["ours"] / self.embedding["plain"]
            )
        return ratios


def slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Least squares of log y over log x; None for fewer than two points."""
    if len(points) < 2:
        return None
    line = statistics.linear_regression(
        [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    )
    return line.slope


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse, with ConfigError, sizes that cannot be measured."""
    if not sizes or min(sizes) < 100 or list(sizes) != sorted(set(sizes)):
        raise ConfigError(
            f"--sizes is {','.join(map(str, sizes))!r}; expected numbers of passages, each 100 or "
            "more, ascending, none twice, as in 1000,10000,100000"
        )
    if sizes[0] > EMBEDDED:
        raise ConfigError(
            f"the first of --sizes is {sizes[0]}; expected {EMBEDDED} or less, since larger "
            "corpora take over the vectors of one that was embedded"
        )


def run_pipeline(
    sizes: Sequence[int], queries: int, folder: Path, *, compare: bool = True
) -> Results:
    """Measure every size, and write what there is after each.

    Args:
        compare: also measure what the stages are compared with.

    Raises:
        ConfigError: see `check_sizes`.
        StorageError: a measuring process failed; its own message is passed on.
    """
    check_sizes(sizes)
    results = Results(queries, _machine())
    embedded = max(size for size in sizes if size <= EMBEDDED)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with progress("measuring", len(sizes), "corpora") as advance:
            for size in sizes:
                corpus = _corpus(work, size)
                write_corpus(corpus, size, queries)
                vectors = [_corpus(work, embedded)] if size > EMBEDDED else []
                results.sizes[size] = _run("night", corpus, *vectors)
                if compare:
                    results.sizes[size] |= _run("bm25s", corpus)
                if compare and size == embedded:
                    results.embedding = _run("embedding", corpus)
                write_results(folder, results)
                if size != embedded:
                    shutil.rmtree(corpus)
                advance(1)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return results


def _corpus(work: Path, size: int) -> Path:
    """The corpus of a size; its `home` has the artifacts of its night."""
    return work / f"corpus-{size}"


def _run(task: str, corpus: Path, *arguments: Path) -> Any:
    """Do a task of `main` in a process of its own, with a PERANK_HOME of its own."""
    own = ("PERANK_ROOT", "PERANK_WAREHOUSE", "PERANK_REPORTS")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment["PERANK_HOME"] = str(corpus / "home")
    environment["PERANK_CACHE"] = str(Settings.from_environment().cache)
    command = [sys.executable, "-m", __spec__.name, task, str(corpus), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise StorageError(
            f"Measuring the {task} of {corpus.name} failed, exit status {done.returncode}: "
            f"{last[0]}. The sizes before it are in results.json."
        )
    return json.loads(done.stdout.splitlines()[-1])


def _night(corpus: Path, site: Site) -> Night:
    """A night of the built-in arm that reads embeddings and needs no LLM, by BM25's candidates."""
    options = NightOptions.parse({"collection": f"files:{corpus}", "arms": ("cosine",)})
    return plan_night(options, RUN_DATE, site, arms=ArmsFile.read(BUILT_IN))


def measure_night(
    night: Night, site: Site, corpus: Path, embedded: Path | None = None
) -> dict[str, Measured]:
    """Run a night over a corpus; returns what each stage took.

    Args:
        embedded: another corpus, whose vectors are taken over.
    """
    measured = {}
    meter = Meter()
    for stage, result in stages(night, site):
        stats = meter.stats()
        references = result.values() if isinstance(result, dict) else [result]
        artifacts = [site.store.open(each) for each in references if isinstance(each, str)]
        counts = [artifact.manifest.counts for artifact in artifacts]
        if recorded := [each["stats"] for each in counts if "stats" in each]:
            stats = total(recorded)
        measured[stage] = measured_of(stats)
        if stage == STAGES[-1]:
            break
        if stage == "snapshot" and embedded:
            _take_over_vectors(site.store, artifacts[0], embedded)
        meter = Meter()
    return measured


def _take_over_vectors(store: Store, snapshot: Artifact, embedded: Path) -> None:
    """Publish embeddings of every passage of the snapshot, with the vectors of another corpus.

    Passage i gets the vector of passage i mod n of the n that were embedded.
    """
    (real,) = Store(embedded / "home" / "artifacts").published("embeddings", embedded.name)
    schema = real.dataset("passages").schema.remove_metadata()
    vectors = real.read("passages", ["embedding"])["embedding"].combine_chunks()

    def rows() -> Iterator[pa.RecordBatch]:
        start = 0
        names = ["passage_id", "text_hash"]
        for batch in snapshot.dataset("passages").to_batches(columns=names, batch_readahead=1):
            places = pa.array(np.arange(start, start + batch.num_rows) % len(vectors))
            yield pa.record_batch([batch[0], batch[1], vectors.take(places)], schema=schema)
            start += batch.num_rows

    _, collection, _ = snapshot.reference.split("/")
    key = artifact_key(benchmark="vectors", of=snapshot.reference)
    earlier = store.artifact("embeddings", collection, key)
    earlier.write_part("passages", in_groups(rows()), schema)
    earlier.write_part("queries", real.read("queries").cast(schema), schema)
    earlier.publish(
        expected={"passages": 1, "queries": 1},
        inputs={},
        config=real.manifest.config,
        counts={},
        provenance={},
    )


def write_results(folder: Path, results: Results) -> list[Path]:
    """Write results.json, and scale.png where there is more than one size.

    Raises:
        StorageError: the folder cannot be written.
    """
    values = {
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(results),
        "exponents": {stage: results.exponent(stage) for stage in STAGES},
        "embed_seconds_extrapolated": results.extrapolated(),
        "ratios": results.ratios(),
    }
    paths = [folder / "results.json"]
    with replacing(paths[0], "Free space, or give another --out.") as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if len(results.sizes) > 1:
        paths.append(folder / "scale.png")
        series = {stage: results.seconds(stage) for stage in STAGES}
        plots.plot_scale(paths[-1], series, results.extrapolated())
    return paths


def print_results(out: Console, results: Results) -> None:
    """The table, then the comparisons, one a line."""
    machine = results.machine
    out.print(
        f"{machine['processor']}, {machine['threads']} threads, load "
        f"{machine['load_average'][0]} at the start; {results.queries:,} queries",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    for heading in (*(f"{size:,}" for size in results.sizes), "grows as"):
        table.add_column(heading, justify="right")
    for stage in (*STAGES, *BY_HAND.values()):
        seconds = {size: f"{value:,.1f} s" for size, value in results.seconds(stage)}
        if stage == "embed":
            seconds |= {size: f"~{value:,.0f} s" for size, value in results.extrapolated().items()}
        if not seconds:
            continue
        peaks = (results.sizes[size][stage]["peak_memory_bytes"] / 2**30 for size in seconds)
        cells = (
            f"{each} {peak:.2f} GiB" for each, peak in zip(seconds.values(), peaks, strict=True)
        )
        exponent = results.exponent(stage)
        table.add_row(stage, *cells, "–" if exponent is None else f"n^{exponent:.2f}")
    out.print(table)
    out.print(
        f"[dim]Seconds, and peak memory of the night's process during the stage. ~: extrapolated "
        f"from {EMBEDDED:,} passages; its memory is that of taking over vectors. Growth: of "
        f"seconds, from {FITTED:,} passages on, but for embedding.[/]"
    )
    for line, ratio in results.ratios().items():
        out.print(f"{line}: {ratio:.2f}× as fast", highlight=False, soft_wrap=True)
    if results.embedding:
        difference = results.embedding["largest_difference"]
        out.print(f"vectors of both ways: at most {difference:.1g} apart", highlight=False)


def _machine() -> dict[str, Any]:
    """What the figures are measured on, and how busy it is."""
    threads = Settings.from_environment().threads
    return {**fingerprint(threads), "load_average": [round(x, 2) for x in os.getloadavg()]}


def main() -> None:
    """What `_run` starts: a task, its corpus and further folders on the command line."""
    task, corpus, *others = sys.argv[1:]
    tasks: dict[str, Callable[..., Any]] = {
        "night": measure_night,
        "bm25s": measure_bm25s,
        "embedding": compare_embedding,
    }
    site, folder = Site.from_environment(), Path(corpus)
    result = tasks[task](_night(folder, site), site, folder, *map(Path, others))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
