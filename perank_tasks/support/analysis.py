"""Text analysis for BM25, by name: in, a text; out, its index terms.

`english` is what Lucene's English analyser does, as far as that goes: lower-cased words, English
possessives stripped, Lucene's 33 stopwords removed, Porter's stemmer (the original one, which
Lucene uses, not Snowball's revision). Unlike Lucene's tokenizer, a full stop between letters
separates words: `os.path.join` is found by `join`.

The others take any script. Texts are brought to Unicode's form NFKC and lower-cased; words are
letters with their marks, and digits; no stopwords are removed, since BM25 hardly weighs them.

    french, …   words by PyStemmer's algorithm of that name
    words       words as they are
    bigrams     every two neighbouring characters of scripts without spaces, and of Korean; a
                single one by itself; words of other scripts as they are (as Lucene's CJK analyser)
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING

import Stemmer

if TYPE_CHECKING:
    import regex

Analyzer = Callable[[str], list[str]]

ENGLISH, WORDS, BIGRAMS = "english", "words", "bigrams"
ANALYZERS = (ENGLISH, BIGRAMS, WORDS, *(n for n in Stemmer.algorithms() if n != ENGLISH))


def identity(name: str) -> str:
    """Names an analyzer's terms, for keys: raise the number when they change.

    An index whose stems are another release's than its queries' would miss what it has.
    """
    return f"{name}-1 PyStemmer-{version('PyStemmer')}"


ANALYZER = identity(ENGLISH)

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


@cache
def analyzer(name: str) -> Analyzer:
    """What makes terms of a text, by one of the names `ANALYZERS`."""
    if name == ENGLISH:
        return analyze
    if name == BIGRAMS:
        return _bigrams
    stem = (lambda word: word) if name == WORDS else Stemmer.Stemmer(name).stemWord
    cached = lru_cache(maxsize=1 << 17)(stem)
    return lambda text: [term for word in _words().findall(_normal(text)) if (term := cached(word))]


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


# Of `\p{…}` the standard library knows nothing, and English, the default, needs none.
@cache
def _words() -> "regex.Pattern[str]":
    import regex

    return regex.compile(r"[\p{L}\p{M}\p{N}_]+")


@cache
def _spaceless() -> "regex.Pattern[str]":
    """A run of characters of scripts without spaces, as group 1, or a word of another script."""
    import regex

    scripts = ("Han", "Hiragana", "Katakana", "Hangul", "Thai", "Lao", "Khmer", "Myanmar")
    some = "ー" + "".join(rf"\p{{Script={script}}}" for script in scripts)
    return regex.compile(rf"(?V1)([{some}]+)|[[\p{{L}}\p{{M}}\p{{N}}_]--[{some}]]+")


def _bigrams(text: str) -> list[str]:
    terms: list[str] = []
    for match in _spaceless().finditer(_normal(text)):
        run = match[1]
        terms += [a + b for a, b in pairwise(run)] if run and len(run) > 1 else [match[0]]
    return terms


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()
