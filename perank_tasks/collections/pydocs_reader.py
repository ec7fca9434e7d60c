"""Read the standard library's documentation and print it as JSON: a script, run by path.

In: nothing. Out, on standard output, one JSON object:

    {"modules": 400, "skipped": ["curses", …],
     "docstrings": [[name, defining, text], …], "topics": {topic: text, …}}

`docstrings` has one entry a public dotted name, sorted; `defining` is true where the
name's module defines the object, or its package offers it in `__all__`. `skipped` are the
modules that do not import on this machine.

`perank_tasks.collections.pydocs` runs it as `python -I -S -W ignore pydocs_reader.py`, so
that importing the library's every module cannot touch the caller's process, and neither
the user's settings, site-packages nor `-OO` can touch the texts. It therefore imports the
standard library only.
"""

import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import pkgutil
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder

# Jokes, windows, test suites, tools on their own, and names of other modules' insides.
LEFT_OUT = {
    "antigravity",
    "distutils",
    "ensurepip",
    "genericpath",
    "idlelib",
    "lib2to3",
    "nt",
    "ntpath",
    "nturl2path",
    "posix",
    "posixpath",
    "pydoc_data",
    "pyexpat",
    "sre_compile",
    "sre_constants",
    "sre_parse",
    "test",
    "this",
    "tkinter",
    "turtle",
    "turtledemo",
}
TESTS = {"test", "tests", "testmock"}
# Modules that programmers import by a name other than their own.
KNOWN_AS = {"posix": "os", "nt": "os", "posixpath": "os.path", "ntpath": "os.path"}
NOT_FOUND_AS_FILES = ("os.path", "__future__", "xml.parsers.expat")


def is_public(name: str) -> bool:
    return not name.startswith("_")


def module_names() -> list[str]:
    """Dotted names of all public modules, found by looking at files, importing nothing."""
    found = [*NOT_FOUND_AS_FILES]
    top = [name for name in sys.stdlib_module_names if is_public(name) and name not in LEFT_OUT]
    to_visit: list[tuple[str, Sequence[str] | None]] = [(name, None) for name in top]
    while to_visit:
        name, path = to_visit.pop()
        found.append(name)
        spec = PathFinder.find_spec(name, path)
        inside = (spec and spec.submodule_search_locations) or []
        for child in pkgutil.iter_modules(inside):
            if is_public(child.name) and child.name not in TESTS:
                to_visit.append((f"{name}.{child.name}", inside))
    return sorted(found)


def documentation(thing: object) -> str | None:
    """The docstring that was written for this very thing, or None.

    Inherited ones belong to the base class, and `namedtuple` and `dataclass` write
    signatures, which are no documentation.
    """
    text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    if not isinstance(text, str) or not text.strip():
        return None
    if isinstance(thing, type):
        generated = hasattr(thing, "_fields") or hasattr(thing, "__dataclass_fields__")
        if generated and text.startswith(f"{thing.__name__}("):
            return None
    return inspect.cleandoc(text)


def is_documented(thing: object) -> bool:
    """Whether a module's attribute is a class, a function or else says what it is itself.

    `typing.Optional` does; a constant only repeats what its type says.
    """
    if isinstance(thing, type) or inspect.isroutine(thing):
        return True
    return callable(thing) and thing.__doc__ != type(thing).__doc__


def is_documented_member(name: str, member: object) -> bool:
    """Whether a class's attribute carries documentation of its own.

    Of the special methods only those in Python do: the others all say "Return self+value".
    """
    if name.startswith("__") and name.endswith("__"):
        return inspect.isfunction(member)
    if not is_public(name):
        return False
    return (
        inspect.isroutine(member)
        or isinstance(member, (property, functools.cached_property))
        or inspect.isgetsetdescriptor(member)
        or inspect.ismemberdescriptor(member)
    )


def members(owner: type, name: str, defining: bool) -> Iterator[tuple[str, bool, str]]:
    """Documented names below a class, its own only, nested classes included."""
    for attribute, raw in vars(owner).items():
        member = raw.__func__ if isinstance(raw, (staticmethod, classmethod)) else raw
        if isinstance(member, type):
            nested = member.__qualname__ == f"{owner.__qualname__}.{attribute}"
            if nested and is_public(attribute):
                if text := documentation(member):
                    yield f"{name}.{attribute}", defining, text
                yield from members(member, f"{name}.{attribute}", defining)
        elif is_documented_member(attribute, member) and (text := documentation(member)):
            yield f"{name}.{attribute}", defining, text


def home_of(thing: object, module_name: str) -> str:
    """Dotted name of the module that defines the thing, as programmers know it: `_io` is `io`."""
    home = getattr(thing, "__module__", None) or module_name
    return KNOWN_AS.get(home, home.lstrip("_"))


def is_offered(attribute: str, thing: object, module: types.ModuleType, name: str) -> bool:
    """Whether a name is part of the module's interface, and not just something it imports."""
    if name == "builtins" or home_of(thing, name) == name:
        return True
    if hasattr(module, "__all__"):
        return attribute in module.__all__
    return not is_public(getattr(thing, "__module__", None) or "")


def is_defining(attribute: str, thing: object, module: types.ModuleType, name: str) -> bool:
    """Whether this is the name that the documentation would use."""
    home = home_of(thing, name)
    listed = attribute in getattr(module, "__all__", ())
    if getattr(thing, "__name__", None) != attribute:
        return home == name and listed
    return name in (home, "builtins") or (listed and home.startswith(f"{name}."))


def names_in(module: types.ModuleType, module_name: str) -> Iterator[tuple[str, bool, str]]:
    """Documented names of a module: itself, its classes with their members, its functions."""
    if text := documentation(module):
        yield module_name, True, text
    for attribute in list(vars(module)):
        thing = getattr(module, attribute)
        if not is_public(attribute) or not is_documented(thing):
            continue
        if not is_offered(attribute, thing, module, module_name):
            continue
        defining = is_defining(attribute, thing, module, module_name)
        name = f"{module_name}.{attribute}"
        if text := documentation(thing):
            yield name, defining, text
        if isinstance(thing, type):
            yield from members(thing, name, defining)


def read() -> dict[str, object]:
    """Import every module, quietly, and collect what is documented."""
    docstrings: dict[str, tuple[bool, str]] = {}
    skipped = []
    names = module_names()
    for module_name in names:
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit):  # whatever a module needs, this machine lacks it
            skipped.append(module_name)
            continue
        for name, defining, text in names_in(module, module_name):
            docstrings.setdefault(name, (defining, text))
    topics = importlib.import_module("pydoc_data.topics").topics
    return {
        "modules": len(names) - len(skipped),
        "skipped": skipped,
        "docstrings": [[name, *docstrings[name]] for name in sorted(docstrings)],
        "topics": {topic: topics[topic] for topic in sorted(topics)},
    }


def main() -> None:
    # Modules that print while they are imported (readline, on some terminals) must not
    # spoil the JSON: from here on the file descriptor itself leads nowhere.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = read()
    with output:
        json.dump(found, output)


if __name__ == "__main__":
    main()
