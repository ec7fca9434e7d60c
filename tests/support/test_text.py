"""The text rules that every stage shares."""

from hypothesis import given
from hypothesis import strategies as st

from perank_tasks.support.text import REPLACEMENT, clean_text, contents, text_hash

any_text = st.text(st.characters(codec="utf-8"))
with_surrogates = st.text(st.characters(categories=["Cs", "L", "Cc", "So"]))


@given(with_surrogates)
def test_clean_text_can_be_written_anywhere_and_is_stable(text: str) -> None:
    cleaned = clean_text(text)
    assert "\0" not in cleaned
    cleaned.encode("utf-8")
    assert clean_text(cleaned) == cleaned


@given(any_text.filter(lambda text: "\0" not in text and text.isprintable()))
def test_clean_text_leaves_every_script_alone(text: str) -> None:
    assert clean_text(text) == text


def test_clean_text_replaces_nul_and_lone_surrogates_only() -> None:
    assert clean_text("a\0b") == f"a{REPLACEMENT}b"
    assert clean_text("a\ud800b") == f"a{REPLACEMENT}b"
    assert clean_text("\ud83d\ude00") == "😀"  # a pair, as two JSON escapes may leave it
    assert clean_text("naïve עברית 漢字 👩‍👩‍👧\u2028\t") == "naïve עברית 漢字 👩‍👩‍👧\u2028\t"


@given(any_text, any_text)
def test_text_hash_names_title_and_text(title: str, text: str) -> None:
    digest = text_hash(title, text)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert digest == text_hash(title, text)
    assert digest != text_hash(title, text + "x")


def test_text_hash_is_the_same_for_ever() -> None:
    assert text_hash("shutil.copy", "Copy a file.") == "40487f1882842e87"
    assert text_hash(None, "漢字") == text_hash("", "漢字") == "57ac53e03aa0a24c"


def test_contents_feeds_title_and_text_on_one_line() -> None:
    assert contents("with", "The\n  statement") == "Title: with Content: The statement"
    assert contents(None, "as\n  it is") == "as\n  it is"
    assert contents("", "as it is") == "as it is"
