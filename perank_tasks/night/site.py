"""Where a night runs: its store of artifacts, this machine's folders, its threads."""

from dataclasses import dataclass

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
    def models(self) -> Models:
        """Where models are: a registered checkpoint's name becomes its folder."""
        return Models(
            cache=self.settings.cache,
            local=lambda name: registry.local(name, self.store),
            threads=self.settings.threads,
        )
