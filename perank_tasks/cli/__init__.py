"""Commands of `perank`, one file a noun; `main` puts them together. Here is what they share.

A command parses, calls one function and prints. What a command calls is imported inside it, so
that `perank --help` needs neither torch nor pyarrow.
"""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from perank_tasks.cli.command import Commands, printer
from perank_tasks.errors import ConfigError

if TYPE_CHECKING:
    from perank_tasks.night.site import Site

command_group = Commands
"""What makes a group of commands."""


def open_site() -> "Site":
    """The site that the environment names: a command opens it once and hands it on."""
    from perank_tasks.night.site import Site

    return Site.from_environment()


print_line = printer.line
"""Print a text as it is: no markup, no colours but a style, no line broken."""


def print_next(text: str) -> None:
    """Print what to type next."""
    printer.hint(f"next: {text}")


def today() -> date:
    """The date that holds where none is given."""
    return datetime.now(UTC).date()


def parse_date(text: str | None) -> date | None:
    """The date that an option names, as 2026-01-31 or 20260131; None where it is left out or empty.

    Raises:
        ConfigError: it is no date.
    """
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or text not in (f"{day:%Y-%m-%d}", f"{day:%Y%m%d}"):
        raise ConfigError(f"{text!r} is no date; write it as YYYY-MM-DD.")
    return day
