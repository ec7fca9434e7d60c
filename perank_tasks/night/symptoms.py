"""The symptoms of a night's arms: rankings and status rows in, rows of the table `symptoms` out."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from perank_tasks.regression.symptoms import Lists, Share, shares
from perank_tasks.schemas import RESULT_TABLES
from perank_tasks.support.lists import NOT_FINITE

TWIN = "same-as-another"


def symptom_rows(
    rankings: pa.Table, status: Sequence[Mapping[str, Any]], expect: Collection[str]
) -> list[dict[str, Any]]:
    """The rows of one arm, without its key; whether another ranks as it does is not known yet.

    Args:
        rankings: a table of `schemas.RANKINGS`.
        status: rows of `schemas.QUERY_STATUS`.
        expect: symptoms that the arm is to have.
    """
    return [
        {**_row(share), "symptom": name, "expected": name in expect, "other_arm": None}
        for name, share in shares(_lists(rankings, status)).items()
    ]


def mark_twins(arms: Sequence[dict[str, pa.Table]]) -> None:
    """Say in the rows of complete arms which other one ranks every list the same.

    Arms that left all orders as they were are no twins of the first stage's: that is a symptom of
    its own, and none of the first stage.

    Args:
        arms: each one's result tables; those of twins are replaced.
    """
    alike: dict[str, list[dict[str, pa.Table]]] = defaultdict(list)
    for tables in arms:
        (run,) = tables["runs"].to_pylist()
        order = _symptom(tables, "order-unchanged")
        if run["status"] == "complete" and order["shown"] < order["looked_at"]:
            alike[run["ranking_hash"]].append(tables)
    for twins in alike.values():
        names = [tables["runs"]["arm"][0].as_py() for tables in twins]
        # Where one of them is to rank as another does, the other is not to blame.
        expected = any(_symptom(tables, TWIN)["expected"] for tables in twins)
        for i, tables in enumerate(twins if len(twins) > 1 else []):
            rows = tables["symptoms"].to_pylist()
            for row in rows:
                if row["symptom"] == TWIN:
                    others = ", ".join(names[:i] + names[i + 1 :])
                    row |= {"shown": row["looked_at"], "other_arm": others, "expected": expected}
            tables["symptoms"] = pa.Table.from_pylist(rows, RESULT_TABLES["symptoms"])


def _symptom(tables: Mapping[str, pa.Table], name: str) -> dict[str, Any]:
    return next(row for row in tables["symptoms"].to_pylist() if row["symptom"] == name)


def _row(share: Share) -> dict[str, int]:
    return {"shown": share.shown, "looked_at": share.of}


def _lists(rankings: pa.Table, status: Sequence[Mapping[str, Any]]) -> Lists:
    """What there is to see of each list, in the order of the status rows."""
    places = {row["query_id"]: i for i, row in enumerate(status)}
    moved = np.zeros(len(status), bool)
    low, high = np.full(len(status), np.inf), np.full(len(status), -np.inf)
    at = np.array([places[query_id] for query_id in rankings["query_id"].to_pylist()], np.intp)
    scores = rankings["score"].to_numpy()
    np.minimum.at(low, at, scores)
    np.maximum.at(high, at, scores)
    moved[at[rankings["rank"].to_numpy() != rankings["first_stage_rank"].to_numpy()]] = True
    reasons = [row["unranked_reason"] for row in status]
    ranked = np.array([reason is None for reason in reasons], bool)
    not_finite = np.array([(reason or "").startswith(NOT_FINITE) for reason in reasons], bool)

    def column(*names: str) -> np.ndarray:
        return np.array([sum(row[name] for name in names) for row in status], np.int64)

    return Lists(
        candidates=column("candidates"),
        ranked=ranked,
        moved=moved,
        flat=(ranked & (low == high)) | not_finite,
        repairs=column("numbers_missing", "numbers_repeated"),
        answers=column("windows"),
        malformed=column("is_malformed").astype(bool),
        texts_cut=column("texts_cut"),
    )
