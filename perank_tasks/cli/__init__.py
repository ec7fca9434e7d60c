"""Commands of `perank`, one file a noun; `main` puts them together."""

from datetime import date

from perank_tasks.errors import ConfigError


def parse_date(text: str | None) -> date | None:
    """The date that an option names, None where it is left out.

    Raises:
        ConfigError: it is no date.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ConfigError(f"{text!r} is no date; write it as YYYY-MM-DD.") from None
