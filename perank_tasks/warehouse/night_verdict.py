"""One word for a night and one line for each arm, in plain sentences.

In: the loaded warehouse, whose derived tables hold what every result is against the night
accepted as of its date (`perank_tasks/regression/ladder.py` defines the words). Out: the
words, and in plain sentences what they rest on and what was different. Where the night's
options name another baseline, the same is worked out against that one and not kept.
"""

from dataclasses import asdict
from datetime import date
from typing import TypedDict

import duckdb

from perank_tasks.artifacts.store import Store
from perank_tasks.regression.ladder import Verdict, worst
from perank_tasks.regression.symptoms import SYMPTOMS
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.answers import Answers, ArmVerdict, answer
from perank_tasks.warehouse.attribution import ArmWord, explain, find_cause
from perank_tasks.warehouse.derive import OVERLAP, judge_against
from perank_tasks.warehouse.nights import SAME_NIGHT, Nights, Run
from perank_tasks.warehouse.query_changes import falls_in_words, query_changes, slices_of_changes
from perank_tasks.warehouse.sql_files import TableRow, grouped, rows_where


class NightVerdict(TypedDict):
    """The night's word, what its changes come from where that can be told, the four answers, and
    the arms."""

    verdict: str
    cause: str | None
    text: str
    answers: Answers
    arms: list[ArmVerdict]


LISTED_QUERIES = 10
"""That an arm's verdict names."""

MAIN = "nDCG@10"
"""The measure that is named first."""

_TABLES = ("judged", "drift", "rescored", "cost_verdicts")
"""What an arm's line is made from."""


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
    key = {"run_date": run_date, "collection": collection}
    tables = {name: rows_where(warehouse, name, **key) for name in _TABLES}
    if baseline != "accepted":
        tables |= judge_against(warehouse, collection, run_date, baseline)
    by_arm = {name: grouped(rows, "arm_hash") for name, rows in tables.items()}
    arm_verdicts: list[ArmVerdict] = []
    words: list[ArmWord] = []
    for arm_hash, name in sorted(arms.items(), key=lambda arm: arm[1]):
        its = {name: of_arms[arm_hash] for name, of_arms in by_arm.items()}
        if rows := its["judged"]:
            run = runs[arm_hash]
            before = nights.named(rows[0]["against_date"], rows[0]["against_arm_hash"])
            word = ArmWord(
                run,
                worst([row["verdict"] for row in rows if row["reason"] != "symptom"]),
                rows[0]["against_date"],
                before is not None and not run.ranks_as(before, its["drift"]),
                explain(warehouse, store, before, run) if before else [],
            )
            words.append(word)
            arm_verdicts.append(_arm(warehouse, nights, name, word, its))
        else:
            arm_verdicts.append(_without_results(name, arm_hash))
    cause = find_cause(words)
    verdict = str(worst([arm["verdict"] for arm in arm_verdicts]))
    text = f"{verdict} ({', '.join(a['arm'] for a in arm_verdicts if a['verdict'] == verdict)})"
    can_be_accepted = any(run.comparable for run in runs.values())
    return {
        "verdict": verdict,
        "cause": cause,
        "text": f"{text}; {cause}" if cause else text,
        "answers": answer(arm_verdicts, verdict, cause, run_date, collection, can_be_accepted),
        "arms": arm_verdicts,
    }


