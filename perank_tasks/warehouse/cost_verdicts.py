"""Cost verdicts: what reranking took each night, against the same device's earlier nights.

In: what the warehouse holds of a collection's nights. Out: rows of the table `cost_verdicts`.
"""

from dataclasses import asdict
from datetime import date

from perank_tasks.regression.cost import MEMORY, SPEED, TOKENS, judge_cost
from perank_tasks.regression.thresholds import DEFAULT
from perank_tasks.warehouse.nights import Baseline, Nights, Run
from perank_tasks.warehouse.sql_files import TableRow, ask


def cost_rows(nights: Nights, since: date, baselines: dict[Run, Baseline]) -> list[TableRow]:
    """Rows of `cost_verdicts`: what reranking took, judged by the same device's past."""
    key = {"series": nights.series, "collection": nights.collection}
    costs = {
        (row["run_date"], row["arm_hash"], row["quantity"]): row
        for row in ask(
            nights.connection, "judge/costs", **key, since=since, min_seconds=DEFAULT.min_seconds
        )
    }
    rows = []
    for run, baseline in baselines.items():  # in the order of their dates
        before = baseline.run
        past = [before, *nights.since(run, before, DEFAULT.band_nights - 1)] if before else []
        for quantity in (TOKENS, MEMORY, SPEED):
            if not (cost := costs.get((*run.id, quantity))):
                continue
            earlier = []
            for then in past:
                its = costs.get((*then.id, quantity))
                if its and its["device"] == cost["device"]:
                    # What was accepted is usual, whatever it was called when it was new.
                    word = "usual" if then == before else its["verdict"]
                    earlier.append((its["value"], word))
            judged = asdict(judge_cost(quantity, cost["value"], earlier))
            cost["verdict"] = judged["verdict"]
            of_night = {key: cost[key] for key in ("quantity", "device", "value")}
            rows.append({**run.key, **of_night, **judged})
    return rows
