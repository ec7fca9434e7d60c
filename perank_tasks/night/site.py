"""Where a night runs: its store of artifacts, this machine's folders, its threads."""

from dataclasses import dataclass, replace
from datetime import date

from perank_tasks.artifacts.store import Store
from perank_tasks.rankers.interface import Models
from perank_tasks.settings import Settings
from perank_tasks.warehouse import registry


@dataclass(frozen=True)
class Site:
    """What every stage is handed beside the night.

    Attributes:
        store: artifacts.
        settings: where the warehouse, caches and pages are on this machine.
    """

    store: Store
    settings: Settings

    @classmethod
    def from_environment(cls) -> "Site":
        """The site that the environment names.

        Raises:
            ConfigError: a variable is malformed.
        """
        settings = Settings.from_environment()
        return cls(Store(settings.root), settings)

    @property
    def of_a_piece(self) -> "Site":
        """The same for a process that does one of several pieces of work at once."""
        return replace(self, settings=self.settings.of_a_piece)

    def models(self, run_date: date) -> Models:
        """Where a night's models are: a registered checkpoint's name becomes its folder."""
        return Models(
            cache=self.settings.cache,
            local=lambda name: registry.local(name, self.store),
            threads=self.settings.threads,
            run_date=run_date,
        )
