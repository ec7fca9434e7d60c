"""Text rules that every stage shares: cleaning, hashing, and what a passage's contents are."""

import hashlib

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean_text(text: str) -> str:
    """Replace what no tokenizer, Parquet file or C string accepts: NUL and lone surrogates.

    Everything else, in any script, is left as it is.
    """
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_hash(title: str | None, text: str) -> str:
    """Sixteen hex digits that name a passage's title and text, whatever its id."""
    return hashlib.sha256(f"{title or ''}\n{text}".encode()).hexdigest()[:16]


def contents(title: str | None, text: str) -> str:
    """What embedders and LLMs read of a passage, as the PE-Rank reference feeds it:
    `Title: … Content: …` with white space collapsed where there is a title, else the text.
    """
    if not title:
        return text
    return " ".join(f"Title: {title} Content: {text}".split())


def shortened(text: str, longest: int) -> str:
    """On one line, and not longer than that many characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest].rstrip()} …"
