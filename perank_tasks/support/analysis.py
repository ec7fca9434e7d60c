"""Text analysis for BM25: what Lucene's English analyser does, as far as that goes.

Lower-cased words, English possessives stripped, Lucene's 33 stopwords removed, Porter's
stemmer (the original one, which Lucene uses, not Snowball's revision). Unlike Lucene's
tokenizer, a full stop between letters separates words: `os.path.join` is found by `join`.
"""

import re
from functools import lru_cache
from importlib.metadata import version

import Stemmer

ANALYZER = f"english-1 PyStemmer-{version('PyStemmer')}"
"""Part of every index's key: raise the number when the tokens change. An index whose stems are
another release's than its queries' would miss what it has."""

# Lucene, EnglishAnalyzer.ENGLISH_STOP_WORDS_SET
STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with",
    )
)

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_POSSESSIVE = re.compile(r"['’]s$")
_stem = Stemmer.Stemmer("porter").stemWord


def analyze(text: str) -> list[str]:
    """The index terms of a text, in order, with repetitions."""
    terms = map(_term, _WORD.findall(text.lower()))
    return [term for term in terms if term]


# Few words make up most of any text, and stemming one takes as long as finding ten.
@lru_cache(maxsize=1 << 17)
def _term(word: str) -> str:
    """The index term of a lower-cased word, empty for a stopword."""
    word = _POSSESSIVE.sub("", word)
    if word in STOPWORDS:
        return ""
    # As in Lucene, words of one or two letters are not stemmed: Porter makes "o" of "os".
    return _stem(word) if len(word) > 2 else word
