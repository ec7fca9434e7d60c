"""Verdict: what the night says of each arm, against the result before it.

In: the loaded warehouse. Out: one line an arm, from the view `verdicts` (`sql/views/`),
which defines the words. It is plain on purpose: it says what changed and by how much.
"""

import logging
from typing import Any

from perank_tasks.config import Night
from perank_tasks.settings import Settings
from perank_tasks.warehouse import dicts, reading

log = logging.getLogger(__name__)


def verdict(night: Night) -> list[dict[str, Any]]:
    """The verdict of every arm of the night: [{arm, verdict, text}]."""
    with reading(Settings.from_environment().warehouse) as warehouse:
        result = warehouse.execute(
            "FROM verdicts WHERE run_date = ? AND collection = ? AND list_contains(?, arm_hash)",
            [night.run_date, night.collection_name, [arm.hash for arm in night.arms]],
        )
        rows = {row["arm_hash"]: row for row in dicts(result)}
    verdicts = []
    for arm in night.arms:
        row = rows[arm.hash]
        text = describe(row)
        log.info("%s: %s", arm.name, text)
        verdicts.append({"arm": arm.name, "verdict": row["verdict"], "text": text})
    return verdicts


def describe(row: dict[str, Any]) -> str:
    """One row of the view `verdicts` in words."""
    if row["verdict"] == "first":
        return "first result, nothing to compare with"
    if row["verdict"] == "incomplete":
        return "incomplete: too many queries kept their first-stage order"
    since = f"since {row['previous_date']}"
    if row["verdict"] == "identical":
        return f"identical {since}"
    causes = [
        what
        for what, changed in (
            ("another configuration", row["configuration_changed"]),
            ("the collection changed", row["collection_changed"]),
            ("code, libraries or hardware changed", row["fingerprint_changed"]),
        )
        if changed
    ]
    because = f" ({', '.join(causes)})" if causes else ""
    if row["ndcg_10_delta"] is None:
        return f"changed {since}{because}; no judged query in common"
    return (
        f"changed {since}{because}: nDCG@10 {row['ndcg_10_delta']:+.4f}, "
        f"{row['queries_better']} queries better, {row['queries_worse']} worse"
    )
