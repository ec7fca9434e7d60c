"""One word for a night and one line for each arm, in plain sentences.

In: the loaded warehouse, whose derived tables hold what every result is against the night
accepted as of its date (`perank_tasks/regression/ladder.py` defines the words). Out: the
words, and in plain sentences what they rest on and what was different. Where the night's
options name another baseline, the same is worked out against that one and not kept.
"""

from datetime import date
from typing import Any, TypedDict

import duckdb

from perank_tasks.artifacts.store import Store
from perank_tasks.regression.ladder import Verdict, worst
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.attribution import ArmWord, explain, which_stage
from perank_tasks.warehouse.database import rows_where
from perank_tasks.warehouse.derive import OVERLAP, judge_against
from perank_tasks.warehouse.nights import Nights, Run


class ArmVerdict(TypedDict):
    """One arm: its name, its word, the date of the night it was judged by, if there was one, and
    what the word rests on: `text` is all of it in one line."""

    arm: str
    arm_hash: str
    verdict: str
    against: str | None
    because: str
    different: list[str]
    costs: list[str]
    text: str


class NightVerdict(TypedDict):
    """The night's word, what the control arms say of where a change comes from, and the arms."""

    verdict: str
    stage: str | None
    text: str
    arms: list[ArmVerdict]


def judge(
    warehouse: duckdb.DuckDBPyConnection,
    store: Store,
    run_date: date,
    collection: str,
    arms: dict[str, str],
    baseline: str = "accepted",
) -> NightVerdict:
    """The verdict of one night in words.

    Args:
        arms: {arm hash: name} of what the night was to have; one without rows is incomplete.
        baseline: accepted, previous, or a date.
    """
    nights = Nights(warehouse, collection)
    runs = {run.arm_hash: run for run in nights.of(run_date)}
    verdicts, drift = _rows(warehouse, nights, run_date, baseline)
    costs = rows_where(warehouse, "cost_verdicts", run_date=run_date, collection=collection)
    arm_verdicts: list[ArmVerdict] = []
    words: list[ArmWord] = []
    for arm_hash, name in arms.items():
        rows = [row for row in verdicts if row["arm_hash"] == arm_hash]
        word, because, different = Verdict.INCOMPLETE, "incomplete: it has no results", []
        against = rows[0]["against_date"] if rows else None
        if rows:
            word = worst([row["verdict"] for row in rows])
            moved = [row for row in drift if row["arm_hash"] == arm_hash]
            because = _describe(word, rows, moved)
            if word == Verdict.ACKNOWLEDGED:
                because += f"; {_acceptance(warehouse, runs[arm_hash])}"
            before = nights.named(against, rows[0]["against_arm_hash"])
            different = explain(warehouse, store, before, runs[arm_hash]) if before else []
            words.append(ArmWord(runs[arm_hash], word, against))
        unusual = [
            _cost(row)
            for row in costs
            if row["arm_hash"] == arm_hash and row["verdict"] not in ("first", "usual")
        ]
        parts = [because, f"different: {', '.join(different)}" if different else "", *unusual]
        arm_verdicts.append(
            {
                "arm": name,
                "arm_hash": arm_hash,
                "verdict": str(word),
                "against": against and against.isoformat(),
                "because": because,
                "different": different,
                "costs": unusual,
                "text": "; ".join(part for part in parts if part),
            }
        )
    return _night(arm_verdicts, which_stage(words))


def _night(arms: list[ArmVerdict], stage: str | None) -> NightVerdict:
    word = worst([arm["verdict"] for arm in arms])
    text = f"{word} ({', '.join(a['arm'] for a in arms if a['verdict'] == word)})"
    text = f"{text}; {stage}" if stage else text
    return {"verdict": str(word), "stage": stage, "text": text, "arms": arms}


