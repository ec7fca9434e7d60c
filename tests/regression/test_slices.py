"""Where a drop sits: slices of queries against all others."""

import numpy as np

from perank_tasks.regression.slices import lengths, slices_of


def test_the_slice_that_fell_is_told_from_those_that_did_not() -> None:
    random = np.random.default_rng(3)
    deltas = {f"q{i}": float(delta) for i, delta in enumerate(random.normal(0, 0.05, 80))}
    fallen = {f"q{i}" for i in range(12)}
    for query in fallen:
        deltas[query] -= 0.3
    groups = {"tagged os": fallen, "tagged io": {f"q{i}" for i in range(10, 40)}}
    first, second = slices_of(deltas, groups)
    assert (first.name, first.queries) == ("tagged os", 12)
    assert np.isclose(first.delta, np.mean([deltas[q] for q in sorted(fallen)]))
    assert np.isclose(
        (12 * first.delta + 68 * first.others_delta) / 80, np.mean([*deltas.values()])
    )
    assert first.p_holm < 0.002 < 0.05 < second.p_holm
    assert slices_of(deltas, groups) == [first, second]  # the same p every time


def test_queries_that_all_fell_alike_sit_in_no_slice() -> None:
    called = 0
    for seed in range(60):
        values = np.random.default_rng(seed).normal(-0.2, 0.1, 60)
        deltas = {f"q{i}": float(value) for i, value in enumerate(values)}
        groups = {str(k): {f"q{i}" for i in range(k, 60, 4)} for k in range(4)}
        called += any(part.p_holm < 0.05 for part in slices_of(deltas, groups))
    assert called <= 8  # 5% of 60 are 3; more than 8 come once in 1,000


def test_small_slices_and_unchanged_queries_have_no_test() -> None:
    deltas = {f"q{i}": -0.1 * i for i in range(12)}
    assert slices_of(deltas, {"few": {"q1", "q2"}, "almost all": set(deltas) - {"q1"}}) == []
    assert slices_of(dict.fromkeys(deltas, 0.0), {"half": {f"q{i}" for i in range(6)}}) == []
    assert slices_of({}, {}) == []


def test_lengths_are_thirds_that_hold_every_query_once() -> None:
    words = {f"q{i}": 2 + i % 9 for i in range(90)}
    groups = lengths(words)
    assert list(map(len, groups.values())) == [30, 30, 30]
    assert set().union(*groups.values()) == set(words)
    assert groups["of up to 4 words"] == {q for q, n in words.items() if n <= 4}
    assert set(lengths({"a": 3, "b": 3})) == {"of up to 3 words"}
    assert lengths({}) == {}
