"""`run`: a ranking made elsewhere is an arm of its own, measured as it is."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perank_tasks.artifacts.storage.s3_client import s3
from perank_tasks.config import Night, NightOptions
from perank_tasks.errors import ConfigError
from perank_tasks.night.arms import ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.rerank import write_runs
from perank_tasks.night.site import Site
from perank_tasks.rankers import RANKERS
from perank_tasks.warehouse.database import reading
from perank_tasks.warehouse.sql_files import dicts
from tests.conftest import s3_root
from tests.s3_servers import Server
from tests.small import NIGHT, TOPICS, run_night, write_collection

LINES = [
    f"q-{topic} Q0 {topic}-{i} 0 {score} production"
    for topic in TOPICS
    for i, score in ((3, 9.5), (0, 2.0), (5, 2.0), (1, 7.25))
]
"""Every query's passages 3, 1 and then, of equal scores the greater id first, 5 and 0."""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return write_collection(tmp_path / "topics")


def planned(spec: str, path: str, run_date: str = NIGHT, **options: Any) -> Night:
    arms = ArmsFile.of(
        {
            "first-stage": "bm25",
            "first-stages": {"bm25": {"kind": "bm25", "depth": 20}},
            "arms": {
                "bm25": {"ranker": "first-stage"},
                "production": {"ranker": "run", "path": path, **options},
            },
        }
    )
    night = NightOptions.parse({"collection": spec, "run_date": run_date})
    return plan_night(night, date.fromisoformat(run_date), Site.from_environment(), arms=arms)


def results(night: Night) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Rows of `run_summary` and what is said, by arm."""
    said = run_night(night, until="verdict")["verdict"]["arms"]
    with reading(Site.from_environment().settings.warehouse) as warehouse:
        key = {"day": night.run_date, "collection": night.collection_name}
        rows = dicts(
            warehouse.execute(
                "FROM run_summary WHERE run_date = $day AND collection = $collection", key
            )
        )
    return {row["arm"]: row for row in rows}, {arm["arm"]: arm["text"] for arm in said}


def test_a_run_is_measured_as_it_is(spec: str, tmp_path: Path) -> None:
    (tmp_path / f"{NIGHT}.trec").write_text("\n".join(LINES) + "\n")
    night = planned(spec, f"{tmp_path}/{{date}}.trec")
    rankings = run_night(night, until="rerank")["rerank"]
    out = tmp_path / "out.trec"
    production = {night.arms[1].hash: rankings[night.arms[1].hash]}
    write_runs(night, Site.from_environment().store, production, out)
    ranked = [line.split() for line in out.read_text().splitlines()]
    assert [(q, p) for q, _, p, *_ in ranked] == [
        (f"q-{topic}", f"{topic}-{i}") for topic in TOPICS for i in (3, 1, 5, 0)
    ]
    rows, said = results(night)
    assert rows["production"]["status"] == "complete"
    # Grades 3, none, 1, 0 at ranks 1 to 4: what it did not find counts as it should.
    assert rows["production"]["recall_100"] == 1
    assert rows["production"]["ndcg_10"] == pytest.approx((3 + 1 / 2) / (3 + 0.63093), abs=1e-4)
    assert "first result" in said["production"]


def test_every_night_has_its_own_and_is_judged_against_the_one_before(
    spec: str, tmp_path: Path
) -> None:
    path = f"{tmp_path}/{{date:%Y%m%d}}.trec"
    (tmp_path / "20260130.trec").write_text("\n".join(LINES) + "\n")
    worse = [line.replace("9.5", "0.5") for line in LINES]
    (tmp_path / "20260131.trec").write_text("\n".join(worse) + "\n")
    first, second = planned(spec, path, "2026-01-30"), planned(spec, path, NIGHT)
    assert first.arms[1].hash == second.arms[1].hash
    results(first)
    _, said = results(second)
    assert "compared with 2026-01-30" in said["production"]
    assert "different: the run's lines" in said["production"]


def test_a_missing_run_costs_its_arm_alone_until_it_is_there(spec: str, tmp_path: Path) -> None:
    path = tmp_path / "late.trec"
    rows, said = results(planned(spec, str(path)))
    assert (rows["bm25"]["status"], rows["production"]["status"]) == ("complete", "incomplete")
    assert rows["production"]["unranked_queries"] == 5
    assert f"{path}: cannot be read: No such file" in said["production"]
    path.write_text("\n".join(LINES) + "\n")
    rows, said = results(planned(spec, str(path)))
    assert rows["production"]["status"] == "complete"
    assert len(rows) == 2, "what the first left incomplete is replaced"


def test_missing_queries_are_counted_and_a_pair_twice_is_refused_with_its_line(
    spec: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.trec"
    path.write_text("\n".join(LINES[4:]) + "\n")
    rows, said = results(planned(spec, str(path)))
    assert (rows["production"]["unranked_queries"], rows["production"]["status"]) == (
        1,
        "incomplete",
    )
    assert "1 of 5: the run has no passage of the collection for it" in said["production"]
    path.write_text("\n".join([*LINES, LINES[7]]) + "\n")
    _, said = results(planned(spec, str(path)))
    twice = "line 21: query 'q-concrete' and passage 'concrete-1' are on line 8"
    assert twice in said["production"]


@pytest.mark.parametrize("unknown", ["refuse", "drop"])
def test_unknown_passages_are_refused_or_dropped(spec: str, tmp_path: Path, unknown: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text("\n".join([*LINES, "q-thai Q0 gone-1 0 99 production"]) + "\n")
    rows, said = results(planned(spec, str(path), unknown=unknown))
    production = rows["production"]
    if unknown == "drop":
        assert (production["status"], production["unranked_queries"]) == ("complete", 0)
    else:
        assert (production["status"], production["unranked_queries"]) == ("incomplete", 1)
        assert "1 of 5 candidates, gone-1 the first, have no text" in said["production"]


def test_a_run_on_s3(spec: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    root = s3_root(s3_server, monkeypatch)
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    content = "\n".join(LINES).encode()
    s3().client.put_object(Bucket=bucket, Key=f"{prefix}/{NIGHT}.trec", Body=content)
    rows, _ = results(planned(spec, f"{root}/{{date}}.trec"))
    assert rows["production"]["status"] == "complete"


@pytest.mark.parametrize("path", ["{day}.trec", "{date", "{date:%Y}/{}"])
def test_a_path_knows_a_date_alone(path: str) -> None:
    with pytest.raises(ConfigError, match="all that a path can have in braces"):
        RANKERS["run"].parse({"path": path})
