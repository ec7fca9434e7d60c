"""Symptoms over simulated nights: no healthy arm is called, and each that does nothing is.

A night's lists are drawn so that arms are as close to each other as over real ones. Of the orders
of five first candidates `cosine + 3 * bm25` keeps 84% (DL 2019 84%, pydocs 72%), of ten 45% (40%,
35%); on five `cosine` and the built-in `fusion` agree in 50% (51%, 57%), on ten in 6% (5%, 14%).
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.symptoms import mark_twins, symptom_rows
from perank_tasks.regression.symptoms import MIN_CANDIDATES, MIN_LISTS, SYMPTOMS, is_found
from perank_tasks.schemas import QUERY_STATUS, RANKINGS
from perank_tasks.support.lists import NOT_FINITE

NIGHTS = 500
LONGEST = 100


class Lists:
    """One night's candidates: (n, LONGEST) scores, of which each list has its own number."""

    def __init__(self, random: np.random.Generator, n: int, shortest: int, longest: int) -> None:
        self.random, shape = random, (n, LONGEST)
        self.lengths = random.integers(shortest, longest + 1, n)
        self.there = np.arange(LONGEST) < self.lengths[:, None]
        self.first_stage = -np.sort(-random.exponential(size=shape), axis=1) + 5
        # A first stage of few terms gives many passages one score.
        self.first_stage = self.first_stage.round(random.choice([1, 6]))
        self.cosine = random.normal(0.4, 0.1, shape) + 0.02 * self.first_stage
        self.noise = random.normal(size=shape)
        # Where a list is one window, the built-in `llm-off` sorts it by the built-in fusion's sum.
        windows = np.where(self.lengths > 20, 1e-3, 0)[:, None]
        self.llm_off = self.cosine + 0.03 * self.first_stage + windows * self.noise

    def arm(
        self, name: str, scores: np.ndarray, *, expect: Collection[str] = (), **status: Any
    ) -> dict[str, pa.Table]:
        """The tables of an arm that ranks by these scores, as a night's evaluation has them.

        Args:
            expect: symptoms that it is to have.
            status: columns of the lists' status, (n,), that are not nothing.
        """
        scores = np.where(self.there, scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        rows, ranks = np.nonzero(self.there)
        ids = np.array([f"q{row}" for row in range(len(order))])
        rankings = {
            "query_id": ids[rows],
            "passage_id": order[rows, ranks].astype(str),
            "rank": ranks + 1,
            "score": np.take_along_axis(scores, order, axis=1)[rows, ranks],
            "first_stage_rank": order[rows, ranks] + 1,
        }
        nothing = {
            "query_id": ids,
            "unranked_reason": pa.nulls(len(ids)),
            **dict.fromkeys(
                [f.name for f in QUERY_STATUS if f.name not in ("query_id", "unranked_reason")],
                np.zeros(len(ids), int),
            ),
        }
        lists = {**nothing, "candidates": self.lengths, **status}
        key = {"series": "nightly", "run_date": None, "collection": "c", "arm_hash": name}
        found = symptom_rows(table(rankings, RANKINGS), table(lists, QUERY_STATUS), expect)
        content = hashlib.sha256(order[self.there].tobytes()).hexdigest()
        return {
            "runs": pa.table({"status": ["complete"], "ranking_hash": [content]}),
            "symptoms": pa.Table.from_pylist([{**key, "arm": name, **row} for row in found]),
        }


def table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.table({field.name: columns[field.name] for field in schema}).cast(schema)


def called(arms: Iterable[dict[str, pa.Table]]) -> dict[str, set[str]]:
    """The symptoms found of each arm of a night that it is not to have; arms without are left
    out."""
    arms, found = [dict(tables) for tables in arms], defaultdict(set)
    mark_twins(arms)
    for row in (row for tables in arms for row in tables["symptoms"].to_pylist()):
        if not row["expected"] and is_found(row["symptom"], row["shown"], row["looked_at"]):
            found[row["arm"]].add(row["symptom"])
    return dict(found)


def healthy(lists: Lists) -> list[dict[str, pa.Table]]:
    """Arms that rank: some close to their first stage or to each other, some whose scores tie."""
    random, bm25, cosine = lists.random, lists.first_stage, lists.cosine
    n = len(lists.lengths)
    # A classifier in half precision: a query in twenty, which nothing answers, has one score.
    logits = (bm25 - 7 + 2 * lists.noise).astype(np.float16)
    sure = np.where(random.random((n, 1)) < 0.05, np.float16(-8), logits)
    windows = np.maximum(1, (lists.lengths - 11) // 10)
    answers = {
        "windows": windows,
        "numbers_missing": random.binomial(windows, 0.08),
        "is_malformed": random.random(n) < 0.02,
    }
    built_in = {arm.name: arm.options.expect for arm in ArmsFile.read().select()}
    return [
        lists.arm("bm25", bm25, expect=built_in["bm25"]),
        lists.arm("cosine", cosine, expect=built_in["cosine"]),
        lists.arm("fusion", cosine + 0.03 * bm25, expect=built_in["fusion"]),
        lists.arm("llm-off", lists.llm_off, expect=built_in["llm-off"]),
        lists.arm("close-to-its-first-stage", cosine + 3 * bm25),
        lists.arm("cross-encoder", sure, texts_cut=random.binomial(lists.lengths, 0.3)),
        lists.arm("listwise", bm25 + 3 * lists.noise, **answers),
    ]


def silent(lists: Lists) -> dict[str, tuple[str, dict[str, pa.Table]]]:
    """{arm: (symptom, tables)} of arms that do nothing; none keeps another from being seen."""
    n = len(lists.lengths)
    ones = np.ones_like(lists.cosine)
    nan = [NOT_FINITE] * n
    malformed, cut = {"is_malformed": np.ones(n, bool)}, {"texts_cut": lists.lengths}
    return {
        "first-stage-handed-back": ("order-unchanged", lists.arm("first-stage-handed-back", ones)),
        "wrong-template": ("scores-equal", lists.arm("wrong-template", 0.5 * ones)),
        "overflow": ("scores-equal", lists.arm("overflow", ones, unranked_reason=nan)),
        "wrong-model": ("same-as-another", lists.arm("wrong-model", 2 * lists.cosine)),
        "llm-adds-nothing": ("same-as-another", lists.arm("llm-adds-nothing", lists.llm_off)),
        "chatty": ("answers-repaired", lists.arm("chatty", lists.noise, **malformed)),
        "short-sighted": ("texts-cut", lists.arm("short-sighted", -lists.noise, **cut)),
    }


@pytest.mark.slow
@pytest.mark.long
def test_no_healthy_arm_of_500_nights_is_called_and_each_that_does_nothing_is() -> None:
    random = np.random.default_rng(17)
    false, missed, looked_at = [], [], 0
    for night in range(NIGHTS):
        # From a handful of queries and a few candidates to a whole test collection.
        n = int(random.choice([5, 10, 12, 20, 43, 80]))
        longest = int(random.choice([5, 8, 10, 20, 100]))
        shortest = int(random.choice([1, longest // 2, longest]))
        lists = Lists(random, n, shortest, longest)
        arms = healthy(lists)
        drawn = (night, n, shortest, longest)
        false += [(*drawn, arm, symptoms) for arm, symptoms in called(arms).items()]
        if (lists.lengths >= MIN_CANDIDATES).sum() < MIN_LISTS:
            continue
        looked_at += 1
        planted = silent(lists)
        found = called([*arms, *(tables for _, tables in planted.values())])
        missed += [
            (*drawn, arm) for arm, (symptom, _) in planted.items() if symptom not in found[arm]
        ]
    assert {symptom for symptom, _ in planted.values()} == {*SYMPTOMS}
    assert false == []
    assert missed == []
    assert looked_at > NIGHTS / 3
