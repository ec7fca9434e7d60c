"""Options of commands, from a class of options: one flag a field, and a checked object of it.

Numbers and switches are read by the command line; the class checks everything else, with errors
that name the option. Nothing of a class has to be written a second time to be asked for.
"""

import inspect
import textwrap
import types
from collections.abc import Callable, Collection, Mapping
from datetime import date, timedelta
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from perank_tasks.cli import parse_date, today
from perank_tasks.config import Options
from perank_tasks.errors import ConfigError

T = TypeVar("T", bound=Options)


def takes_options(
    kind: type[T], *, whole: Collection[str] = (), panel: str = "Options"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of Typer commands, whose first argument is a `kind` made of its fields' flags.

    What is not given is left to the class. A command's other arguments are its own options, and
    stand before those in its help.

    Args:
        whole: fields that are lists of texts with commas in them, whose items are given one by
            one. The items of other lists may also be separated by commas.
        panel: the help's heading of fields that name no section of their own.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        _, *own = signature.parameters.values()

        @wraps(command)
        def run(**values: Any) -> Any:
            own_values = {parameter.name: values.pop(parameter.name) for parameter in own}
            return command(kind.parse(_given(values, whole)), **own_values)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=keyword) for parameter in own]
        for name, field in kind.model_fields.items():
            annotation = _annotation(name, field, panel, commas=name not in whole)
            parameters.append(inspect.Parameter(name, keyword, default=None, annotation=annotation))
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def described(fields: Mapping[str, str]) -> str:
    """Names and descriptions in lines, for the help of `--set NAME=VALUE`: click leaves lines
    below a backspace character as they are."""
    lines = (
        textwrap.fill(f"{name}: {text}", 78, initial_indent="  ", subsequent_indent="      ")
        for name, text in fields.items()
    )
    return "\b\n" + "\n".join(lines) + "\n"


def description(field: FieldInfo) -> str:
    """A field's description in one line."""
    return " ".join((field.description or "").split())


def _annotation(name: str, field: FieldInfo, panel: str, *, commas: bool) -> Any:
    flag = f"--{name.replace('_', '-')}"
    is_list = get_origin(field.annotation) is tuple
    is_union = get_origin(field.annotation) is types.UnionType
    kinds = get_args(field.annotation) if is_union else (field.annotation,)
    kind: Any = next((kind for kind in kinds if kind in (bool, int, float)), str)
    text = description(field)
    if is_list:
        text += " Separated by commas." if commas else " May be repeated."
    default = None if field.is_required() else field.default
    if default not in (None, "", ()):
        text += f" [default: {','.join(map(str, default)) if is_list else default}]"
    flags = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
    extra = field.json_schema_extra
    section = extra.get("section", panel) if isinstance(extra, dict) else panel
    option = typer.Option(flags, help=text, show_default=False, rich_help_panel=str(section))
    return Annotated[(list[str] if is_list else kind) | None, option]


def _given(values: Mapping[str, Any], whole: Collection[str]) -> dict[str, Any]:
    """What was given, lists as tuples of their items."""
    given = {name: value for name, value in values.items() if value not in (None, [])}
    for name, value in given.items():
        if isinstance(value, list):
            texts = value if name in whole else [part for text in value for part in text.split(",")]
            given[name] = tuple(filter(None, map(str.strip, texts)))
    if "run_date" in given:
        given["run_date"] = _run_date(given["run_date"])
    return given


def _run_date(text: str) -> date | None:
    """The date, None where it is empty.

    Raises:
        ConfigError: it is none, or has not come: its results would be the newest until it has.
    """
    day = parse_date(text)
    if day and day > today() + timedelta(days=1):
        raise ConfigError(f"run_date: {day} has not come yet; give a date whose data is there.")
    return day
