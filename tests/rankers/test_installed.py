"""Rankers of other packages, installed as packages of their own: the one that the docs show, and
ones that do nothing or break, each of which costs its arm and no other."""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ConfigError
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.rankers import RANKERS
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.sql_files import dicts
from tests.rankers.packages import documented, install
from tests.small import TOPICS, run_night, some_passages, some_queries, write_collection

QUERIES = some_queries() | {f"r-{topic}": " ".join(t.split()[2:7]) for topic, t in TOPICS.items()}
"""Ten of them: fewer show no symptom."""

SILENT = '''
from dataclasses import replace
import numpy as np
from perank_tasks.errors import RankerError
from perank_tasks.rankers.interface import Description, RankerOptions, ScoreRanker

class Options(RankerOptions):
    def load(self, models):
        return ScoreRanker(self.scores)

class Unchanged(Options):
    """The order it was given, with scores of its own."""
    def scores(self, candidates):
        return np.linspace(1, 0.1, len(candidates))

class Half(Options):
    """.5 for every passage."""
    def scores(self, candidates):
        return np.full(len(candidates), 0.5)

class NotFinite(Options):
    def scores(self, candidates):
        return np.full(len(candidates), np.nan)

class Well(Options):
    """The first stage's order backwards: as healthy as can be seen from outside."""
    def scores(self, candidates):
        return -candidates.scores - 1e-6 * np.arange(len(candidates))[::-1]

class Twin(Well):
    pass

def altered(score, change):
    """A ranker by these scores, each of whose answers is changed."""
    ranker = ScoreRanker(score)
    rank = ranker.rank
    ranker.rank = lambda lists: map(change, rank(lists))
    return ranker

class Repaired(Well):
    def load(self, models):
        ranker = super().load(models)
        rank = ranker.rank
        changes = dict(windows=2, numbers_missing=2)
        ranker.rank = lambda lists: (replace(r, **changes) for r in rank(lists))
        return ranker
    def scores(self, candidates):
        return np.sin(np.arange(len(candidates)))

class Cut(Repaired):
    def load(self, models):
        cut = lambda r: replace(r, texts_cut=len(r.order) // 2 + 1)
        return altered(lambda c: np.cos(np.arange(len(c)) + 1), cut)

class Breaking(Options):
    def scores(self, candidates):
        if candidates.query_id == "q-visceral":
            raise KeyError("a bug")
        return -candidates.scores

class Gone(Options):
    def load(self, models):
        raise RankerError("its model is gone")

class Undescribed(Options):
    def describe(self, models):
        return Description(missing="no such folder")

class NoPermutation(Options):
    def load(self, models):
        same = lambda r: replace(r, order=[0] * len(r.order))
        return altered(lambda c: np.tan(np.arange(len(c))), same)

class Floats(Options):
    def load(self, models):
        floats = lambda r: replace(r, order=[float(place) for place in r.order])
        return altered(lambda c: np.arctan(np.arange(len(c))), floats)

class Fewer(Options):
    """Half of the ids, as a ranker that cuts its list answers."""
    def load(self, models):
        cut = lambda r: replace(r, passage_ids=r.passage_ids[:4], order=r.order[:4])
        return altered(lambda c: np.arange(len(c)) % 5, cut)

class Unknown(Options):
    def load(self, models):
        other = lambda r: replace(r, passage_ids=["nobody-knows", *r.passage_ids[1:]])
        return altered(lambda c: np.arange(len(c)) % 3, other)

class Bare(Options):
    """Written for an interface that had no device."""
    def load(self, models):
        return object()

class Older(Options):
    """Written for one whose describe took no models."""
    def describe(self):
        return Description()

class NoDescription(Options):
    def describe(self, models):
        return {"texts": True}

class Short(Options):
    def load(self, models):
        ranker = ScoreRanker(lambda c: np.arange(len(c)) % 7)
        rank = ranker.rank
        ranker.rank = lambda lists: list(rank(lists))[:-1]
        return ranker
'''


def plan(spec: str, arms: dict[str, dict[str, Any]], run_date: str = "2026-01-31") -> Night:
    declared = {
        "first-stage": "bm25",
        "first-stages": {"bm25": {"kind": "bm25"}},
        "arms": {"bm25": {"ranker": "first-stage"}, **arms},
    }
    options = NightOptions.parse({"collection": spec, "run_date": run_date, "shards": 1})
    site = Site.from_environment()
    return plan_night(options, date.fromisoformat(run_date), site, arms=ArmsFile.of(declared))


