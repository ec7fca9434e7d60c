"""What the DAG sends by Airflow's metrics, as a StatsD server gets it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.small import write_collection

SEND = """
import sys
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from perank_tasks.airflow.verdict import send_metrics
from tests.small import small_night
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
arms = [
    {"arm": "bm25", "arm_hash": "b", "verdict": "identical"},
    {"arm": "perank", "arm_hash": "p", "verdict": "regression"},
]
means = {"b": {"nDCG@10": 0.5}, "p": {"nDCG@10": 0.25, "MRR@10": 0.125}}
send_metrics(small_night(sys.argv[1]), {"arms": arms}, means)
"""


def test_words_and_means_are_gauges_with_tags(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(server.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }
        done = subprocess.run(
            [sys.executable, "-c", SEND, spec], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        received: list[str] = []
        while len(received) < 5:
            # Airflow sends metrics of its own, too.
            received += [m for m in [server.recv(4096).decode()] if ".perank." in m]
    bm25, perank = ("collection=topics,arm=bm25", "collection=topics,arm=perank")
    assert sorted(received) == [
        f"airflow.perank.measure,{bm25},measure=nDCG_10:0.5|g",
        f"airflow.perank.measure,{perank},measure=MRR_10:0.125|g",
        f"airflow.perank.measure,{perank},measure=nDCG_10:0.25|g",
        f"airflow.perank.verdict,{bm25}:1|g",
        f"airflow.perank.verdict,{perank}:8|g",
    ]
