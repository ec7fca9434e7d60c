"""A night over pydocs by every kind of ranker, under the real scheduler.

The service dies in the middle: it is retried while it comes back, and costs its own arm alone once
it does not.
"""

import re
import threading
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.collections.pydocs import PydocsCollection
from tests.airflow.harness import RealAirflow, unscheduled
from tests.airflow.test_nightly import rows
from tests.airflow.test_verdict import DAGS, NIGHTLY, NOTE
from tests.rankers.packages import documented, install
from tests.rankers.rerank_process import Server
from tests.small import GOLDEN, NIGHT
from tests.training.data.test_scorers import write_cross_encoder

QUERIES = [f"q{number:03}" for number in range(1, 16)]
"""The first of pydocs: fewer than ten would show no symptom."""

ARMS = """
first-stage = "bm25"

[first-stages.bm25]
kind = "bm25"
depth = 50

[arms.bm25]
ranker = "first-stage"

[arms.perank]
ranker = "perank"
checkpoint = "{checkpoint}"

[arms.cross-encoder]
ranker = "cross-encoder"
model = "{cross_encoder}"

[arms.service]
ranker = "service"
url = "{url}"
concurrency = 1

[arms.production]
ranker = "run"
path = "{runs}/{{date}}.trec"

"""


def write_production(path: Path) -> list[tuple[str, str, int]]:
    """A run that knows the judgements: (query, passage, rank) as they are written."""
    data = PydocsCollection().load(date.fromisoformat(NIGHT))
    ids = {passage.passage_id for passage in data.passages}
    judged = sorted(data.judgements, key=lambda j: (j.query_id, -j.relevance))
    lines = []
    for query in QUERIES:
        best = [j.passage_id for j in judged if j.query_id == query and j.passage_id in ids]
        lines += [(query, passage, rank) for rank, passage in enumerate(best, 1)]
    text = "".join(f"{q} Q0 {p} {rank} {-rank} production\n" for q, p, rank in lines)
    path.write_text(text, encoding="utf-8")
    return lines


@pytest.mark.airflow
@pytest.mark.long
def test_every_ranker_ranks_a_night_and_a_killed_service_costs_its_own_arm(
    real_airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, pyproject, overlap = documented()
    package = install(tmp_path / "source", monkeypatch, "my_rankers", code, pyproject=pyproject)
    production = write_production(tmp_path / f"{NIGHT}.trec")
    server = Server(tmp_path)
    arms = tmp_path / "arms.toml"
    declared = ARMS.format(
        checkpoint=GOLDEN,
        cross_encoder=write_cross_encoder(tmp_path / "cross"),
        url=server.url("mortal"),
        runs=tmp_path,
    )
    arms.write_text(declared + overlap)

    def revive() -> None:
        server.process.wait()
        server.start()

    # It ranks three lists, dies of the fourth, is back while that is retried, ranks three more, and
    # dies for good.
    reviving = threading.Thread(target=revive)
    reviving.start()
    airflow: RealAirflow = real_airflow(unscheduled(DAGS, tmp_path / "dags"), PYTHONPATH=package)
    conf = {"collection": "pydocs", "query_limit": len(QUERIES), "arms_file": str(arms)}
    try:
        night = airflow.run(NIGHTLY, {**conf, "run_date": NIGHT, "shards": 1})
    finally:
        server.kill()
        reviving.join()
        server.kill()
    assert night.status == 0, night.output
    states = airflow.states(NIGHTLY)
    assert states.pop("approval") == "skipped"
    assert set(states.values()) == {"success"}

    names = ["bm25", "cross-encoder", "overlap", "perank", "production", "service"]
    unranked = {name: 9 if name == "service" else 0 for name in names}
    status = {name: "incomplete" if name == "service" else "complete" for name in names}
    runs = rows(airflow, "SELECT arm, status, unranked_queries, queries FROM runs ORDER BY arm")
    assert runs == [(name, status[name], unranked[name], 15) for name in names]
    ((reason,),) = rows(airflow, "SELECT unranked_reason FROM runs WHERE arm = 'service'")
    assert "cannot be reached" in reason
    assert rows(airflow, "SELECT count(DISTINCT ranking_hash) FROM runs") == [(len(names),)]
    ((config,),) = rows(airflow, "SELECT config FROM runs WHERE arm = 'overlap'")
    assert "my-rankers 1.0" in config
    measured = "SELECT arm, count(DISTINCT query_id), count(DISTINCT measure) FROM query_measures"
    assert rows(airflow, f"{measured} GROUP BY arm ORDER BY arm") == [(n, 15, 5) for n in names]

    # Retried with waits of .5, 1, 2 and 4 s for each of the five lists in a row, then given up.
    seconds = "SELECT seconds FROM efficiency WHERE arm = 'service' AND stage = 'rerank'"
    assert rows(airflow, seconds)[0][0] > 5 * 7.5
    moved = rows(
        airflow,
        "SELECT query_id, bool_or(rank != first_stage_rank) FROM rankings WHERE arm = 'service' "
        "GROUP BY query_id ORDER BY query_id",
    )
    assert moved == [(query, place < 6) for place, query in enumerate(QUERIES)]
    ranked = "SELECT query_id, passage_id, rank FROM rankings WHERE arm = 'production' ORDER BY ALL"
    assert rows(airflow, ranked) == sorted(production)

    words = dict(rows(airflow, "SELECT arm, verdict::VARCHAR FROM arm_verdicts"))
    assert words == {n: "incomplete" if n == "service" else "first" for n in names}
    note = airflow.query(NOTE)[0][0]
    assert note.startswith("**incomplete (service)")
    page = (airflow.home / "reports" / "pydocs" / f"{NIGHT}.html").read_text()
    shown = re.findall(r'</span> ([\w-]+)</th><td><span class="badge \w+">\S+ (\w+)<', page)
    assert dict(shown) == words
    assert "nothing that could be known: there is nothing to compare with" in page
    service = page.split("Arm by arm")[1].split("</span> service</b>")[1].partition("</details>")[0]
    assert "9 of 15: " in service
    assert "cannot be reached" in service
