"""Options of training data: formulas of teachers, and what does not fit together."""

import pytest

from perank_tasks.errors import ConfigError
from perank_tasks.training.data.data_options import DataOptions, parse_scorers


@pytest.mark.parametrize(
    ("formula", "weights"),
    [
        ("cosine", {"cosine": 1.0}),
        ("cosine + 0.03*bm25", {"cosine": 1.0, "bm25": 0.03}),
        ("2 * cosine+.5 bm25", {"cosine": 2.0, "bm25": 0.5}),
        ("cross-encoder + 0.1*bm25", {"cross-encoder": 1.0, "bm25": 0.1}),
        ("none", {}),
    ],
)
def test_a_formula_is_read(formula: str, weights: dict[str, float]) -> None:
    assert parse_scorers(formula) == weights


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("cosin", "no scorer 'cosin'.* Did you mean cosine"),
        ("cosine + ", "found ''"),
        ("cosine + cosine", "cosine is there twice"),
        ("0*cosine", "found '0\\*cosine'"),
        ("1.2.3*cosine", "expected scorers with weights"),
        ("cosine - bm25", "expected scorers with weights"),
    ],
)
def test_a_malformed_formula_is_explained(formula: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_scorers(formula)
    with pytest.raises(ConfigError, match="not valid"):
        DataOptions.parse({"collections": ("pydocs",), "teacher": formula})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"collections": ()}, "give collections, or reference_jsonl"),
        ({"reference_jsonl": "a.jsonl"}, "one of the two"),
        ({"collections": (), "reference_jsonl": "a", "stage": "alignment"}, "lists for ranking"),
        ({"collections": (), "reference_jsonl": "a", "queries": "cloze"}, "brings its queries"),
        ({"terms": ("dl21",)}, "expected NAME=NOTE"),
        ({"hard_from": "cross-encoder"}, "cannot score every passage"),
        ({"hard_from": "judged"}, "judgements must be set"),
        ({"teacher": "none"}, "set judgements, or name one"),
        ({"judgements": True, "queries": "queries.tsv"}, "judgements are of the collections"),
        ({"hard": 1, "random": 0}, "at least 2"),
        ({"hard": 16, "depth": 10}, "cannot come from depth 10"),
        ({"hard_from": "none"}, "finds nothing"),
        ({"colections": ("pydocs",)}, "Did you mean collections"),
    ],
)
def test_what_does_not_fit_together_is_refused(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DataOptions.parse({"collections": ("pydocs",), **values})


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ({}, {"cosine": 1.0, "bm25": 0.008}),
        ({"teacher": "bm25"}, {"bm25": 1.0}),
        ({"teacher": "cross-encoder"}, {"cosine": 1.0, "bm25": 0.008}),
        ({"judgements": True}, None),
        ({"judgements": True, "teacher": "none"}, None),
        ({"judgements": True, "queries": "cloze"}, {"cosine": 1.0, "bm25": 0.008}),
        ({"judgements": True, "hard_from": "bm25"}, {"bm25": 1.0}),
    ],
)
def test_hard_candidates_come_from_what_can_score_every_passage(
    values: dict, weights: dict[str, float] | None
) -> None:
    assert DataOptions.parse({"collections": ("pydocs",), **values}).hard_weights == weights
