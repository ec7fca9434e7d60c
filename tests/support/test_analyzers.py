"""Terms of texts that are not English."""

import pytest

from perank_tasks.support.analysis import ANALYZERS, analyze, analyzer, identity


@pytest.mark.parametrize(
    ("name", "text", "terms"),
    [
        ("french", "L'avion des Étés", ["l", "avion", "de", "été"]),
        ("german", "Häuser DÜRFEN", ["haus", "durf"]),
        ("hindi", "किताबें", ["किताब"]),
        ("words", "e\u0301te\u0301 Ünicode 12", ["été", "ünicode", "12"]),
        ("bigrams", "諾貝爾 capital of Egypt", ["諾貝", "貝爾", "capital", "of", "egypt"]),
        ("bigrams", "スーパー ｶﾀ 水", ["スー", "ーパ", "パー", "カタ", "水"]),
        ("bigrams", "H2O水は", ["h2o", "水は"]),
        ("bigrams", "ไทย 한국어", ["ไท", "ทย", "한국", "국어"]),
        ("bigrams", "?!", []),
    ],
)
def test_terms(name: str, text: str, terms: list[str]) -> None:
    assert analyzer(name)(text) == terms


def test_english_is_the_default_and_every_name_makes_terms() -> None:
    assert analyzer("english") is analyze
    assert all(analyzer(name)("water") for name in ANALYZERS)
    assert len({identity(name) for name in ANALYZERS}) == len(ANALYZERS)