def _arm(
    warehouse: duckdb.DuckDBPyConnection,
    nights: Nights,
    name: str,
    word: ArmWord,
    its: dict[str, list[TableRow]],
) -> ArmVerdict:
    rows, drift, rescored, costs = (its[name] for name in _TABLES)
    run, of_measures = word.run, Verdict(word.verdict)
    verdict = worst([row["verdict"] for row in rows])
    symptoms = [_symptom(warehouse, run, row) for row in rows if row["reason"] == "symptom"]
    rows = [row for row in rows if row["reason"] != "symptom"]
    (result,) = rows_where(warehouse, "runs", **run.key)
    beside = []
    if of_measures == Verdict.FIRST:
        beside = rows_where(warehouse, "comparisons", against_kind=SAME_NIGHT, **run.key)
    held = next(iter(beside or rows))
    before = nights.named(held["against_date"], held["against_arm_hash"])
    because = _describe(of_measures, rows, drift, beside, result)
    accepted = _acceptance(warehouse, run) if verdict == Verdict.ACKNOWLEDGED else None
    because = "; ".join(filter(None, [*symptoms, because, accepted]))
    # Another arm of the same night ranks otherwise for being another arm: nothing is lost.
    changed = query_changes(warehouse, run, before, rescored) if before and not beside else []
    lost = [row for row in changed if row["delta"] < 0 or row["passage_id"]]
    falls = falls_in_words(lost)
    has_dropped = sum(row["delta"] for row in changed) < 0
    different = [change.phrase for change in word.changes]
    unusual = [_cost(row) for row in costs if row["verdict"] not in ("first", "usual")]
    parts = [because, *falls, f"different: {', '.join(different)}" if different else "", *unusual]
    return {
        "arm": name,
        "arm_hash": run.arm_hash,
        "verdict": str(verdict),
        "against": word.against.isoformat() if word.against else None,
        "against_name": before.name if before else None,
        "because": "; ".join([because, *falls]),
        "measured": _measured(of_measures, beside or rows),
        "accepted": accepted,
        "moved": _moved(drift),
        "lost": lost[:LISTED_QUERIES],
        "slices": [asdict(part) for part in slices_of_changes(changed)] if has_dropped else [],
        "different": different,
        "costs": unusual,
        "text": "; ".join(part for part in parts if part),
    }


def _without_results(name: str, arm_hash: str) -> ArmVerdict:
    because = "incomplete: it has no results"
    return {
        "arm": name,
        "arm_hash": arm_hash,
        "verdict": str(Verdict.INCOMPLETE),
        "against": None,
        "against_name": None,
        "because": because,
        "measured": "",
        "accepted": None,
        "moved": "",
        "lost": [],
        "slices": [],
        "different": [],
        "costs": [],
        "text": because,
    }


_MISSING = {
    "unranked": "too many queries kept their first-stage order ({unranked_queries} of "
    "{ranked_queries}: {unranked_reason})",
    "unmeasured": "no query that it ranked has judgements",
    "coverage": "only {queries} of the baseline's judged queries are there",
}


def _symptom(warehouse: duckdb.DuckDBPyConnection, run: Run, row: TableRow) -> str:
    """A symptom in words: its name, what is so, and in how many lists or passages."""
    (counts,) = rows_where(warehouse, "symptoms", **run.key, symptom=row["measure"])
    name, other = counts["symptom"], counts["other_arm"]
    things = "passages" if name == "texts-cut" else "lists"
    return (
        f"{row['verdict']}: {name}, {SYMPTOMS[name].meaning} in {counts['shown']:,} of "
        f"{counts['looked_at']:,} {things}{f' ({other})' if other else ''}"
    )


def _describe(
    word: Verdict,
    rows: list[TableRow],
    drift: list[TableRow],
    beside: list[TableRow],
    result: TableRow,
) -> str:
    """What the word of one arm's measures rests on.

    Args:
        beside: of a first result, its rows of `comparisons` with its night's first stage.
        result: its row of `runs`.
    """
    if word == Verdict.FIRST:
        measured = _measured(word, beside) or "nothing to compare with"
        return f"first result, {measured}"
    if word == Verdict.INCOMPLETE:
        lacking = next(row for row in rows if row["verdict"] == word)
        counts = {**result, "ranked_queries": result["queries"], "queries": lacking["queries"] or 0}
        return f"incomplete: {_MISSING[lacking['reason']].format(**counts)}"
    kind = next(row["against_kind"] for row in rows if row["against_kind"])
    against = f"{word} compared with {rows[0]['against_date']} ({kind})"
    if word == Verdict.IDENTICAL:
        return against
    overlap = sum(row["overlap_10"] for row in drift) / max(len(drift), 1)
    parts = [*measures_in_words(word, rows), f"{_moved(drift)} (overlap {overlap:.2f})"]
    return f"{against}: {'; '.join(parts)}"


