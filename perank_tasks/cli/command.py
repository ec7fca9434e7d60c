"""A command of `perank`: what every one of them understands beside its own options.

A command prints for a person and returns what it found, as data. With `--json` the data alone is
printed. One that returns nothing has no `--json`. The exit status of a command that found
something bad comes with its data, as `Guarded`; where such a command cannot say, for whatever
reason, it leaves with 2 and never with 0.
"""

import inspect
import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from typer.core import TyperCommand

from perank_tasks.artifacts.storage import in_words
from perank_tasks.errors import PerankError
from perank_tasks.support.printer import Printer
from perank_tasks.training.training_folder import is_main_process

printer = Printer(quiet=not is_main_process())
"""Of several processes that train together, one prints."""

Format = Literal["text", "markdown", "json"]
"""How the commands print whose option is called `format`."""

_PANEL = "Output"
_Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say what is done.", rich_help_panel=_PANEL)
]
_Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No hints, no warnings, no bars.", rich_help_panel=_PANEL),
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON.", rich_help_panel=_PANEL)
]
UNJUDGED = 2
"""Exit status of a guard that could not judge."""


@dataclass(frozen=True)
class Guarded:
    """What a guard found, and with which exit status the command leaves."""

    found: Any
    status: int


class Command(TyperCommand):
    """A command whose help groups its options under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the parameters, a section a heading, in the order that they were declared."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_argument = parameter.param_type_name == "argument"
                heading = getattr(parameter, "rich_help_panel", None)
                heading = "Arguments" if is_argument else heading or "Options"
                heading = _PANEL if parameter.name == "help" else heading
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Commands(typer.Typer):
    """A group of commands. Typer's boxed help cuts long words off; plain help wraps."""

    def __init__(self, help_text: str | None, *, completion: bool = False) -> None:
        super().__init__(
            help=help_text,
            no_args_is_help=True,
            add_completion=completion,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """Add a function as a command, with the options that every command has."""
        register = super().command(name, cls=Command, **settings)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_output(function))
            return function

        return decorate


def _with_output(function: Callable[..., Any]) -> Callable[..., None]:
    """The function as a command that also takes `--verbose`, `--quiet` and `--json`."""
    signature = inspect.signature(function, eval_str=True)
    has_results = signature.return_annotation not in (None, inspect.Signature.empty)

    @wraps(function)
    def run(verbose: bool, quiet: bool, as_json: bool = False, **values: Any) -> None:
        if verbose or quiet:
            logging.getLogger().setLevel(logging.INFO if verbose else logging.ERROR)
        as_json = as_json or values.get("format") == "json"
        with printer.as_asked(
            is_silent=as_json, markdown=values.get("format") == "markdown", hints=not quiet
        ):
            found = _call(function, values)
        status = 0
        if isinstance(found, Guarded):
            found, status = found.found, found.status
        if as_json:
            # Typed values, dates and paths among them: Pydantic knows how to write them.
            from pydantic_core import to_json

            text = to_json(found, indent=2, inf_nan_mode="null", fallback=_plain)
            printer.line(text.decode())
        if status:
            raise typer.Exit(status)

    shared = {"verbose": _Verbose, "quiet": _Quiet, **({"as_json": _Json} if has_results else {})}
    parameters = list(signature.parameters.values())
    for name, annotation in shared.items():
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=False, annotation=annotation))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _call(function: Callable[..., Any], values: dict[str, Any]) -> Any:
    try:
        return function(**values)
    except typer.Exit:
        raise
    except Exception as error:
        if not values.get("fail_on"):
            raise
        if not print_error(error):
            traceback.print_exc()
        raise typer.Exit(UNJUDGED) from None


def print_error(error: Exception) -> bool:
    """Print an error that its reader can do something about; False: it is not one."""
    ours = error if isinstance(error, PerankError) else None
    if isinstance(error, OSError):
        ours = in_words(error)
    if ours is None:
        return False
    Console(stderr=True).print(f"[bold red]{type(ours).__name__}[/]: ", end="")
    print(ours, file=sys.stderr)
    return True


def _plain(value: Any) -> Any:
    """A value that JSON has no word for: an array's number, or its text."""
    return value.item() if hasattr(value, "item") else str(value)
