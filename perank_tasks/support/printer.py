"""Printer: what a command says, as text for a terminal or as Markdown.

Off a terminal nothing is cut or wrapped: a table is as wide as its cells need.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import MARKDOWN, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 10_000
"""Columns of an output that is no terminal."""


class Printer:
    """Prints lines, headings and tables; of several processes that train together, one does."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(
            width=None if sys.stdout.isatty() else UNLIMITED, quiet=quiet, highlight=False
        )
        self.markdown = False
        self.hints = True

    @property
    def is_silent(self) -> bool:
        """Whether what is printed is seen by nobody."""
        return self.console.quiet

    @contextmanager
    def as_asked(self, *, is_silent: bool, markdown: bool, hints: bool) -> Iterator[None]:
        """Print nothing, or in Markdown, or without hints, while the block runs."""
        before = self.console.quiet, self.markdown, self.hints
        self.console.quiet, self.markdown, self.hints = before[0] or is_silent, markdown, hints
        try:
            yield
        finally:
            self.console.quiet, self.markdown, self.hints = before

    def hint(self, text: str) -> None:
        """Print what to type next, unless nobody wants to hear."""
        if self.hints and not self.markdown:
            self.line(text, "dim")

    def line(self, text: object, style: str | None = None) -> None:
        """Print a text as it is: no markup, no colours but `style`, no line broken."""
        if self.markdown:
            words = _escaped(str(text).strip())
            text = f"**{words}**\n" if style == "bold" and words else f"{words}\n"
            style = None
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print the title of what follows."""
        if self.markdown:
            self.console.print(f"### {_escaped(text)}\n", markup=False, soft_wrap=True)
        else:
            self.line(text, "bold")

    def labelled(self, lines: Iterable[tuple[str, str]]) -> None:
        """Print lines that begin with a word in bold, as one paragraph."""
        for label, text in lines:
            if self.markdown:
                label, text = f"- **{_escaped(label)}**", _escaped(text)
            name = Text(label, style="" if self.markdown else "bold")
            self.console.print(name + Text(f": {text}"), soft_wrap=True)
        self.console.print()

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
        """Print a table; all columns but the first are numbers. Cells that are `Text` may have a
        colour and stand to the left."""
        rows = list(rows)
        # No borders and narrow gaps: a night and a comparison fit a terminal of 80.
        table = Table(box=MARKDOWN if self.markdown else SIMPLE_HEAD, padding=0, pad_edge=False)
        for place, heading in enumerate(headings):
            is_text = place == 0 or any(isinstance(row[place], Text) for row in rows)
            table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
        for row in rows:
            cells = (_escaped(str(cell)) for cell in row) if self.markdown else row
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
        self.console.print(table)


def _escaped(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
