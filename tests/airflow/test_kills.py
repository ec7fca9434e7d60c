"""A night whose parts are killed ends in the tables of one that was left alone.

`python -m tests.airflow.kill_trials --times 30` does the same more often.
"""

from pathlib import Path

import pytest

from tests.airflow.kill_trials import trials


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.airflow
def test_whatever_is_killed_the_tables_are_those_of_an_undisturbed_night(tmp_path: Path) -> None:
    found = [trial for _, trial in trials(3, seed=1, folder=tmp_path)]
    assert [trial.wrong for trial in found] == [[]] * 3
    assert not any("nothing" in trial.killed for trial in found)
