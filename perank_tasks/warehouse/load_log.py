"""The log of loads: which results went into the warehouse, and when.

In: a results artifact that is being loaded. Out: `loads/<collection>/<key>`, a manifest
without parts. Where a date was run twice, this says whose rows hold, so that the
warehouse can be made again from artifacts alone. Results of a withdrawn snapshot count as never
loaded. Experiments have a log of their own, `experiment_loads/<experiment>/<key>`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

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
    (snapshot,) = results.read("runs", ["snapshot"])["snapshot"].unique().to_pylist()
    _record(KIND, results, {"keys": sorted(keys_of(results)), "snapshot": snapshot})


def record_experiment(results: Artifact) -> None:
    """Note that an experiment's results are being loaded now; as `record_load`."""
    _record(EXPERIMENT_KIND, results, {"run_date": results.manifest.config["run_date"]})


def _record(kind: str, results: Artifact, config: dict[str, Any]) -> None:
    reference = results.reference
    moment = datetime.now(UTC).isoformat(timespec="microseconds")
    key = artifact_key(moment=moment, results=reference)
    results.store.artifact(kind, collection_of(reference), key).publish(
        expected={}, inputs={"results": reference}, config=config, counts={}, provenance={}
    )


def needed_experiments(store: Store) -> list[str]:
    """References of the experiments' results whose rows hold, one of each name and date."""
    newest: dict[tuple[str, str], str] = {}
    for name in store.collections(EXPERIMENT_KIND):
        for entry in store.published(EXPERIMENT_KIND, name):
            manifest = entry.manifest
            newest.setdefault((name, manifest.config["run_date"]), manifest.inputs["results"])
    return list(newest.values())


def needed_loads(store: Store) -> list[Load]:
    """Entries of the log whose rows hold, in the order to load them; `keys`: those that hold."""
    needed = []
    for collection in store.collections(KIND):
        withdrawn = withdrawn_snapshots(store, collection)
        manifests = [entry.manifest for entry in store.published(KIND, collection)]
        log = [
            Load(m.created_at, m.inputs["results"], frozenset(map(tuple, m.config["keys"])))
            for m in manifests
            if m.config["snapshot"] not in withdrawn
        ]
        replaced: set[Key] = set()
        for load in sorted(log, key=lambda load: (load.moment, load.results), reverse=True):
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
