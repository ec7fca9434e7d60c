"""Ablation: what each part of a recipe is worth, by leaving it out and training again.

In: a training run. Out: for the recipe as it is and for each variation of it, trained and measured
on the development collection: means with intervals, paired tests against the recipe as it is, and
what the LLM adds over the checkpoint's residual alone. A part that the recipe does not have is put
in instead, with the paper's weight, so that every row says what one part does.

Every cell is an artifact, `cells/<name>/<key>`: what was stopped goes on with the next cell, and
within a cell with the training's next step.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Store, artifact_key
from perank_tasks.errors import ConfigError
from perank_tasks.schemas import CHECKPOINT_SCORES
from perank_tasks.settings import Settings
from perank_tasks.support.files import replacing
from perank_tasks.training.comparing import (
    MAIN,
    Score,
    Values,
    compare_arms,
    in_words,
    markdown_table,
    read_scores,
    score,
    scores_table,
)
from perank_tasks.training.data.options import DataOptions
from perank_tasks.training.judged import Judged
from perank_tasks.training.kept import report_of
from perank_tasks.training.options import Training
from perank_tasks.training.stages.align import align_projector
from perank_tasks.training.stages.data import make_data
from perank_tasks.training.stages.rank import learn_to_rank
from perank_tasks.warehouse import registry
from perank_tasks.warehouse.comparison import MeasureComparison

log = logging.getLogger(__name__)

KIND = "cells"
FULL = "full"
ON, OFF = "LLM on", "LLM off"
_REMEDY = "The cells are kept; run the same command again, or with another --out."

PAPER_TEXT_WEIGHT, PAPER_KL_WEIGHT = 1.0, 0.2


def _alignment(training: Training) -> dict[str, Any]:
    options = training.options.model_copy(update={"align": not training.options.align})
    passages = {**training.ranking_data.model_dump(), "stage": "alignment"}
    data = DataOptions.parse(passages) if options.align else None
    return {"options": options, "alignment_data": data}


def _kl(training: Training) -> dict[str, Any]:
    if training.rank.kl_weight:
        return _rank(training, kl_weight=0.0)
    text = training.rank.text_weight or PAPER_TEXT_WEIGHT
    return _rank(training, kl_weight=PAPER_KL_WEIGHT, text_weight=text)


def _text(training: Training) -> dict[str, Any]:
    if training.rank.text_weight:
        return _rank(training, text_weight=0.0, kl_weight=0.0)
    return _rank(training, text_weight=PAPER_TEXT_WEIGHT)


def _residual(training: Training) -> dict[str, Any]:
    if training.rank.residual:
        return _rank(training, residual=False, score_residual=False, prompt_order="given")
    return _rank(training, residual=True)


def _query_token(training: Training) -> dict[str, Any]:
    return _rank(training, query_token=not training.rank.query_token)


def _rank(training: Training, **changes: Any) -> dict[str, Any]:
    recipe = type(training.rank)
    return {"rank": recipe.parse(training.rank.model_dump() | changes)}


@dataclass(frozen=True)
class Part:
    """One part of a recipe: whether a run has it, and the run with it switched."""

    name: str
    is_in: Callable[[Training], bool]
    switched: Callable[[Training], dict[str, Any]]

    def row(self, training: Training) -> str:
        return f"{'without' if self.is_in(training) else 'with'} {self.name}"


PARTS = {
    "alignment": Part("alignment", lambda t: t.options.align, _alignment),
    "kl": Part("KL", lambda t: t.rank.kl_weight > 0, _kl),
    "text": Part("texts in training", lambda t: t.rank.text_weight > 0, _text),
    "residual": Part("residual", lambda t: t.rank.residual, _residual),
    "query-token": Part("query token", lambda t: t.rank.query_token, _query_token),
}


@dataclass(frozen=True)
class Row:
    """One cell, over all seeds: a query's value is its mean over them."""

    name: str
    score: Score
    without_llm: Score | None
    against_full: MeasureComparison | None
    llm_adds: MeasureComparison | None
    steps: int
    seconds: float


@dataclass(frozen=True)
class Ablation:
    """The rows, the recipe as it is first."""

    training: Training
    collection: str
    queries: int
    seeds: list[int]
    rows: list[Row]


