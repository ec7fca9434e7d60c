"""The gate: one exit status for verdicts, for scripts and CI.

It never fails open: what could not be judged is not fine. A first night is not judged either, so
that a renamed arm, or a warehouse that was lost, does not pass.
"""

from collections.abc import Sequence

from perank_tasks.regression.ladder import CALLED, Verdict
from perank_tasks.regression.thresholds import FailOn

FINE, BAD, UNJUDGED = 0, 1, 2
"""The exit statuses."""

BAD_WORDS: dict[FailOn, tuple[Verdict, ...]] = {
    "regression": (Verdict.REGRESSION,),
    "suspect": (Verdict.SUSPECT, Verdict.REGRESSION),
    # Whatever changed and nobody accepted.
    "drift": (Verdict.DRIFT, *(word for word in CALLED if word != Verdict.INCOMPLETE)),
}


def gate(words: Sequence[tuple[str, str]], fail_on: FailOn) -> tuple[int, str]:
    """The exit status of the verdicts of some arms, and why.

    Args:
        words: each arm's name and verdict.
    """
    bad = [arm for arm, word in words if word in BAD_WORDS[fail_on]]
    unjudged = [arm for arm, word in words if word in (Verdict.FIRST, Verdict.INCOMPLETE)]
    if bad:
        return BAD, f"fails --fail-on {fail_on}: {', '.join(bad)}"
    if unjudged or not words:
        return UNJUDGED, f"could not be judged: {', '.join(unjudged) or 'there are no results'}"
    return FINE, f"passes --fail-on {fail_on}"
