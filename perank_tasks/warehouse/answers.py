"""Answers: what somebody wants to know of a night within ten seconds.

In: what was said of each arm. Out: `Answers`: is it fine, what changed, which queries, what next.
The page, the terminal and the alert show these sentences and have none of their own.
"""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any, TypedDict

from perank_tasks.regression.ladder import Verdict
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.support.text import shortened
from perank_tasks.warehouse.attribution import and_list
from perank_tasks.warehouse.query_changes import fall_in_words
from perank_tasks.warehouse.sql_files import TableRow

QUESTIONS = {
    "fine": "Fine",
    "changed": "What changed",
    "queries": "Which queries",
    "next": "What next",
}

LISTED_QUERIES = 3
LONGEST_TEXT = 60
"""Characters of a query's text in a sentence."""

_FINE = {
    Verdict.FIRST: "There is nothing earlier to compare with.",
    Verdict.IDENTICAL: "Yes: every query ranks as before.",
    Verdict.DRIFT: "Yes: rankings changed, the means are within the noise band.",
    Verdict.UNUSUAL: "Yes: {arms} may be better, or it may be chance.",
    Verdict.ACKNOWLEDGED: "Yes: what changed in {arms} has been accepted.",
    Verdict.IMPROVEMENT: "Yes, and better in {arms}.",
    Verdict.SUSPECT: "Perhaps not: {arms} may be worse, or it may be chance.",
    Verdict.INCOMPLETE: "That cannot be said: {arms} could not be judged.",
    Verdict.REGRESSION: "No: worse in {arms}, beyond chance.",
}


class ArmVerdict(TypedDict):
    """One arm: its name, its word, the date of the night it was judged by, if there was one, and
    what the word rests on: `text` is all of it in one line."""

    arm: str
    arm_hash: str
    verdict: str
    against: str | None
    against_name: str | None
    """Of the result that it is compared with, as a person types it."""
    because: str
    measured: str
    """What it is compared with, and the numbers that its word rests on."""
    accepted: str | None
    """By whom, and why."""
    moved: str
    """How many queries rank otherwise."""
    lost: list[TableRow]
    """Rows of `query_changes`: of passages that fell, then of the largest losses."""
    slices: list[TableRow]
    """Fields of `Slice`, the one that lost most first; none where the mean rose."""
    different: list[str]
    costs: list[str]
    text: str


class Answer(TypedDict):
    """A sentence, and what to type where it asks for that."""

    text: str
    command: str | None


Answers = dict[str, list[Answer]]
"""{key of `QUESTIONS`: sentences}"""


def answer(
    arms: Sequence[ArmVerdict],
    word: str,
    cause: str | None,
    run_date: date,
    collection: str,
    can_be_accepted: bool,
) -> Answers:
    """The four answers of a night.

    Args:
        word: the night's, the worst of its arms.
        cause: what its changes come from, as far as can be told.
        can_be_accepted: whether any arm can be a baseline.
    """
    worst = sorted((arm for arm in arms if arm["verdict"] == word), key=_by_largest_loss)
    names = [arm["arm"] for arm in worst]
    of_arms = "every arm" if len(names) == len(arms) else and_list(names)
    fine = [_FINE[Verdict(word)].format(arms=of_arms)]
    if word == Verdict.ACKNOWLEDGED:
        fine += dict.fromkeys(arm["accepted"] for arm in worst if arm["accepted"])
    lacking = [arm for arm in arms if arm["verdict"] == Verdict.INCOMPLETE]
    fine += [f"{arm['arm']}: {arm['because']}" for arm in lacking]
    measured = [f"{arm['arm']}, {arm['measured']}" for arm in worst if arm["measured"]]
    # Of a first night, every arm beside the first stage; else the arm that is worst.
    fine += measured if word == Verdict.FIRST else measured[:1]
    changed = [*([cause] if cause else []), *_differences(arms, cause or "")]
    if not changed and any(arm["against"] for arm in arms):
        changed = ["nothing that is recorded of data, settings, code, libraries or machine"]
    if word == Verdict.FIRST:
        changed = ["nothing that could be known: it is the first night"]
    changed = changed or ["nothing that could be known: there is nothing to compare with"]
    lines = {"fine": fine, "changed": changed, "queries": _queries(worst)}
    compared = next((arm for arm in worst if arm["against_name"]), worst[0])
    return {
        **{key: [Answer(text=text, command=None) for text in lines[key]] for key in lines},
        "next": _next(compared, cause, run_date, collection, can_be_accepted),
    }


