"""Symptoms: signs that a ranker did nothing, though no task failed and every number is there.

In: what an arm's lists of one night look like, as arrays over its lists. Out: for each symptom, the
share of the lists that show it. A symptom is *found* where enough lists are looked at and the share
reaches its threshold; the arm is then `suspect`, unless it is declared to `expect` it.

Users of other rerankers got such rankings without an error: zeros from a wrong chat template, .5
for every passage, the first stage's order handed back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perank_tasks.config import SymptomName

MIN_CANDIDATES = 8
"""Shorter lists may stay as they are, or come out as another arm's. Over `pydocs` and DL 2019 a
fusion in which BM25 weighs most (3) kept 72% and 84% of the orders of the first five candidates,
and 49% and 53% of eight; `cosine` and the built-in fusion agreed on 57% and 51% of five, and on 25%
and 19% of eight."""

MIN_LISTS = 10
"""Fewer lists show nothing: two healthy arms may well agree on a handful of queries."""


@dataclass(frozen=True)
class Symptom:
    """One sign. `threshold` is the least share of lists (of texts, for `texts-cut`)."""

    threshold: float
    meaning: str
    """What is so, as a sentence without its subject: `… in 43 of 43 lists`."""


SYMPTOMS: Mapping[SymptomName, Symptom] = {
    # Nearly all: a good reranker keeps some orders of five, and none of a hundred.
    "order-unchanged": Symptom(0.95, "its order is the one it was given"),
    # Most: a few lists may really tie, as where no passage answers.
    "scores-equal": Symptom(0.5, "all its scores are equal, or not finite"),
    # All: near ties differ in the last bits between any two models.
    "same-as-another": Symptom(1.0, "it ranks as another arm does, to the last place"),
    # Most: an answer that is repaired now and then is what free generation does.
    "answers-repaired": Symptom(0.5, "its answers were malformed or had to be repaired"),
    # Half: what is cut is not read, and long documents are cut at their end, where less stands.
    "texts-cut": Symptom(0.5, "passages were cut before they were read"),
}
"""By name, in the order they are shown."""


def is_found(name: SymptomName, shown: int, looked_at: int) -> bool:
    """Whether so many of those looked at make a symptom."""
    least = MIN_LISTS * (MIN_CANDIDATES if name == "texts-cut" else 1)
    return looked_at >= least and shown >= SYMPTOMS[name].threshold * looked_at


def shares(lists: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """How many lists show each symptom, and of how many; of `texts-cut`, how many texts.

    Whether another arm ranks the same is not in its own lists: none show it here.

    Args:
        lists: columns, each (n,), of the n lists of one arm and night.
            candidates, windows, numbers_missing, numbers_repeated, is_malformed, texts_cut: as in
            `schemas.QUERY_STATUS`.
            ranked: whether they were ranked at all.
            moved: whether any place differs from the one that was given.
            flat: whether all scores are equal.
            not_finite: whether they were left unranked because scores were not.
    """
    ranked, not_finite, malformed = lists["ranked"], lists["not_finite"], lists["is_malformed"]
    long = lists["candidates"] >= MIN_CANDIDATES
    repairs = lists["numbers_missing"] + lists["numbers_repeated"]
    repaired = (lists["windows"] > 0) & (repairs >= lists["windows"])
    shown_among = {
        "order-unchanged": (~lists["moved"], ranked),
        "scores-equal": (lists["flat"] | not_finite, ranked | not_finite),
        "same-as-another": (np.zeros_like(long), ranked),
        "answers-repaired": (repaired | malformed, ranked | malformed),
    }
    counted = {
        name: (int((shown & among & long).sum()), int((among & long).sum()))
        for name, (shown, among) in shown_among.items()
    }
    texts = lists["texts_cut"][ranked].sum(), lists["candidates"][ranked].sum()
    return {**counted, "texts-cut": (int(texts[0]), int(texts[1]))}
