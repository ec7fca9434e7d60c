"""The log of loads: which results went into the warehouse, and when.

In: a results artifact that is being loaded. Out: `loads/<collection>/<key>`, a manifest
without parts. Where a date was run twice, this says whose rows hold, so that the
warehouse can be made again from artifacts alone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from perank_tasks.artifacts import Artifact, Store, artifact_key

KIND = "loads"


def record_load(results: Artifact) -> None:
    """Note that results are being loaded now; only the loader, which is alone, may call it."""
    collection = collection_of(results.reference)
    moment = datetime.now(UTC).isoformat(timespec="microseconds")
    key = artifact_key(moment=moment, results=results.reference)
    results.store.artifact(KIND, collection, key).publish(
        expected={}, inputs={"results": results.reference}, config={}, counts={}, provenance={}
    )


def loaded_results(store: Store) -> Iterator[str]:
    """References of results in the order they were loaded, as often as they were.

    Results from before the log began count as loaded when they were made.
    """
    for collection in store.collections("results"):
        log = [
            (load.manifest.created_at, load.manifest.inputs["results"])
            for load in store.published(KIND, collection)
        ]
        began = min((moment for moment, _ in log), default=None)
        noted = {reference for _, reference in log}
        for results in store.published("results", collection):
            made = results.manifest.created_at
            if results.reference not in noted and (began is None or made < began):
                log.append((made, results.reference))
        yield from (reference for _, reference in sorted(log))


def collection_of(reference: str) -> str:
    """The collection in a reference, `kind/collection/key`."""
    return reference.split("/")[1]
