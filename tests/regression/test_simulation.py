"""What the ladder promises, measured; and the simulation's own honesty."""

import numpy as np
import pytest

from perank_tasks.regression import simulation
from perank_tasks.regression.ladder import Verdict
from perank_tasks.regression.simulation import Noise, World


def test_unchanged_nights_are_hardly_ever_called_a_regression() -> None:
    words = simulation._unchanged(np.random.default_rng(7), 200)
    assert sum(words.values()) == 200
    assert words.get(Verdict.REGRESSION, 0) <= 2
    assert words[Verdict.DRIFT] > 150


def test_a_drop_of_a_twentieth_is_called_on_its_first_night() -> None:
    random = np.random.default_rng(7)
    called = [simulation.is_called(random, 80, 0.05) for _ in range(40)]
    assert np.mean(called) >= 0.8
    assert np.mean([simulation.is_called(random, 80, 0.0) for _ in range(30)]) <= 0.1


def test_five_drops_of_a_hundredth_are_called_by_the_fifth() -> None:
    random = np.random.default_rng(7)
    called = [simulation.is_called(random, 80, 0.05, nights=5) for _ in range(30)]
    assert np.mean(called) >= 0.8


def test_noise_moves_single_queries_and_not_the_mean() -> None:
    world = World(np.random.default_rng(0), 4000)
    world.settle(20)
    shift = world.lasting - world.baseline
    assert np.mean(shift != 0) > 0.1
    assert abs(shift.mean()) < 0.002
    assert (world.lasting >= 0).all()
    assert (world.lasting <= 1).all()


def test_without_noise_a_night_repeats() -> None:
    still = Noise(ties=0, passages=0, judgements=0)
    world = World(np.random.default_rng(0), 50, noise=still)
    assert set(world.night()) == {Verdict.DRIFT}  # nothing says that its rankings are the same
    assert world.earlier[0] == [(0.0, Verdict.DRIFT)]


@pytest.mark.parametrize("drop", [0.02, 0.05, 0.1])
def test_a_true_drop_has_the_mean_it_says(drop: float) -> None:
    world = World(np.random.default_rng(3), 20_000)
    after = np.clip(world.baseline[-1] + simulation._true_drop(world, drop), 0, 1)
    assert (after - world.baseline[-1]).mean() == pytest.approx(-drop, abs=0.005)


def test_the_same_seed_gives_the_same_report() -> None:
    def run() -> simulation.Report:
        steps = list(simulation.simulate(3, 20, 3, 2, drops=(0.02, 0.1), sizes=(20, 40)))
        assert steps[-1][1]
        return steps[-1][1]

    report = run()
    assert run() == report
    assert report.tests == 16
    assert len(report.curve) == 4
    assert sum(report.words.values()) == 20
