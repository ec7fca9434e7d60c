"""NAME=VALUE words, as a command line and a form take them."""

from collections.abc import Iterable, Iterator

from perank_tasks.errors import ConfigError


def split_words(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and value of NAME=VALUE words of a command line.

    Raises:
        ConfigError: a word that is none.
    """
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} sets nothing: write it as NAME=VALUE.")
        yield name.strip(), value.strip()
