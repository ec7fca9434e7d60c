"""A stage trained by hand: data by name in, a folder with checkpoint, curves and report out.

What `perank train align` and `perank train rank` do. A run from collections to a decision trains by
`stages/` instead, into artifacts.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from perank_tasks.night.site import Site
from perank_tasks.training.alignment import align
from perank_tasks.training.data import splits
from perank_tasks.training.data.readers import AlignmentExamples, RankingExamples, terms
from perank_tasks.training.ranking import learn_to_rank
from perank_tasks.training.recipe import AlignRecipe, RankRecipe
from perank_tasks.training.stage_options import StageOptions
from perank_tasks.training.training_folder import Run

HOLD_OUT_AT_MOST = 1000
"""Passages that alignment keeps for measuring, at most."""


def align_by_hand(options: StageOptions, site: Site) -> dict[str, Any]:
    """Stage 1, new or resumed; returns its report, as `alignment.align` does.

    Raises:
        ConfigError: the recipe is not valid.
        TrainingError: too little data, or a loss that is not finite.
    """
    recipe = AlignRecipe.preset(options.preset, options.set)

    def split(parts: Sequence[AlignmentExamples]) -> tuple[list[int], list[int]]:
        count = sum(map(len, parts))
        held_out = min(HOLD_OUT_AT_MOST, round(options.hold_out * count))
        return splits.hold_out_some(count, held_out, recipe.seed)

    return align(recipe, *_examples(options, site, AlignmentExamples, split))


def rank_by_hand(options: StageOptions, site: Site) -> dict[str, Any]:
    """Stage 2, new or resumed; returns its report, as `ranking.learn_to_rank` does.

    Raises:
        ConfigError: the recipe is not valid.
        TrainingError: too little data, or a loss that is not finite.
    """
    recipe = RankRecipe.preset(options.preset, options.set)

    def split(parts: Sequence[RankingExamples]) -> tuple[list[int], list[int]]:
        queries = [query for part in parts for query in part.queries]
        return splits.hold_out(queries, options.hold_out, recipe.seed)

    return learn_to_rank(recipe, *_examples(options, site, RankingExamples, split))


def _examples(
    options: StageOptions, site: Site, reader: Callable[..., Any], split: Callable[..., Any]
) -> tuple[Any, Any, Run]:
    """Examples to train on and to measure on, and the run that records what they are.

    Args:
        reader: of one reference.
        split: what was read, into places to train on and places to measure on.
    """
    parts = [reader(site.store, reference) for reference in options.data]
    examples: ConcatDataset[Any] = ConcatDataset(parts)
    trained_on, held_out = (Subset(examples, places) for places in split(parts))
    record = {
        "references": [part.artifact.reference for part in parts],
        "terms": {name: note for part in parts for name, note in terms(part.artifact).items()},
        "hold_out": options.hold_out,
    }
    settings = site.settings
    run = Run(options.out, settings.cache, settings.threads, options.start, record)
    return trained_on, held_out, run
