"""A stage trained by hand: data by name in, a folder with checkpoint, curves and report out.

What `perank train align` and `perank train rank` do. A run from collections to a decision trains by
`stages/` instead, into artifacts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.night.site import Site
from perank_tasks.training.alignment import align
from perank_tasks.training.data import splits
from perank_tasks.training.data.readers import AlignmentExamples, Joined, RankingExamples, terms
from perank_tasks.training.ranking import learn_to_rank
from perank_tasks.training.recipe import AlignRecipe, RankRecipe
from perank_tasks.training.stage_options import StageOptions
from perank_tasks.training.training_folder import Run

HOLD_OUT_AT_MOST = 1000
"""Passages that alignment keeps for measuring, at most."""

Split = Callable[[Any], tuple[Any, Any]]
"""Examples into places to train on and places to measure on."""


def align_by_hand(options: StageOptions, site: Site) -> dict[str, Any]:
    """Stage 1, new or resumed; returns its report, as `alignment.align` does.

    Raises:
        ConfigError: the recipe is not valid.
        TrainingError: too little data, or a loss that is not finite.
    """
    recipe = AlignRecipe.preset(options.preset, options.set)

    def split(passages: Any) -> tuple[Any, Any]:
        count = min(HOLD_OUT_AT_MOST, round(options.hold_out * len(passages)))
        order = np.random.default_rng(recipe.seed).permutation(len(passages))
        return np.sort(order[count:]), np.sort(order[:count])

    return align(recipe, *_examples(options, site, AlignmentExamples, split))


def rank_by_hand(options: StageOptions, site: Site) -> dict[str, Any]:
    """Stage 2, new or resumed; returns its report, as `ranking.learn_to_rank` does.

    Raises:
        ConfigError: the recipe is not valid.
        TrainingError: too little data, or a loss that is not finite.
    """
    recipe = RankRecipe.preset(options.preset, options.set)

    def split(lists: Any) -> tuple[Any, Any]:
        if not options.hold_out:
            return range(len(lists)), ()
        return splits.hold_out(lists.queries, options.hold_out, recipe.seed)

    return learn_to_rank(recipe, *_examples(options, site, RankingExamples, split))


def _examples(
    options: StageOptions, site: Site, reader: Callable[[Store, str], Any], split: Split
) -> tuple[Any, Any, Run]:
    """Examples to train on and to measure on, and the run that records what they are.

    Args:
        reader: of one reference.
        split: where there are no development data.
    """
    examples, record = _joined(site.store, options.data, reader)
    if options.development:
        held_out, record["development"] = _joined(site.store, options.development, reader)
    else:
        kept, places = split(examples)
        examples, held_out = examples.select(kept), examples.select(places)
        record["hold_out"] = options.hold_out
    settings = site.settings
    run = Run(options.out, settings.cache, settings.threads, options.start, record)
    return examples, held_out, run


def _joined(
    store: Store, references: Sequence[str], reader: Callable[[Store, str], Any]
) -> tuple[Any, dict[str, Any]]:
    parts = [reader(store, reference) for reference in references]
    notes = {source: note for part in parts for source, note in terms(part.artifact).items()}
    return Joined(parts), {"references": [p.artifact.reference for p in parts], "terms": notes}
