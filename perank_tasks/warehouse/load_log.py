"""The log of loads: which results went into the warehouse, and when.

In: a results artifact that is being loaded. Out: `loads/<collection>/<key>`, a manifest
without parts. Where a date was run twice, this says whose rows hold, so that the
warehouse can be made again from artifacts alone. Results of a withdrawn snapshot count as never
loaded. Experiments have a log of their own, `experiment_loads/<experiment>/<key>`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.warehouse.decisions import withdrawn_snapshots

KIND = "loads"
EXPERIMENT_KIND = "experiment_loads"

Key = tuple[str, str, str]
"""(series, date, arm hash) of one result of a collection."""


@dataclass(frozen=True)
class Load:
    """One entry: when, which results, and the keys whose rows they replaced."""

    moment: str
    results: str
    keys: frozenset[Key]


def record_load(results: Artifact) -> None:
    """Note that results are being loaded now; only the loader, which is alone, may call it."""
    collection = collection_of(results.reference)
    moment = datetime.now(UTC).isoformat(timespec="microseconds")
    key = artifact_key(moment=moment, results=results.reference)
    results.store.artifact(KIND, collection, key).publish(
        expected={},
        inputs={"results": results.reference},
        config={"keys": sorted(keys_of(results))},
        counts={},
        provenance={},
    )


def record_experiment(results: Artifact) -> None:
    """Note that an experiment's results are being loaded now; as `record_load`."""
    moment = datetime.now(UTC).isoformat(timespec="microseconds")
    key = artifact_key(moment=moment, results=results.reference)
    name = collection_of(results.reference)
    results.store.artifact(EXPERIMENT_KIND, name, key).publish(
        expected={},
        inputs={"results": results.reference},
        config={"run_date": results.manifest.config["run_date"]},
        counts={},
        provenance={},
    )


def needed_experiments(store: Store) -> list[str]:
    """References of the experiments' results whose rows hold, one of each name and date."""
    newest: dict[tuple[str, str], str] = {}
    for name in store.collections(EXPERIMENT_KIND):
        for entry in store.published(EXPERIMENT_KIND, name):
            manifest = entry.manifest
            newest.setdefault((name, manifest.config["run_date"]), manifest.inputs["results"])
    return list(newest.values())


def needed_results(store: Store) -> list[str]:
    """References of the results whose rows hold, wholly or in part, in the order to load them."""
    return [load.results for load in needed_loads(store)]


def needed_loads(store: Store) -> list[Load]:
    """The same, as entries of the log; `keys` are those whose rows hold."""
    needed = []
    for collection in store.collections(KIND):
        replaced: set[Key] = set()
        for load in reversed(_loads(store, collection)):
            if keys := load.keys - replaced:
                needed.append(Load(load.moment, load.results, keys))
            replaced |= load.keys
    return sorted(needed, key=lambda load: (load.moment, load.results))


def keys_of(results: Artifact) -> set[Key]:
    """The keys of a results artifact's rows."""
    runs = results.read("runs", ["series", "run_date", "arm_hash"]).to_pylist()
    return {(row["series"], row["run_date"].isoformat(), row["arm_hash"]) for row in runs}


def collection_of(reference: str) -> str:
    """The collection in a reference, `kind/collection/key`."""
    return reference.split("/")[1]


def _loads(store: Store, collection: str) -> list[Load]:
    """Every load of a collection, the oldest first."""
    log = [
        Load(
            entry.manifest.created_at,
            entry.manifest.inputs["results"],
            frozenset(map(tuple, entry.manifest.config["keys"])),
        )
        for entry in store.published(KIND, collection)
    ]
    if withdrawn := withdrawn_snapshots(store, collection):
        log = [load for load in log if not _snapshots_of(store, load) & withdrawn.keys()]
    return sorted(log, key=lambda load: (load.moment, load.results))


def _snapshots_of(store: Store, load: Load) -> set[str]:
    """The snapshots that a load's results were made from; none where these are gone."""
    results = Artifact(store, load.results)
    if not results.is_published:
        return set()
    return set(results.read("runs", ["snapshot"])["snapshot"].to_pylist())
