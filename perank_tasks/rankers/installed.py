"""Rankers by name: the built-in ones, and those of packages installed beside this one.

A package brings one by an entry point of the group `perank.rankers`, whose name is what an arm's
`ranker` says and whose object is a subclass of `RankerOptions`. Its code is the installing
person's choice: it runs with all their rights. It is imported when an arm asks for it.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from perank_tasks.errors import ConfigError
from perank_tasks.rankers.interface import RankerOptions

GROUP = "perank.rankers"


class Rankers(Mapping[str, type[RankerOptions]]):
    """{name: the options class of that ranker}; a built-in name is nobody else's."""

    def __init__(self, built_in: Mapping[str, type[RankerOptions]]):
        self.built_in = dict(built_in)

    def __getitem__(self, name: str) -> type[RankerOptions]:
        """Raises:
        KeyError: no package brings it.
        ConfigError: two do, or what it brings cannot be imported or is no ranker.
        """
        if name in self.built_in:
            return self.built_in[name]
        return _load(_found()[name])

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from sorted(_found().keys() - self.built_in.keys())

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in _found()

    def package(self, name: str) -> str | None:
        """The package and version that brings a ranker; None: this one."""
        if name in self.built_in:
            return None
        package = _found()[name].dist
        return f"{package.name} {package.version}" if package else "unknown"


def _found() -> dict[str, EntryPoint]:
    """What is installed, by name.

    Raises:
        ConfigError: two packages bring one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"The ranker {point.name!r} is brought twice, as {other.value} and as "
                f"{point.value}: uninstall one of the two packages."
            )
    return found


def _load(point: EntryPoint) -> type[RankerOptions]:
    try:
        options = point.load()
    except Exception as error:  # whatever its module raises
        raise ConfigError(
            f"The ranker {point.name!r} cannot be imported from {point.value}: {error!r}. Mend or "
            "uninstall its package."
        ) from error
    if not (isinstance(options, type) and issubclass(options, RankerOptions)):
        raise ConfigError(
            f"The ranker {point.name!r} is {point.value}, which is no subclass of "
            "perank_tasks.rankers.interface.RankerOptions; docs/rankers.md shows one."
        )
    return options