def variations(training: Training, parts: list[str]) -> dict[str, Training]:
    """The run as it is, and with each of these parts switched: {row's name: run}.

    Raises:
        ConfigError: there is no such part, or one cannot be switched in this recipe.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(f"no part {', '.join(unknown)}: choose from {', '.join(PARTS)}.")
    found = {FULL: training}
    for part in (PARTS[name] for name in parts):
        try:
            found[part.row(training)] = training.model_copy(update=part.switched(training))
        except ConfigError as error:
            raise ConfigError(
                f"the recipe cannot be trained {part.row(training)}: {error}\nChange the recipe, "
                "or leave that part out: --parts"
            ) from None
    return found


def run_ablation(training: Training, parts: list[str], seeds: int = 1) -> Ablation:
    """Train and measure every cell that is not done.

    Args:
        parts: names in `PARTS`.
        seeds: how often each cell is trained, with the recipe's seed and those after it.
    """
    runs = variations(training, parts)
    numbers = [training.rank.seed + i for i in range(seeds)]
    judged = Judged(training.development, training)
    cells: dict[str, dict[str, Values]] = {}
    costs: dict[str, tuple[int, float]] = {}
    for name, run in runs.items():
        log.info("cell: %s", name)
        found = [measure_cell(_seeded(run, seed), judged) for seed in numbers]
        cells[name] = _mean_of([values for values, _ in found])
        costs[name] = found[0][1]["steps"], sum(report["seconds"] for _, report in found)
    return _table(training, judged, numbers, cells, costs)


def measure_cell(
    training: Training,
    judged: Judged,
    queries: tuple[frozenset[str], frozenset[str]] | None = None,
) -> tuple[dict[str, Values], dict[str, Any]]:
    """Train one cell and measure it, LLM on and off; what is done is found.

    Args:
        judged: where it is measured.
        queries: (those trained on, those measured on), identifiers; None: all of either.

    Returns:
        Values by `ON` and, where it has a residual, `OFF`, and the training's report.
    """
    from perank_tasks.perank import PERank

    settings = Settings.from_environment()
    store = Store(settings.root)
    trained_on, measured_on = queries or (None, None)
    data = make_data(training)
    trained = learn_to_rank(training, data, align_projector(training, data), trained_on)
    key = artifact_key(
        trained=trained,
        night=judged.night.arms[0].hash,
        candidates=judged.candidates,
        ranking=judged.options,
        queries=sorted(measured_on) if measured_on is not None else None,
        code=training.fingerprint["code"],
    )
    cell = store.artifact(KIND, training.options.name, key)
    if not cell.use():
        ranker = PERank.from_pretrained(registry.local(trained, store), cache=settings.cache)
        values = {ON: judged.measure(ranker, measured_on)}
        if (off := judged.measure_without_llm(ranker, measured_on)) is not None:
            values[OFF] = off
        cell.write_part("scores", scores_table(values), CHECKPOINT_SCORES)
        cell.publish(
            expected={"scores": 1},
            inputs={"trained": trained, "candidates": judged.candidates},
            config={"rank": training.rank.model_dump(mode="json")},
            counts={name: score(found).mean for name, found in values.items()},
            provenance=training.fingerprint,
        )
    return dict(read_scores(cell.read("scores"))), report_of(store.open(trained))


def write_table(ablation: Ablation, folder: Path) -> list[Path]:
    """Write `ablation.md` and `ablation.json`; returns their paths.

    Raises:
        StorageError: they cannot be written.
    """
    paths = [folder / "ablation.md", folder / "ablation.json"]
    for path, text in zip(paths, (as_markdown(ablation), as_json(ablation)), strict=True):
        with replacing(path, _REMEDY) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def as_markdown(ablation: Ablation) -> str:
    """The table, with what one needs to read it."""
    heading = (
        *("", f"{MAIN} [95%]", "LLM off", "against full", "p", "Holm", "LLM on - off", "p"),
        *("steps", "minutes"),
    )
    rows = [
        (
            row.name,
            str(row.score),
            f"{row.without_llm.mean:.4f}" if row.without_llm else "–",
            *_test(row.against_full),
            _p(row.against_full.p_holm if row.against_full else None),
            *_test(row.llm_adds),
            row.steps,
            f"{row.seconds / 60:.1f}",
        )
        for row in ablation.rows
    ]
    training = ablation.training
    return (
        f"# Ablation of {training.options.name}\n\n"
        f"{ablation.collection}, {ablation.queries} judged queries, {training.options.depth} "
        f"candidates; preset {training.options.preset}, training data "
        f"{', '.join(training.ranking_data.collections) or training.ranking_data.reference_jsonl}, "
        f"seeds {', '.join(map(str, ablation.seeds))}.\n\n"
        f"{markdown_table(heading, rows)}\n\n"
        "Paired randomisation tests over queries, two-sided; intervals of differences: Student's "
        "t; Holm's correction over all tests of the table's measures. A query's value is its mean "
        "over seeds, so the tests do not know how far another seed would have come out.\n"
    )


def as_json(ablation: Ablation) -> str:
    """The same figures, in full."""
    value = {
        "name": ablation.training.options.name,
        "collection": ablation.collection,
        "queries": ablation.queries,
        "measure": MAIN,
        "seeds": ablation.seeds,
        "training": ablation.training.to_json(),
        "rows": [
            {
                "name": row.name,
                "mean": row.score.mean,
                "interval": [row.score.interval.low, row.score.interval.high],
                "without_llm": row.without_llm.mean if row.without_llm else None,
                "against_full": _plain(row.against_full),
                "llm_adds": _plain(row.llm_adds),
                "steps": row.steps,
                "seconds": row.seconds,
            }
            for row in ablation.rows
        ],
    }
    return json.dumps(value, indent=1) + "\n"


def _table(
    training: Training,
    judged: Judged,
    seeds: list[int],
    cells: dict[str, dict[str, Values]],
    costs: dict[str, tuple[int, float]],
) -> Ablation:
    arms = {(name, state): values for name, cell in cells.items() for state, values in cell.items()}
    labels = {pair: f"{pair[0]}, {pair[1]}" for pair in arms}
    against = [(labels[FULL, ON], labels[name, ON]) for name in cells if name != FULL]
    adds = [(labels[name, OFF], labels[name, ON]) for name in cells if OFF in cells[name]]
    tests = compare_arms({labels[pair]: v for pair, v in arms.items()}, [*against, *adds])

    def test(a: tuple[str, str], b: tuple[str, str]) -> MeasureComparison | None:
        found = tests.get((labels.get(a, ""), labels[b]))
        return found[MAIN] if found else None

    rows = [
        Row(
            name=name,
            score=score(cell[ON]),
            without_llm=score(cell[OFF]) if OFF in cell else None,
            against_full=test((FULL, ON), (name, ON)) if name != FULL else None,
            llm_adds=test((name, OFF), (name, ON)),
            steps=costs[name][0],
            seconds=costs[name][1],
        )
        for name, cell in cells.items()
    ]
    return Ablation(training, judged.night.collection_name, len(judged.queries), seeds, rows)


def _seeded(training: Training, seed: int) -> Training:
    recipes = {name: getattr(training, name) for name in ("align", "rank")}
    return training.model_copy(
        update={name: r.model_copy(update={"seed": seed}) for name, r in recipes.items()}
    )


def _mean_of(found: list[dict[str, Values]]) -> dict[str, Values]:
    return {state: _mean_values([cell[state] for cell in found]) for state in found[0]}


def _mean_values(found: list[Values]) -> Values:
    def by_query(measure: str, of: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        for query_id in of:
            yield query_id, float(np.mean([values[measure][query_id] for values in found]))

    return {measure: dict(by_query(measure, of)) for measure, of in found[0].items()}


def _test(test: MeasureComparison | None) -> tuple[str, str]:
    if test is None:
        return "–", "–"
    interval = f"[{test.interval.low:+.4f}, {test.interval.high:+.4f}]"
    return f"{test.delta:+.4f} {interval}", _p(test.p)


def _p(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def _plain(test: MeasureComparison | None) -> dict[str, Any] | None:
    if test is None:
        return None
    return {
        "delta": test.delta,
        "interval": [test.interval.low, test.interval.high],
        "p": test.p,
        "p_holm": test.p_holm,
        "better": test.better,
        "worse": test.worse,
        "words": in_words(test),
    }
