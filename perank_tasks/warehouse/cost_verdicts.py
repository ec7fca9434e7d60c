"""Cost verdicts: what reranking took each night, against the same device's earlier nights.

In: what the warehouse holds of a collection's nights. Out: rows of the table `cost_verdicts`.
"""

from datetime import date

from perank_tasks.regression.cost import MEMORY, SPEED, TOKENS, judge_cost
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.nights import Baseline, Nights, Run, RunId, TableRow


def cost_rows(nights: Nights, since: date, baselines: dict[Run, Baseline]) -> list[TableRow]:
    """Rows of `cost_verdicts`: what reranking took, judged by the same device's past."""
    costs = _costs(nights)
    words = {
        (day, arm_hash, quantity): word
        for day, arm_hash, quantity, word in nights.connection.execute(
            "SELECT run_date, arm_hash, quantity, verdict FROM cost_verdicts "
            "WHERE collection = ? AND run_date < ?",
            [nights.collection, since],
        ).fetchall()
    }
    rows = []
    for run, baseline in baselines.items():  # in the order of their dates
        device, quantities = costs.get(run.id, ("", {}))
        before = baseline.run
        past = [before, *nights.since(run, before, DEFAULT.band_nights - 1)] if before else []
        for quantity, value in quantities.items():
            earlier = []
            for then in past:
                its_device, its = costs.get(then.id, ("", {}))
                if its_device == device and quantity in its:
                    word = words.get((*then.id, quantity), "")
                    # What was accepted is usual, whatever it was called when it was new.
                    earlier.append((its[quantity], "usual" if then == before else word))
            judged = judge_cost(quantity, value, earlier)
            words[*run.id, quantity] = judged.word
            rows.append(
                {
                    **run.key,
                    "quantity": quantity,
                    "verdict": judged.word,
                    "device": device,
                    "value": value,
                    "band_low": judged.band and judged.band.low,
                    "band_high": judged.band and judged.band.high,
                    "nights": judged.nights,
                }
            )
    return rows


def _costs(nights: Nights) -> dict[RunId, tuple[str, dict[str, float]]]:
    """{id of a run: (device, {quantity: amount})} of every night."""
    costs = {}
    for day, arm_hash, device, seconds, speed, tokens, memory in nights.connection.execute(
        "SELECT run_date, arm_hash, device, seconds, queries_per_second, tokens_per_query, "
        "peak_memory_bytes FROM rerank_costs WHERE series = ? AND collection = ?",
        [nights.series, nights.collection],
    ).fetchall():
        amounts = {TOKENS: tokens, MEMORY: memory}
        if seconds >= DEFAULT.min_seconds:
            amounts[SPEED] = speed
        costs[day, arm_hash] = device, {q: amount for q, amount in amounts.items() if amount}
    return costs
