"""What the ladder promises, measured; and the simulation's own honesty."""

import numpy as np
import pytest

from perank_tasks.regression import simulation
from perank_tasks.regression.ladder import EarlierNight, Verdict
from perank_tasks.regression.simulation import Noise, World


@pytest.mark.parametrize("arms", [1, 5])
def test_unchanged_nights_are_hardly_ever_called(arms: int) -> None:
    words = simulation._unchanged(np.random.default_rng(7), 200, arms)
    assert sum(words.values()) == 200
    assert words.get(Verdict.REGRESSION, 0) + words.get(Verdict.SUSPECT, 0) <= 2
    assert words[Verdict.DRIFT] > 150


def test_an_arms_words_do_not_depend_on_the_arms_beside_it() -> None:
    """The same values, judged among one arm and among three."""
    alone, among = (World(np.random.default_rng(5), 40, arms) for arms in (1, 3))
    among.baseline[-1] = alone.baseline[-1]
    among.lasting[-1] = alone.lasting[-1]
    still = Noise(ties=0, passages=0, judgements=0)
    alone.noise = among.noise = still
    drop = np.full((simulation.TESTS, 40), -0.03) * np.random.default_rng(1).normal(1, 2, 40)
    assert among.night(drop)[-simulation.TESTS :] == alone.night(drop)


def test_a_drop_of_a_twentieth_is_called_on_its_first_night() -> None:
    random = np.random.default_rng(7)
    called = [simulation.first_night(random, 80, 0.05) for _ in range(40)]
    assert np.mean(called) >= 0.8
    assert np.mean([simulation.first_night(random, 80, 0.0) for _ in range(30)]) <= 0.1


def test_five_drops_of_a_hundredth_are_called_by_the_fifth() -> None:
    random = np.random.default_rng(7)
    called = [simulation.drops_in_a_row(random, 80, 0.01, 5) for _ in range(30)]
    assert np.mean(called) >= 0.8


def test_a_drop_that_nobody_accepts_stays_called() -> None:
    """For sixty nights: it does not become usual, since what is called does not make the band."""
    random = np.random.default_rng(7)
    nights = np.array([simulation.lasting_drop(random, 80, 0.05) for _ in range(4)])
    assert nights.shape == (4, 60)
    assert nights.mean() >= 0.95
    assert all(called[np.argmax(called) :].all() for called in nights)


def test_an_outlier_does_not_hide_its_like() -> None:
    random = np.random.default_rng(7)
    assert np.mean([simulation.repeated_drop(random, 80, 0.05) for _ in range(10)]) >= 0.8


def test_an_accepted_drop_is_the_new_level_at_once() -> None:
    random = np.random.default_rng(7)
    assert np.mean([simulation.accepted_drop(random, 80, 0.05) for _ in range(5)]) <= 0.03


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
    assert world.earlier[0][0] == [EarlierNight(0.0, Verdict.DRIFT)]


@pytest.mark.parametrize("drop", [0.02, 0.05, 0.1])
def test_a_true_drop_has_the_mean_it_says(drop: float) -> None:
    world = World(np.random.default_rng(3), 20_000)
    after = np.clip(world.baseline[-1] + simulation._true_drop(world, drop), 0, 1)
    assert (after - world.baseline[-1]).mean() == pytest.approx(-drop, abs=0.005)


def test_the_same_seed_gives_the_same_report() -> None:
    def run() -> simulation.Report:
        return simulation.simulate(3, 20, 3, 2, drops=(0.02, 0.1), sizes=(20, 40))

    report = run()
    assert run() == report
    assert len(report.curve) == 4
    assert [sum(words.values()) for words in report.words.values()] == [20, 20, 20]
    assert report.alarms(1) == 0
