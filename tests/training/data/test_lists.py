"""Building lists: what is drawn, in which order it stands, and how it is ranked."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perank_tasks.training.data.lists import draw, generator, golden_ranking, top, with_feedback

counts = st.integers(0, 6)


@st.composite
def draws(draw_: st.DrawFn) -> dict[str, object]:
    passages = draw_(st.integers(2, 60))
    rows = st.lists(st.integers(0, passages - 1), unique=True, max_size=passages)
    hard_count = draw_(st.integers(1, min(8, passages)))
    return {
        "relevant": np.array(draw_(rows), np.int64),
        "hard": np.array(draw_(rows), np.int64),
        "passages": passages,
        "relevant_count": draw_(counts),
        "hard_count": hard_count,
        "random_count": draw_(st.integers(0, passages - hard_count)),
    }


@given(draws(), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_a_list_has_its_length_and_its_kinds(values: dict, seed: int) -> None:
    rows, hard = draw(generator(seed, "q"), **values)
    again, _ = draw(generator(seed, "q"), **values)
    assert rows.tolist() == again.tolist()

    length = values["hard_count"] + values["random_count"]
    assert len(rows) == len(hard) == length
    assert len(set(rows.tolist())) == length
    assert set(rows.tolist()) <= set(range(values["passages"]))

    relevant, offered = set(values["relevant"].tolist()), set(values["hard"].tolist())
    certain = min(values["relevant_count"], values["hard_count"], len(relevant))
    chosen = rows[hard].tolist()
    assert len(relevant.intersection(chosen)) >= certain
    assert set(chosen) <= relevant | offered
    assert len(chosen) <= values["hard_count"]
    # Fewer only where there are no more.
    if len(chosen) < values["hard_count"]:
        assert offered <= set(chosen)
    # Random ones are unknown to both, unless everything unknown is in the list.
    strangers = set(range(values["passages"])) - relevant - offered
    if not set(rows[~hard].tolist()) <= strangers:
        assert strangers <= set(rows.tolist())


def test_every_hard_row_and_every_stranger_has_its_chance() -> None:
    drawn = [
        draw(
            generator(0, "q", number),
            relevant=np.array([], np.int64),
            hard=np.arange(10),
            passages=1000,
            relevant_count=0,
            hard_count=2,
            random_count=2,
        )
        for number in range(2000)
    ]
    hard = np.bincount(np.concatenate([rows[h] for rows, h in drawn]), minlength=10)
    # 400 expected each; a fair draw strays by 18 in a standard deviation.
    assert abs(hard - 400).max() < 90
    strangers = np.concatenate([rows[~h] for rows, h in drawn])
    assert strangers.min() >= 10
    assert abs(strangers.mean() - (10 + 999) / 2) < 20


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])), min_size=1),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_a_golden_ranking_goes_by_grade_then_score_then_row(
    values: list, random: object, judged: bool, taught: bool
) -> None:
    rows = np.arange(len(values)) * 3
    random.shuffle(rows)  # type: ignore[attr-defined]
    grades = np.array([grade for grade, _ in values]) if judged else None
    scores = np.array([score for _, score in values], np.float32) if taught else None
    ranking = golden_ranking(rows, grades, scores)
    assert sorted(ranking.tolist()) == list(range(len(values)))
    plain = sorted(
        range(len(values)),
        key=lambda i: (-values[i][0] if judged else 0, -values[i][1] if taught else 0, rows[i]),
    )
    assert ranking.tolist() == plain


def test_what_a_teacher_does_not_know_is_last() -> None:
    scores = np.array([-np.inf, 2.0, -np.inf, -7.0], np.float32)
    assert golden_ranking(np.array([4, 3, 2, 1]), None, scores).tolist() == [1, 3, 2, 0]


def test_generators_differ_by_every_name_and_are_the_same_in_every_process() -> None:
    firsts = {
        int(generator(*names).integers(2**62))
        for names in [(0, "q", 0), (1, "q", 0), (0, "r", 0), (0, "q", 1), (0, "q0"), (0, "q", "")]
    }
    assert len(firsts) == 6
    code = (
        "from perank_tasks.training.data.lists import generator;"
        "print(generator(7, 'q', 3).integers(2**62))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(generator(7, "q", 3).integers(2**62))


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.0]), max_size=40),
    st.integers(1, 50),
    st.sampled_from([-np.inf, 0.0]),
)
@settings(deadline=None)
def test_the_top_is_the_sorted_lists_beginning(
    values: list[float], depth: int, above: float
) -> None:
    scores = np.array(values)
    plain = sorted(
        (i for i, score in enumerate(values) if score > above), key=lambda i: (-values[i], i)
    )
    assert top(scores, depth, above=above).tolist() == plain[:depth]


@pytest.mark.parametrize("count", [1, 4])
def test_a_list_can_take_the_whole_pool(count: int) -> None:
    rows, hard = draw(
        generator(0),
        relevant=np.array([1]),
        hard=np.array([1, 0]),
        passages=count + 1,
        relevant_count=1,
        hard_count=1,
        random_count=count,
    )
    assert sorted(rows.tolist()) == list(range(count + 1))
    assert rows[hard].tolist() == [1]


@given(st.integers(2, 12), st.integers(1, 15), st.floats(0, 4), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_feedback_adds_the_mean_cosine_to_the_best(
    n: int, passages: int, weight: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = rng.integers(0, 4, n).astype(np.float32)
    best = sorted(range(n), key=lambda i: (-scores[i], i))[:passages]
    plain = [
        scores[i] + weight * sum(float(vectors[i] @ vectors[j]) for j in best) / len(best)
        for i in range(n)
    ]
    found = with_feedback(scores, vectors, passages=passages, weight=weight)
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_feedback_leaves_what_a_teacher_does_not_know_last() -> None:
    scores = np.array([-np.inf, 2.0, 1.0], np.float32)
    found = with_feedback(scores, np.eye(3, dtype=np.float32), passages=2, weight=3.0)
    assert found[0] == -np.inf
