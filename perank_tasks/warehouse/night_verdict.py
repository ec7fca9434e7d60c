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
from perank_tasks.regression.symptoms import SYMPTOMS
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
            run = runs[arm_hash]
            measures = [row for row in rows if row["reason"] != "symptom"]
            of_measures = worst([row["verdict"] for row in measures])
            symptoms = [_symptom(warehouse, run, r) for r in rows if r["reason"] == "symptom"]
            (result,) = rows_where(warehouse, "runs", **run.key)
            because = "; ".join([*symptoms, _describe(of_measures, measures, moved, result)])
            before = nights.named(against, rows[0]["against_arm_hash"])
            different = explain(warehouse, store, before, runs[arm_hash]) if before else []
            words.append(ArmWord(runs[arm_hash], of_measures, against))
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
    "unranked": "too many queries kept their first-stage order ({unranked_queries} of "
    "{ranked_queries}: {unranked_reason})",
    "unmeasured": "no query that it ranked has judgements",
    "coverage": "only {queries} of the baseline's judged queries are there",
}


def _symptom(warehouse: duckdb.DuckDBPyConnection, run: Run, row: dict[str, Any]) -> str:
    """A symptom in words: its name, what is so, and in how many lists or passages."""
    (counts,) = rows_where(warehouse, "symptoms", **run.key, symptom=row["measure"])
    name, other = counts["symptom"], counts["other_arm"]
    things = "passages" if name == "texts-cut" else "lists"
    return (
        f"{row['verdict']}: {name}, {SYMPTOMS[name].meaning} in {counts['shown']:,} of "
        f"{counts['looked_at']:,} {things}{f' ({other})' if other else ''}"
    )


def _describe(
    word: Verdict, rows: list[dict[str, Any]], drift: list[dict[str, Any]], result: dict[str, Any]
) -> str:
    """What the word of one arm's measures rests on.

    Args:
        result: its row of `runs`.
    """
    if word == Verdict.FIRST:
        return "first result, nothing to compare with"
    if word == Verdict.INCOMPLETE:
        lacking = next(row for row in rows if row["verdict"] == word)
        counts = {**result, "ranked_queries": result["queries"], "queries": lacking["queries"] or 0}
        return f"incomplete: {_MISSING[lacking['reason']].format(**counts)}"
    kind = next(row["against_kind"] for row in rows if row["against_kind"])
    against = f"{word} against {rows[0]['against_date']} ({kind})"
    if word == Verdict.IDENTICAL:
        return against
    worst_rows = [row for row in rows if row["verdict"] == word and row["measure"] != OVERLAP]
    changed = [row for row in worst_rows if row["delta"]]
    changed.sort(key=lambda row: (row["measure"] != "nDCG@10", -abs(row["delta"])))
    parts = [against, *(_measure(row) for row in changed[:1])]
    if len(changed) > 1:
        parts.append(f"also {', '.join(row['measure'] for row in changed[1:])}")
    other = sum(row["changed_top_10"] for row in drift)
    below = sum(row["largest_move"] != 0 and not row["changed_top_10"] for row in drift)
    overlap = sum(row["overlap_10"] for row in drift) / max(len(drift), 1)
    parts.append(
        f"{other} of {len(drift)} queries changed in the top 10, {below} below it "
        f"(overlap {overlap:.2f})"
    )
    return ": ".join([parts[0], "; ".join(parts[1:])])


def _measure(row: dict[str, Any]) -> str:
    text = f"{row['measure']} {row['delta']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"
    text += f", {row['better']} queries better, {row['worse']} worse"
    if row["p"] is not None and row["tests"]:
        text += f", corrected p {row['p_holm']:.2g} ({row['tests']} tests)"
    why = {
        "band": "outside the noise band {band_low:+.4f} … {band_high:+.4f}",
        "trend": "small drops that add up",
        "standing": "as the night before",
    }.get(row["reason"] or "")
    return f"{text}, {why.format(**row)}" if why else text


def _cost(row: dict[str, Any]) -> str:
    numbers = (row["value"], row["band_low"], row["band_high"])
    if row["quantity"] == "peak memory":
        value, low, high = (f"{n / 1024**3:.2f} GiB" for n in numbers)
    else:
        value, low, high = (f"{n:,.2f}" for n in numbers)
    return f"{row['verdict']}: {row['quantity']} {value}, usual {low} to {high}"