def in_lines(answers: Answers) -> list[tuple[str, str]]:
    """The answers as text: each question with its sentences, a line each."""
    lines = []
    for key, its in answers.items():
        sentences = (" ".join(filter(None, [a["text"], a["command"]])) for a in its)
        lines.append((QUESTIONS[key], "\n  ".join(sentences)))
    return lines


def _by_largest_loss(arm: ArmVerdict) -> float:
    return min((row["delta"] for row in arm["lost"]), default=0.0)


def _differences(arms: Sequence[ArmVerdict], cause: str) -> list[str]:
    """What was different and is not named in the cause, and what it cost more, with the arms of
    which that is said."""
    by_phrase: dict[str, list[str]] = defaultdict(list)
    for arm in arms:
        costs = [cost for cost in arm["costs"] if cost.startswith(("slower", "costlier"))]
        for phrase in [*arm["different"], *costs]:
            by_phrase[phrase].append(arm["arm"])
    return [
        phrase if len(names) == len(arms) else f"{phrase} ({', '.join(names)})"
        for phrase, names in by_phrase.items()
        if phrase not in cause
    ]


def _queries(worst: Sequence[ArmVerdict]) -> list[str]:
    """How many changed, those that lost most in any of these arms, and where the drop sits."""
    lines = [f"{arm['arm']}: {arm['moved']}" for arm in worst[:1] if arm["moved"]]
    by_query: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for arm in worst:
        for row in arm["lost"]:
            by_query.setdefault(row["query_id"], []).append((arm["arm"], row))
    deepest = [min(rows, key=lambda pair: pair[1]["delta"]) for rows in by_query.values()]
    deepest.sort(key=lambda pair: (pair[1]["passage_id"] is None, pair[1]["delta"]))
    for name, row in deepest[:LISTED_QUERIES]:
        text = f" “{_short(row['text'])}”" if row["text"] else ""
        others = len(by_query[row["query_id"]]) - 1
        where = f"{name} and {others} more" if others else name
        fell = f"; {fall_in_words(row)}" if row["passage_id"] else ""
        values = f"{row['against_value']:.2f} → {row['value']:.2f}"
        lines.append(f"{row['query_id']}{text}: nDCG@10 {values} in {where}{fell}")
    for arm in worst:
        for part in arm["slices"][:1]:
            if part["p_holm"] < DEFAULT.alpha and part["delta"] < part["others_delta"]:
                lines.append(
                    f"{arm['arm']}: the drop sits in queries {part['name']}, {part['delta']:+.3f} "
                    f"over {part['queries']}; the others {part['others_delta']:+.3f}"
                )
                return lines
    return lines or ["none"]


def _next(
    arm: ArmVerdict, cause: str | None, run_date: date, collection: str, can_be_accepted: bool
) -> list[Answer]:
    closer = ["report", "--run-date", str(run_date), "--collection", collection]
    if arm["against_name"]:
        sides = [arm["against_name"], f"{run_date}/{arm['arm']}"]
        closer = ["check", *sides, "--collection", collection]
    look = Answer(text="To look closer:", command=shlex.join(["perank", *closer]))
    is_settled = arm["verdict"] in (Verdict.IDENTICAL, Verdict.ACKNOWLEDGED)
    if is_settled or not can_be_accepted:
        return [look]
    accept = ["baseline", "accept", str(run_date), "--collection", collection]
    accept += ["--name", "your name", "--reason", cause or "as it should be"]
    return [
        Answer(
            text="If it is as it should be, accept it:", command=shlex.join(["perank", *accept])
        ),
        look,
    ]


def _short(text: str) -> str:
    """On one line, not longer than a sentence bears, and without what steers a terminal."""
    return shortened("".join(c for c in " ".join(text.split()) if c.isprintable()), LONGEST_TEXT)
