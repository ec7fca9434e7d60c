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

MIN_CANDIDATES = 5
"""Lists shorter than this may keep their order, or tie, by chance: one in 120 of this length."""

MIN_LISTS = 10
"""Fewer lists show nothing: two healthy arms may well agree on a handful of queries."""


@dataclass(frozen=True)
class Symptom:
    """One sign. `threshold` is the least share of lists (of texts, for `texts-cut`)."""

    threshold: float
    meaning: str
    """What is so, as a sentence without its subject: `… in 43 of 43 lists`."""


SYMPTOMS: Mapping[str, Symptom] = {
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


@dataclass(frozen=True)
class Lists:
    """The n lists of one arm and night, each array of shape (n,).

    Attributes:
        candidates: their lengths.
        ranked: whether they were ranked at all.
        moved: whether any place differs from the one that was given.
        flat: whether all scores are equal, or were not finite.
        repairs: numbers missing in or repeated by answers; `answers`: how many answers there were.
        malformed: whether the answer could not be read.
        texts_cut: texts that were cut.
    """

    candidates: np.ndarray
    ranked: np.ndarray
    moved: np.ndarray
    flat: np.ndarray
    repairs: np.ndarray
    answers: np.ndarray
    malformed: np.ndarray
    texts_cut: np.ndarray


@dataclass(frozen=True)
class Share:
    """How many of those looked at show a symptom."""

    shown: int
    of: int

    def reaches(self, name: str) -> bool:
        """Whether the symptom of that name is found."""
        return self.of >= MIN_LISTS and self.shown >= SYMPTOMS[name].threshold * self.of


def shares(lists: Lists, twin: bool = False) -> dict[str, Share]:
    """The share of each symptom.

    Args:
        twin: whether another arm of the night ranks every list the same.
    """
    long = lists.candidates >= MIN_CANDIDATES
    ranked = long & lists.ranked
    repaired = (lists.answers > 0) & (lists.repairs >= lists.answers)
    answered = long & (lists.ranked | lists.malformed)
    texts = int(lists.candidates[lists.ranked].sum())
    return {
        "order-unchanged": _share(~lists.moved, ranked),
        "scores-equal": _share(lists.flat, long & (lists.ranked | lists.flat)),
        "same-as-another": _share(np.full(len(long), twin), ranked),
        "answers-repaired": _share(repaired | lists.malformed, answered),
        "texts-cut": Share(int(lists.texts_cut[lists.ranked].sum()), texts),
    }


def _share(shown: np.ndarray, among: np.ndarray) -> Share:
    return Share(int((shown & among).sum()), int(among.sum()))
