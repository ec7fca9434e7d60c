"""`perank bench pipeline`: in, sizes of corpora; out, what every stage takes, and how it grows.

Each stage runs in a process of its own (`pipeline_stage`), one after the other, and is written to
`results.json` as soon as it is measured; a second run with the same folder measures what is
missing. Rates for `perank plan` come out beside it.

Passages are embedded up to `EMBEDDED`; larger corpora are given the vectors of the largest
embedded one, over again, and the seconds of embedding them are extrapolated, and marked so.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from perank_tasks.bench import plots
from perank_tasks.bench.corpus import write_corpus
from perank_tasks.bench.pipeline_stage import Measured, machine
from perank_tasks.config import NightOptions
from perank_tasks.errors import ConfigError, StorageError
from perank_tasks.night.plan import plan_night
from perank_tasks.support.files import replacing
from perank_tasks.support.progress import progress

EMBEDDED = 10_000
"""Passages of the largest corpus that is embedded."""

FITTED = 10_000
"""Passages of the smallest corpus that a stage's growth is fitted to."""

STAGES = {
    "snapshot": ("snapshots",),
    "index": ("terms", "indexes"),
    "retrieve": ("found", "candidates"),
    "embed": ("embeddings",),
    "join": ("rankings",),
    "evaluate": ("results",),
    "load": (),
}
"""The stages of a night, and the kinds of artifacts that each makes."""

COMPARED = ("bm25s by hand",)
"""What is measured at every size to compare the stages with."""

RUN_DATE = date(2026, 1, 31)

# https://github.com/xhluca/bm25-benchmarks (README, read 2026): one core of an Intel Xeon at
# 2.20 GHz. Lucene by way of Pyserini: documents indexed, and queries answered, in a second.
LUCENE = {
    "fiqa": (57_638, 3_735.38, 12.51),
    "trec-covid": (171_332, 3_768.1, 8.53),
    "nq": (2_681_468, 6_652.33, 11.04),
    "msmarco": (8_841_823, 9_686.07, 11.01),
}
"""{collection: (passages, passages indexed a second, queries a second)}"""


@dataclass(frozen=True)
class PipelineOptions:
    """What to measure; see the command."""

    sizes: tuple[int, ...]
    queries: int
    compare: bool
    keep: bool

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 100:
            raise ConfigError(
                f"--sizes is {','.join(map(str, self.sizes))}; expected numbers of passages, each "
                "100 or more, as in 1000,10000,100000"
            )
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigError("--sizes must be ascending, none twice")
        if self.sizes[0] > EMBEDDED:
            raise ConfigError(
                f"the first of --sizes is {self.sizes[0]}; expected {EMBEDDED} or less, since "
                "larger corpora are given vectors of one that was embedded"
            )
        if self.queries < 1:
            raise ConfigError(f"--queries is {self.queries}; expected 1 or more")


@dataclass
class Results:
    """Everything measured: {size: {stage: Measured}}, and on what."""

    queries: int
    machine: dict[str, Any]
    sizes: dict[int, dict[str, Measured]] = field(default_factory=dict)
    embedding: dict[str, float] = field(default_factory=dict)
    """Passages a second by the stage and by the library's plain call, and tokens a passage."""

    def seconds(self, stage: str, *, of_cpu: bool = False) -> list[tuple[int, float]]:
        """(passages, seconds) of a stage, smallest first; of embedding, where it was measured."""
        return [
            (size, stages[stage].cpu_seconds if of_cpu else stages[stage].seconds)
            for size, stages in sorted(self.sizes.items())
            if stage in stages and (stage != "embed" or size <= EMBEDDED)
        ]

    def exponent(self, stage: str, *, of_cpu: bool = False) -> float | None:
        """How seconds grow with passages: the slope of a line through both logarithms.

        From `FITTED` passages on, but for embedding: below, what every size takes alike would make
        growth look slower than it is.
        """
        points = self.seconds(stage, of_cpu=of_cpu)
        return slope([p for p in points if stage == "embed" or p[0] >= FITTED])


def slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Least squares of log y over log x; None for fewer than two points."""
    if len(points) < 2:
        return None
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return above / sum((x - mean_x) ** 2 for x in xs)


def run_pipeline(options: PipelineOptions, folder: Path, out: Console) -> Results:
    """Measure what `folder` does not hold yet; prints and writes each stage as it is done.

    Raises:
        ConfigError: the folder holds results of another number of queries.
        StorageError: a stage's process failed; its own message is passed on.
    """
    results = read_results(folder) or Results(options.queries, machine())
    if results.queries != options.queries:
        raise ConfigError(
            f"{folder} holds results for {results.queries} queries, not {options.queries}; "
            f"ask for {results.queries}, or give another --out"
        )
    work = folder / "work"
    if not work.is_dir():
        _forget(results, options)
    vectors: str | None = None
    steps = len(options.sizes) * (len(STAGES) + len(COMPARED)) + 1
    with progress("measuring", steps, "stages") as advance:
        for size in options.sizes:
            bench = _Size(work, folder, size, options, results, vectors)
            for stage in (*STAGES, *(COMPARED if options.compare else ())):
                if bench.measure(stage):
                    _print_row(out, size, stage, results.sizes[size][stage])
                advance(1)
            if size <= EMBEDDED:
                (vectors,) = results.sizes[size]["embed"].result.values()
                largest = bench
            if not options.keep and size > EMBEDDED:
                bench.remove()
        if options.compare and not results.embedding:
            results.embedding = largest.run("embedding").details
            write_results(folder, results)
        advance(1)
    if not options.keep:
        shutil.rmtree(work, ignore_errors=True)
    return results


def _forget(results: Results, options: PipelineOptions) -> None:
    """Drop measurements of which the artifacts are needed again, and gone."""
    wanted = {*STAGES, *(COMPARED if options.compare else ())}
    unfinished = [s for s in options.sizes if not wanted <= set(results.sizes.get(s, {}))]
    for size in unfinished:
        results.sizes.pop(size, None)
    if any(size > EMBEDDED for size in unfinished):
        embedded = max(size for size in options.sizes if size <= EMBEDDED)
        for stage in ("snapshot", "embed"):
            results.sizes.get(embedded, {}).pop(stage, None)


class _Size:
    """One corpus: its stages, in order."""

    def __init__(
        self,
        work: Path,
        folder: Path,
        size: int,
        options: PipelineOptions,
        results: Results,
        vectors: str | None,
    ):
        self.work, self.folder, self.size, self.results = work, folder, size, results
        self.name = f"corpus-{size}"
        self.corpus = work / self.name
        self.queries = options.queries
        self.vectors = vectors if size > EMBEDDED else None
        self.measured = results.sizes.setdefault(size, {})
        self.night: dict[str, Any] | None = None

    def measure(self, stage: str) -> bool:
        """Measure a stage unless it is measured already; returns whether it was."""
        if stage in self.measured:
            return False
        for kind in STAGES.get(stage, ()):
            shutil.rmtree(self.work / "home/artifacts" / kind / self.name, ignore_errors=True)
        if stage == "embed" and self.vectors:
            self.run("vectors")
        self.measured[stage] = self.run(stage)
        write_results(self.folder, self.results)
        return True

    def run(self, stage: str) -> Measured:
        """Run a stage in a process of its own."""
        if self.night is None:
            self._prepare()
        state = {
            "night": self.night,
            "folder": str(self.corpus),
            "done": {name: measured.result for name, measured in self.measured.items()},
            "vectors": self.vectors,
        }
        return _run(self.work, stage, self.size, state)

    def remove(self) -> None:
        """Remove the corpus and what was made of it."""
        shutil.rmtree(self.corpus, ignore_errors=True)
        for path in self.work.glob(f"home/artifacts/*/{self.name}"):
            shutil.rmtree(path, ignore_errors=True)

    def _prepare(self) -> None:
        """Make the corpus, then plan its night."""
        write_corpus(self.corpus, self.size, self.queries)
        # The arm that reads embeddings and needs no LLM.
        options = {"collection": f"files:{self.corpus}", "arms": ("cosine",), "run_date": RUN_DATE}
        self.night = plan_night(NightOptions.parse(options), RUN_DATE).to_json()


def _environment(work: Path) -> dict[str, str]:
    """The benchmark's own PERANK_HOME, so that no night of the user's is in the way."""
    hidden = ("PERANK_ROOT", "PERANK_WAREHOUSE", "PERANK_REPORTS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"PERANK_HOME": str(work / "home")}


def _run(work: Path, stage: str, size: int, state: dict[str, Any]) -> Measured:
    path = work / "state.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(state), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    done = subprocess.run(
        [sys.executable, "-m", "perank_tasks.bench.pipeline_stage", stage, str(path)],
        env=_environment(work),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise StorageError(
            f"The stage {stage} over {size:,} passages failed, exit status "
            f"{done.returncode}: {last[0]}. What was measured before is kept; the same command "
            "goes on from it."
        )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def read_results(folder: Path) -> Results | None:
    """What an earlier run has measured; None where there is nothing.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    path = folder / "results.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sizes = {
            int(size): {stage: Measured(**measured) for stage, measured in stages.items()}
            for size, stages in values["sizes"].items()
        }
        return Results(values["queries"], values["machine"], sizes, values["embedding"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read ({error!r}). Remove it, or give another --out."
        ) from error


def write_results(folder: Path, results: Results) -> list[Path]:
    """Write results.json, and what follows from it: table.md, rates.json and scale.png.

    Raises:
        StorageError: the folder cannot be written.
    """
    remedy = "What was measured before is kept. Free space and run the same command again."
    values = {
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "queries": results.queries,
        "machine": results.machine,
        "exponents": {stage: results.exponent(stage) for stage in STAGES},
        "exponents_of_cpu_seconds": {s: results.exponent(s, of_cpu=True) for s in STAGES},
        "embedding": results.embedding,
        "sizes": {
            str(size): {stage: asdict(measured) for stage, measured in stages.items()}
            for size, stages in sorted(results.sizes.items())
        },
    }
    paths = [folder / "results.json", folder / "table.md"]
    with replacing(paths[0], remedy) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    with replacing(paths[1], remedy) as temporary:
        temporary.write_text(markdown(results), encoding="utf-8")
    if rates := rates_of(results):
        paths.append(folder / "rates.json")
        with replacing(paths[-1], remedy) as temporary:
            temporary.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
    if any(len(results.seconds(stage)) > 1 for stage in STAGES):
        paths.append(folder / "scale.png")
        measured = {stage: results.seconds(stage) for stage in STAGES if results.seconds(stage)}
        plots.plot_scale(paths[-1], measured, {"embed": extrapolated(results)})
    return paths


def markdown(results: Results) -> str:
    """A table of every stage and size: seconds, of them on the CPU, peak memory, bytes written."""
    sizes = sorted(results.sizes)
    heads = [f"{size:,}" for size in sizes]
    lines = [
        "| stage | " + " | ".join(heads) + " | grows as | on the CPU |",
        "|---|" + "---:|" * (len(sizes) + 2),
    ]
    guessed = dict(extrapolated(results)[1:])
    for stage in (*STAGES, *COMPARED):
        cells = []
        for size in sizes:
            found = results.sizes[size].get(stage)
            cells.append("–" if found is None else _cell(found, guessed.get(size), stage))
        cells += [_power(results.exponent(stage)), _power(results.exponent(stage, of_cpu=True))]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(measured: Measured, guessed: float | None, stage: str) -> str:
    taken = f"{measured.seconds:,.1f} s"
    if stage == "embed" and guessed is not None:
        taken = f"~{guessed:,.0f} s (taken over: {taken})"
    written = f", {measured.bytes / 2**20:,.1f} MiB" if measured.bytes else ""
    memory = f"{measured.peak_memory_bytes / 2**30:.2f} GiB"
    return f"{taken}, CPU {measured.cpu_seconds:,.1f} s, {memory}{written}"


def extrapolated(results: Results) -> list[tuple[int, float]]:
    """Seconds of embedding the sizes at which it was not measured, from the last that was on.

    On a line through the two largest that were measured, since the queries are embedded at every
    size; in proportion to passages where there is one.
    """
    measured = results.seconds("embed")
    if not measured:
        return []
    (before, less), (passages, seconds) = measured[-2] if measured[1:] else (0, 0.0), measured[-1]
    each = (seconds - less) / (passages - before)
    larger = [size for size in sorted(results.sizes) if size > EMBEDDED]
    return [(passages, seconds), *((s, seconds + each * (s - passages)) for s in larger)]


def rates_of(results: Results) -> dict[str, Any] | None:
    """What `perank plan` multiplies, from the largest corpus that went through all stages."""
    whole = [size for size, stages in results.sizes.items() if set(STAGES) <= set(stages)]
    if not whole or not results.embedding:
        return None
    size = max(whole)
    stages = results.sizes[size]
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": results.machine,
        "passages": size,
        "queries": results.queries,
        "tokens_a_passage": results.embedding["tokens_a_passage"],
        "matrix_flops": results.embedding["matrix_flops"],
        "seconds": {
            **{stage: stages[stage].seconds for stage in STAGES},
            "embed": dict([*results.seconds("embed"), *extrapolated(results)])[size],
        },
        "bytes": {stage: stages[stage].bytes for stage in STAGES},
        "peak_memory_bytes": {stage: stages[stage].peak_memory_bytes for stage in STAGES},
    }


