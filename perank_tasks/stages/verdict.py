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
    causes = [
        what
        for what, changed in (
            ("other configuration", row["configuration_changed"]),
            ("other collection", row["collection_changed"]),
            ("other code, libraries or hardware", row["fingerprint_changed"]),
        )
        if changed
    ]
    delta = row["ndcg_10_delta"]
    if row["verdict"] == "identical" and not delta:
        return f"identical rankings {since}"
    because = f" ({', '.join(causes)})" if causes else ""
    if delta is None:
        return f"changed {since}{because}; no judged query in common"
    rankings = "identical rankings" if row["verdict"] == "identical" else "changed"
    return (
        f"{rankings} {since}{because}: nDCG@10 {delta:+.4f}, "
        f"{row['queries_better']} queries better, {row['queries_worse']} worse"
    )
