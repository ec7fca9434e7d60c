"""Two workers, a killed one, a killed S3 server: the same tables as on one machine."""

from pathlib import Path

import pytest

from tests.cluster.distributed_run import distributed


@pytest.mark.long
@pytest.mark.airflow
def test_the_distributed_run_ends_with_the_tables_of_one_machine(tmp_path: Path) -> None:
    outcome = distributed(tmp_path)
    assert outcome.wrong == []
    assert [step for step in outcome.steps if step.startswith("killed")]