def run(night: Night) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the arms, and their rows of `runs`, by name."""
    said = run_night(night, until="report")["verdict"]
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        key = [night.run_date]
        rows = dicts(warehouse.execute("FROM runs WHERE run_date = ?", key))
    return {arm["arm"]: arm for arm in said["arms"]}, {row["arm"]: row for row in rows}


def test_the_ranker_that_the_docs_show_is_an_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, pyproject, arm = documented()
    assert len(code.splitlines()) <= 30
    install(tmp_path / "source", monkeypatch, "my_rankers", code, pyproject=pyproject)
    assert "overlap" in [*RANKERS]
    # A word that comes again counts for BM25, and only makes the passage longer here.
    words = [p["text"].split()[1] for p in some_passages()]
    passages = [
        {**p, "text": f"{p['text']} {' '.join([words[i]] * (i % 5))}"}
        for i, p in enumerate(some_passages())
    ]
    spec = write_collection(tmp_path / "topics", queries=QUERIES, passages=passages)
    night = plan(spec, tomllib.loads(arm)["arms"])
    overlap = night.arms[1]
    assert overlap.options == {"damping": 0.3}
    assert overlap.settings()["package"] == "my-rankers 1.0"
    said, rows = run(night)
    assert said["overlap"]["text"].startswith("first result, compared with bm25")
    assert rows["overlap"]["status"] == "complete"
    assert rows["overlap"]["ranking_hash"] != rows["bm25"]["ranking_hash"]
    with pytest.raises(ConfigError, match="damping: "):
        plan(night.collection, {"overlap": {"ranker": "overlap", "damping": -1}})
    with pytest.raises(ConfigError, match="Did you mean overlap"):
        plan(night.collection, {"overlap": {"ranker": "overlab"}})


def test_every_way_to_fail_is_seen_and_costs_no_other_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = re.findall(r"class (\w+)\(", SILENT)[1:]
    points = {name.lower(): name for name in classes}
    install(tmp_path / "source", monkeypatch, "silent_rankers", SILENT, points)
    spec = write_collection(tmp_path / "topics", queries=QUERIES)
    said, rows = run(plan(spec, {name: {"ranker": name} for name in points}))

    suspects = {
        "unchanged": "order-unchanged, its order is the one it was given in 10 of 10 lists",
        "half": "scores-equal, all its scores are equal, or not finite in 10 of 10 lists",
        "well": "same-as-another, it ranks as another arm does, to the last place in 10 of 10 "
        "lists (twin)",
        "twin": "10 of 10 lists (well)",
        "repaired": "answers-repaired, its answers were malformed or had to be repaired in 10 of",
        "cut": "texts-cut, passages were cut before they were read in",
    }
    for name, why in suspects.items():
        assert said[name]["verdict"] == "suspect", name
        assert why in said[name]["text"], name
        assert rows[name]["status"] == "complete"
    reasons = {
        "breaking": "7 of 10: silent-rankers 1.0: KeyError('a bug')",
        "gone": "10 of 10: its model is gone",
        "undescribed": "10 of 10: no such folder",
        "floats": "10 of 10: silent-rankers 1.0: TypeError(",
        "fewer": "10 of 10: the ranker answered with another list",
        "unknown": "10 of 10: the ranker answered with another list",
        "bare": "10 of 10: silent-rankers 1.0: AttributeError(",
        "older": "10 of 10: silent-rankers 1.0: TypeError(",
        "nodescription": "10 of 10: silent-rankers 1.0: TypeError(\"describe() gave {'texts'",
        "nopermutation": "10 of 10: the ranker's order does not name every candidate once",
        "short": "1 of 10: the ranker gave no ranking for it",
        "notfinite": "10 of 10: its scores are not finite",
    }
    for name, why in reasons.items():
        assert said[name]["verdict"] == "incomplete", name
        assert why in said[name]["text"], name
        assert rows[name]["unranked_reason"] in said[name]["text"]
    assert "scores-equal" in said["notfinite"]["text"]
    assert "answers-repaired" in said["nopermutation"]["text"]
    assert said["bm25"]["verdict"] == "first"

    page = Site.from_environment().settings.page("topics", date(2026, 1, 31)).read_text()
    assert "order-unchanged, its order is the one it was given in 10 of 10 lists" in page
    assert "its model is gone" in page


def test_an_arm_that_is_to_have_a_symptom_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"unchanged": "Unchanged", "well": "Well", "twin": "Twin"}
    install(tmp_path / "source", monkeypatch, "expected_rankers", SILENT, points)
    spec = write_collection(tmp_path / "topics", queries=QUERIES)
    arms = {name: {"ranker": name} for name in points}
    called, _ = run(plan(spec, arms, "2026-01-30"))
    assert {called[name]["verdict"] for name in points} == {"suspect"}
    arms["unchanged"]["expect"] = ["order-unchanged"]
    arms["twin"]["expect"] = ["same-as-another"]
    meant, _ = run(plan(spec, arms, "2026-01-31"))
    assert {meant[name]["verdict"] for name in points} == {"identical"}
    for wrong in ("order-unchanged", ["order-unchanged", "orders-unchanged"]):
        arms["unchanged"]["expect"] = wrong
        with pytest.raises(ConfigError, match="arm unchanged: the settings of ranker unchanged"):
            plan(spec, arms)


def test_a_package_that_is_broken_costs_its_arm_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"broken": "Missing", "none": "np"}
    code = "import numpy as np\n"
    install(tmp_path / "source", monkeypatch, "broken_rankers", code, points)
    raising = "raise OSError('libwhatever.so.6 is not there')\n"
    install(tmp_path / "raising", monkeypatch, "raising_rankers", raising, {"raising": "Options"})
    spec = write_collection(tmp_path / "topics")
    reasons = {
        "broken": "'broken' cannot be loaded from broken_rankers:Missing: AttributeError(",
        "none": "'none' cannot be loaded from broken_rankers:np: no subclass of",
        "raising": "OSError('libwhatever.so.6 is not there'). Mend or uninstall its package",
    }
    said, _ = run(plan(spec, {name: {"ranker": name, "damping": 0.3} for name in reasons}))
    for name, why in reasons.items():
        assert said[name]["verdict"] == "incomplete", name
        assert why in said[name]["text"], name
    assert said["bm25"]["verdict"] == "first"
    install(tmp_path / "other", monkeypatch, "other_rankers", code, {"broken": "np"})
    with pytest.raises(ConfigError, match="'broken' is brought twice"):
        RANKERS["broken"]
    assert RANKERS.package("cosine") is None