def _measured(word: Verdict, rows: list[TableRow]) -> str:
    """What one arm is compared with, and the numbers that its word rests on; empty: none.

    Args:
        rows: of `judged`; of a first result, of `comparisons` with its night's first stage.
    """
    if word == Verdict.FIRST:
        rows = [row | {"verdict": word, "reason": None} for row in rows if row["measure"] == MAIN]
    against = rows[0]["against_arm" if word == Verdict.FIRST else "against_date"] if rows else None
    numbers = measures_in_words(word, rows) if against and word != Verdict.INCOMPLETE else []
    return f"compared with {against}: {'; '.join(numbers)}" if numbers else ""


def _moved(drift: list[TableRow]) -> str:
    """How many queries rank otherwise; empty: nothing was compared."""
    if not drift:
        return ""
    other = sum(row["changed_top_10"] for row in drift)
    below = sum(row["largest_move"] != 0 and not row["changed_top_10"] for row in drift)
    return f"{other} of {len(drift)} queries changed in the top 10, {below} below it"


def _acceptance(warehouse: duckdb.DuckDBPyConnection, run: Run) -> str:
    """Who accepted this very night, and why."""
    rows = rows_where(
        warehouse, "baselines", collection=run.collection, run_date=run.run_date, as_of=run.run_date
    )
    its = [row for row in rows if row["arm"] in (None, run.arm)]
    newest = max(its, key=lambda row: row["accepted_at"])
    return "accepted by {name}: {reason}".format(**newest)


def measures_in_words(word: str, rows: list[TableRow]) -> list[str]:
    """The measure that a word rests on, with its numbers, and the names of the others.

    Args:
        rows: of the view `judged`, of one arm.
    """
    changed = [row for row in rows if row["verdict"] == word and row["measure"] != OVERLAP]
    changed = [row for row in changed if _size(row)]
    changed.sort(key=lambda row: (row["measure"] != MAIN, -_size(row)))
    also = ", ".join(row["measure"] for row in changed[1:])
    return [*map(_measure, changed[:1]), *([f"also {also}"] if also else [])]


def _size(row: TableRow) -> float:
    """By how much a measure changed, or the judgements alone changed it."""
    return max(abs(row["delta"]), abs(row.get("judgements_delta") or 0.0))


def _measure(row: TableRow) -> str:
    by_judgements = ""
    if row.get("judgements_delta"):
        by_judgements = f"by other judgements alone {row['judgements_delta']:+.4f}"
        if not row["delta"]:
            return f"{row['measure']} {by_judgements}"
    text = f"{row['measure']} {row['delta']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"
    queries = "query" if row["better"] == 1 else "queries"
    text += f", {row['better']} {queries} better, {row['worse']} worse"
    if row["p"] is not None and row["tests"]:
        tests = "test" if row["tests"] == 1 else "tests"
        text += f", corrected p {short_p(row['p_holm'])} ({row['tests']} {tests})"
    why = {
        "band": f"outside the {band_name(row.get('nights') or 0)} "
        "{band_low:+.4f} … {band_high:+.4f}",
        "trend": "small drops that add up",
        "standing": "as the night before",
    }.get(row["reason"] or "")
    return ", ".join(filter(None, [text, why and why.format(**row), by_judgements]))


def band_name(nights: int) -> str:
    """What a band is called: by how many nights made it."""
    if nights >= DEFAULT.band_min_nights:
        return "noise band"
    return f"default band ({nights} {'night' if nights == 1 else 'nights'})"


def short_p(p: float | None) -> str:
    """A probability as papers write it: `.03`, `1`, `< .001`; `–` where nothing was tested."""
    if p is None:
        return "–"
    return f"{p:.2g}".removeprefix("0") if p >= 0.001 else "< .001"


def _cost(row: TableRow) -> str:
    numbers = (row["value"], row["band_low"], row["band_high"])
    if row["quantity"] == "peak memory":
        value, low, high = (f"{n / 1024**3:.2f} GiB" for n in numbers)
    else:
        value, low, high = (f"{n:,.2f}" for n in numbers)
    return f"{row['verdict']}: {row['quantity']} {value}, usual {low} to {high}"
