"""The symptoms of a night's arms: rankings and status rows in, rows of the table `symptoms` out."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from perank_tasks.regression.symptoms import shares
from perank_tasks.schemas import RESULT_TABLES
from perank_tasks.support.lists import NOT_FINITE

TWIN = "same-as-another"


def symptom_rows(
    rankings: pa.Table, status: pa.Table, expect: Collection[str]
) -> list[dict[str, Any]]:
    """The rows of one arm, without its key; whether another ranks as it does is not known yet.

    Args:
        rankings: a table of `schemas.RANKINGS`.
        status: of `schemas.QUERY_STATUS`.
        expect: symptoms that the arm is to have.
    """
    moved = pc.not_equal(rankings["rank"], rankings["first_stage_rank"])
    by_list = rankings.append_column("moved", moved).group_by("query_id")
    seen = by_list.aggregate([("moved", "any"), ("score", "min"), ("score", "max")])
    # A query without candidates has no row in `seen`.
    lists = status.join(seen, "query_id", join_type="inner")
    reason = pc.fill_null(lists["unranked_reason"], "")
    columns = {
        **{name: lists[name].to_numpy() for name in status.schema.names},
        "ranked": pc.equal(reason, "").to_numpy(),
        "moved": lists["moved_any"].to_numpy(),
        "flat": pc.equal(lists["score_min"], lists["score_max"]).to_numpy(),
        "not_finite": pc.starts_with(reason, NOT_FINITE).to_numpy(),
    }
    return [
        {"symptom": name, "shown": shown, "looked_at": of, "expected": name in expect}
        | {"other_arm": None}
        for name, (shown, of) in shares(columns).items()
    ]


def mark_twins(arms: Sequence[dict[str, pa.Table]]) -> None:
    """Say in the rows of complete arms which other one ranks every list the same.

    Arms that left all orders as they were are no twins of the first stage's: that is a symptom of
    its own, and none of the first stage.

    Args:
        arms: each one's result tables; those of twins are replaced.
    """
    alike: dict[str, list[tuple[dict[str, pa.Table], dict[str, dict[str, Any]]]]]
    alike = defaultdict(list)
    for tables in arms:
        (run,) = tables["runs"].to_pylist()
        rows = {row["symptom"]: row for row in tables["symptoms"].to_pylist()}
        order = rows["order-unchanged"]
        if run["status"] == "complete" and order["shown"] < order["looked_at"]:
            alike[run["ranking_hash"]].append((tables, rows))
    for twins in filter(lambda twins: len(twins) > 1, alike.values()):
        # Where all others are to rank as another does, the one that is left is not to blame.
        is_alone = sum(not rows[TWIN]["expected"] for _, rows in twins) < 2
        for tables, rows in twins:
            row = rows[TWIN]
            others = ", ".join(its[TWIN]["arm"] for _, its in twins if its is not rows)
            row |= {"shown": row["looked_at"], "other_arm": others}
            row["expected"] |= is_alone
            tables["symptoms"] = pa.Table.from_pylist([*rows.values()], RESULT_TABLES["symptoms"])
