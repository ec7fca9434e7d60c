"""Markdown for pages and model cards."""

from collections.abc import Iterable, Sequence


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; the first column is text, the others stand on the right."""
    lines = [" | ".join(heading), " | ".join(["---", *["--:"] * (len(heading) - 1)])]
    lines += [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
