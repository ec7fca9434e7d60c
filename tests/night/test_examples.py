"""The commented examples of the built-in file of arms, each ranking a night as it is written."""

from datetime import date
from pathlib import Path

import pytest

from perank_tasks.artifacts.storage.s3_client import s3
from perank_tasks.config import NightOptions
from perank_tasks.night.arms import BUILT_IN, ArmsFile
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.warehouse.database import reading
from tests.rankers.rerank_process import Server
from tests.s3_servers import Moto
from tests.small import NIGHT, SMALL_MODELS, run_night, some_queries, write_collection
from tests.training.data.test_scorers import write_cross_encoder

EXAMPLES = {"cross-encoder", "listwise-text", "service", "production"}
ASKED = ("q-flea", "q-thai")


@pytest.mark.slow
def test_each_example_ranks_once_its_marks_are_taken_away(
    tmp_path: Path, moto: Moto, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERANK_CACHE", str(unpacked))
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    moto.make_bucket("search-logs")
    # A language model of 135M parameters writes out the order of every query's passages.
    queries = {query: text for query, text in some_queries().items() if query in ASKED}
    run = "".join(f"{q} Q0 {q[2:]}-{i} 0 {9 - i} x\n" for q in queries for i in (3, 1, 5))
    run += "q-thai Q0 gone-1 0 0.5 x\n"
    s3().client.put_object(Bucket="search-logs", Key=f"{NIGHT}.trec", Body=run.encode())
    monkeypatch.setenv("RERANK_KEY", "s3cret-key")
    server = Server(tmp_path)
    text = BUILT_IN.read_text()
    # What no test has: the hub, and a server at a port of its own.
    replaced = {
        '"cross-encoder/ms-marco-MiniLM-L6-v2"': f'"{write_cross_encoder(tmp_path / "cross")}"',
        '"http://127.0.0.1:8000/v1/rerank"': f'"{server.url("well")}"',
    }
    for written, here in replaced.items():
        assert text.count(written) == 1
        text = text.replace(written, here)
    file = tmp_path / "arms.toml"
    file.write_text("".join(line.removeprefix("#: ") for line in text.splitlines(keepends=True)))
    options = NightOptions.parse(
        {
            "collection": write_collection(tmp_path / "topics", queries=queries),
            "run_date": NIGHT,
            "arms_file": str(file),
            "set": SMALL_MODELS,
        }
    )
    site = Site.from_environment()
    arms = ArmsFile.of_night(options, None)
    night = plan_night(options, date.fromisoformat(NIGHT), site, arms=arms)
    assert {arm.name for arm in night.arms} - {
        arm.name for arm in ArmsFile.read().select()
    } == EXAMPLES
    try:
        said = run_night(night)["verdict"]["arms"]
        assert {request["key"] for request in server.asked("well")} == {"Bearer s3cret-key"}
    finally:
        server.kill()
    with reading(site.settings.warehouse) as warehouse:
        query = "SELECT arm, status, unranked_queries FROM runs WHERE list_contains($arms, arm)"
        rows = warehouse.execute(query, {"arms": [*EXAMPLES]}).fetchall()
        kept = warehouse.execute("SELECT string_agg(config, '') FROM runs").fetchone()
    assert sorted(rows) == [(name, "complete", 0) for name in sorted(EXAMPLES)]
    assert {arm["verdict"] for arm in said if arm["arm"] in EXAMPLES} == {"first"}
    assert "s3cret" not in kept[0]