def print_results(out: Console, results: Results) -> None:
    """The table, then the comparisons in a few lines."""
    machine = results.machine
    out.print(
        f"{machine['processor']}, {machine['threads']} threads, load "
        f"{machine['load_average'][0]} at the start; {results.queries:,} queries",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    for size in sorted(results.sizes):
        table.add_column(f"{size:,}", justify="right")
    table.add_column("grows as", justify="right")
    table.add_column("on the CPU", justify="right")
    guessed = dict(extrapolated(results)[1:])
    measured_stages = {stage for stages in results.sizes.values() for stage in stages}
    for stage in (s for s in (*STAGES, *COMPARED) if s in measured_stages):
        cells = []
        for size in sorted(results.sizes):
            measured = results.sizes[size].get(stage)
            if measured is None:
                cells.append("–")
            elif stage == "embed" and size in guessed:
                cells.append(f"~{guessed[size]:,.0f} s {_gib(measured.peak_memory_bytes)}")
            else:
                cells.append(f"{measured.seconds:,.1f} s {_gib(measured.peak_memory_bytes)}")
        powers = (results.exponent(stage), results.exponent(stage, of_cpu=True))
        table.add_row(stage, *cells, *map(_power, powers))
    out.print(table)
    out.print(
        f"[dim]Seconds and peak memory of the process. ~: extrapolated from {EMBEDDED:,} passages; "
        "its memory is that of taking over vectors that are there. Growth: of seconds, and of "
        f"seconds on the CPU, which other work on the machine leaves alone; from {FITTED:,} "
        "passages on, but for embedding.[/]"
    )
    for line in comparisons(results):
        out.print(line, highlight=False, soft_wrap=True)


def comparisons(results: Results) -> list[str]:
    """What other ways take, size by size."""
    lines = []
    if found := results.embedding:
        ours, plain = (found[f"{who}_passages_per_second"] for who in ("ours", "plain"))
        lines.append(
            f"embedding: {ours:,.1f} passages a second, sentence-transformers' plain call "
            f"{plain:,.1f}: {ours / plain:.2f}×; vectors at most {found['largest_difference']:.1g} "
            "apart"
        )
    for size, stages in sorted(results.sizes.items()):
        by_hand = stages.get("bm25s by hand")
        if by_hand and {"index", "retrieve"} <= set(stages):
            for stage, count, what in (
                ("index", size, "passages"),
                ("retrieve", results.queries, "queries"),
            ):
                ours, theirs = count / stages[stage].seconds, count / by_hand.details[stage]
                lines.append(
                    f"{stage}, {size:,} passages: {ours:,.0f} {what} a second, bm25s by hand "
                    f"{theirs:,.0f}: {ours / theirs:.2f}×"
                )
    cited = "; ".join(
        f"{name} ({passages:,} passages) {indexed:,.0f} passages and {answered:,.1f} queries"
        for name, (passages, indexed, answered) in LUCENE.items()
    )
    lines.append(
        "Lucene, published, one core of a Xeon at 2.20 GHz, by way of Pyserini, a second: "
        f"{cited} (github.com/xhluca/bm25-benchmarks)"
    )
    return lines


def _print_row(out: Console, size: int, stage: str, measured: Measured) -> None:
    out.print(
        f"{size:,} passages, {stage}: {measured.seconds:,.2f} s, {measured.cpu_seconds:,.2f} s of "
        f"CPU, {_gib(measured.peak_memory_bytes)}, {measured.bytes / 2**20:,.1f} MiB written",
        highlight=False,
        soft_wrap=True,
    )


def _power(exponent: float | None) -> str:
    return "–" if exponent is None else f"n^{exponent:.2f}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