def _rows(
    warehouse: duckdb.DuckDBPyConnection, nights: Nights, run_date: date, baseline: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the view `judged` and of `drift` for one night, kept or worked out."""
    if baseline != "accepted":
        return judge_against(warehouse, nights.collection, run_date, baseline)
    key = {"run_date": run_date, "collection": nights.collection}
    return rows_where(warehouse, "judged", **key), rows_where(warehouse, "drift", **key)


_MISSING = {
    "unranked": "too many queries kept their first-stage order",
    "unmeasured": "no query that it ranked has judgements",
    "coverage": "only {queries} of the baseline's judged queries are there",
}


def _describe(word: Verdict, rows: list[dict[str, Any]], drift: list[dict[str, Any]]) -> str:
    """What one arm's word rests on."""
    if word == Verdict.FIRST:
        return "first result, nothing to compare with"
    if word == Verdict.INCOMPLETE:
        lacking = next(row for row in rows if row["verdict"] == word)
        return f"incomplete: {_MISSING[lacking['reason']].format(queries=lacking['queries'] or 0)}"
    kind = next(row["against_kind"] for row in rows if row["against_kind"])
    against = f"{word} against {rows[0]['against_date']} ({kind})"
    if word == Verdict.IDENTICAL:
        return against
    parts = [against, *measures_in_words(word, rows)]
    other = sum(row["changed_top_10"] for row in drift)
    below = sum(row["largest_move"] != 0 and not row["changed_top_10"] for row in drift)
    overlap = sum(row["overlap_10"] for row in drift) / max(len(drift), 1)
    parts.append(
        f"{other} of {len(drift)} queries changed in the top 10, {below} below it "
        f"(overlap {overlap:.2f})"
    )
    return ": ".join([parts[0], "; ".join(parts[1:])])


def _acceptance(warehouse: duckdb.DuckDBPyConnection, run: Run) -> str:
    """Who accepted this very night, and why."""
    rows = rows_where(
        warehouse, "baselines", collection=run.collection, run_date=run.run_date, as_of=run.run_date
    )
    its = [row for row in rows if row["arm"] in (None, run.arm)]
    newest = max(its, key=lambda row: row["accepted_at"])
    return "accepted by {name}: {reason}".format(**newest)


def measures_in_words(word: str, rows: list[dict[str, Any]]) -> list[str]:
    """The measure that a word rests on, with its numbers, and the names of the others.

    Args:
        rows: of the view `judged`, of one arm.
    """
    changed = [
        row for row in rows if row["verdict"] == word and row["measure"] != OVERLAP and row["delta"]
    ]
    changed.sort(key=lambda row: (row["measure"] != "nDCG@10", -abs(row["delta"])))
    also = ", ".join(row["measure"] for row in changed[1:])
    return [*map(_measure, changed[:1]), *([f"also {also}"] if also else [])]


def _measure(row: dict[str, Any]) -> str:
    text = f"{row['measure']} {row['delta']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"
    text += f", {row['better']} queries better, {row['worse']} worse"
    if row["p"] is not None and row["tests"]:
        text += f", corrected p {short_p(row['p_holm'])} ({row['tests']} tests)"
    band = "noise band" if row["nights"] >= DEFAULT.band_min_nights else "default band"
    why = {
        "band": f"outside the {band} {{band_low:+.4f}} … {{band_high:+.4f}}",
        "trend": "small drops that add up",
        "standing": "as the night before",
    }.get(row["reason"] or "")
    return f"{text}, {why.format(**row)}" if why else text


def short_p(p: float) -> str:
    """A probability as papers write it: `.03`, `1`."""
    return f"{p:.2g}".removeprefix("0") if p else "0"


def _cost(row: dict[str, Any]) -> str:
    numbers = (row["value"], row["band_low"], row["band_high"])
    if row["quantity"] == "peak memory":
        value, low, high = (f"{n / 1024**3:.2f} GiB" for n in numbers)
    else:
        value, low, high = (f"{n:,.2f}" for n in numbers)
    return f"{row['verdict']}: {row['quantity']} {value}, usual {low} to {high}"
