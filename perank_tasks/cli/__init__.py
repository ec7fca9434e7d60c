"""Commands of `perank`, one file a noun; `main` puts them together. Here is what they share.

A command parses, calls one function and prints. What a command calls is imported inside it, so
that `perank --help` needs neither torch nor pyarrow.
"""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from perank_tasks.errors import ConfigError
from perank_tasks.training.training_folder import is_main_process

if TYPE_CHECKING:
    from perank_tasks.night.site import Site

console = Console(quiet=not is_main_process())
"""Of several processes that train together, one prints."""


def command_group(help_text: str | None) -> typer.Typer:
    """A group of commands. Typer's boxed help cuts long words off; plain help wraps."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def open_site() -> "Site":
    """The site that the environment names: a command opens it once and hands it on."""
    from perank_tasks.night.site import Site

    return Site.from_environment()


def print_line(text: object, style: str | None = None) -> None:
    """Print a text as it is: no markup, no colours but `style`, no line broken."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_next(text: str) -> None:
    """Print what to type next."""
    print_line(f"next: {text}", "dim")


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
