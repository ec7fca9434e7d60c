"""Rankers by name: the built-in ones, and those of packages installed beside this one.

A package brings one by an entry point of the group `perank.rankers`, whose name is what an arm's
`ranker` says and whose object is a subclass of `RankerOptions`. Its code is the installing
person's choice: it runs with all their rights. It is imported when an arm asks for it; where it
does not work, its arm is incomplete and says why.
"""

import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from perank_tasks.errors import ConfigError, RankerError, StorageError
from perank_tasks.rankers.interface import Description, Models, Ranker, RankerOptions

log = logging.getLogger(__name__)

GROUP = "perank.rankers"


class Rankers(Mapping[str, type[RankerOptions]]):
    """{name: the options class of that ranker}; a built-in name is nobody else's."""

    def __init__(self, built_in: Mapping[str, type[RankerOptions]]):
        self.built_in = dict(built_in)

    def __getitem__(self, name: str) -> type[RankerOptions]:
        """Raises:
        KeyError: no package brings it.
        ConfigError: two do.
        """
        return self.built_in.get(name) or _load(_point(name))

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self.built_in, *entry_points(group=GROUP).names])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def describe(self, name: str, options: RankerOptions, models: Models) -> Description:
        """As `RankerOptions.describe`; where a package's fails, that is why it is missing."""
        try:
            if isinstance(described := options.describe(models), Description):
                return described
            raise TypeError(f"describe() gave {described!r} and no Description")
        except Exception as error:
            return Description(missing=self.reason(name, error))

    def reason(self, name: str, error: Exception) -> str:
        """Why the arm of a ranker is incomplete; an error that does not say so is raised."""
        package = self.package(name)
        is_the_sites = isinstance(error, StorageError | MemoryError)  # its lists could not be read
        if is_the_sites or (package is None and not isinstance(error, RankerError)):
            raise error
        if isinstance(error, RankerError):
            return str(error)
        log.error("the ranker %s of %s has failed", name, package, exc_info=error)
        return f"{package}: {error!r}"

    def package(self, name: str) -> str | None:
        """The package and version that brings a ranker; None: this one."""
        dist = None if name in self.built_in else _point(name).dist
        return f"{dist.name} {dist.version}" if dist else None

    def version(self, name: str) -> dict[str, str]:
        """The same for an arm's hash: another version may rank otherwise."""
        package = self.package(name)
        return {"package": package} if package else {}


def _point(name: str) -> EntryPoint:
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if len(points) > 1:
        raise ConfigError(
            f"The ranker {name!r} is brought twice, as {' and as '.join(sorted(points))}: "
            "uninstall one of the two packages."
        )
    if not points:
        raise KeyError(name)
    return next(iter(points.values()))


def _load(point: EntryPoint) -> type[RankerOptions]:
    try:
        options = point.load()
        if isinstance(options, type) and issubclass(options, RankerOptions):
            return options
        why = "no subclass of perank_tasks.rankers.interface.RankerOptions; docs/rankers.md has one"
    except Exception as error:  # whatever its module raises
        why = repr(error)
    missing = (
        f"the ranker {point.name!r} cannot be loaded from {point.value}: {why}. Mend or uninstall "
        "its package"
    )

    class Broken(RankerOptions, extra="allow"):
        def describe(self, models: Models) -> Description:
            return Description(missing=missing)

        def load(self, models: Models) -> Ranker:
            raise RankerError(missing)

    return Broken
