"""Retention: remove old artifacts that nothing needs any more.

In: the artifact store and a policy. Out: what was removed, or would be, with its bytes.

What stays for ever: acceptances, the log of loads, the record of alerts, and every results
artifact whose rows hold, since the warehouse is rebuilt from these; registered checkpoints and
the decisions on them; training data. What stays with all that
it was made from (`Manifest.inputs`, followed to the end): results that are young, of the last
nights, accepted, or an arm's first; the newest snapshots, and the newest embeddings and indexes
of each configuration. The rest goes once nobody has used it for `keep_days`: candidates and
rankings of old nights, snapshots, embeddings and indexes of content that has changed since, and
results that a second run of their date has replaced, and trainings, of which the registry has what
was registered.

Notes: a stage that reuses an artifact marks it as used, so what a running night stands on is
young. Whoever lists artifacts sees a removed one whole or not at all.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.config import NIGHTLY, RetentionOptions, stable_hash
from perank_tasks.warehouse.decisions import all_acceptances
from perank_tasks.warehouse.load_log import Load, collection_of, needed_loads

REMADE = (
    "snapshots",
    "embeddings",
    "terms",
    "indexes",
    "found",
    "candidates",
    "rankings",
    "trained",
)
"""Kinds that are recomputed where one is needed that is gone."""

REUSED = ("snapshots", "embeddings", "indexes")
"""Those of them that later nights take over."""

OUTDATED = "replaced by a later run"
UNNEEDED = "old, and needed by nothing that is kept"

DAY_S = 86_400.0

UNFINISHED_S = DAY_S
"""How long a folder without a manifest is left to whoever may still be filling it. A shard takes
minutes to hours, and every part that is written makes its folder young again."""


@dataclass(frozen=True)
class Removal:
    """One artifact to remove, or removed: why, and how large it is."""

    reference: str
    why: str
    bytes: int


def plan_removals(
    store: Store, options: RetentionOptions, now: float | None = None
) -> list[Removal]:
    """What the policy removes, in order of its names.

    Args:
        now: seconds since 1970, by default this moment.
    """
    moment = time.time() if now is None else now
    loads = needed_loads(store)
    kept = {*_kept_results(store, loads, options, moment), *_newest(store, options)}
    needed = {load.results for load in loads} | _with_inputs(store, kept)
    removals = []
    for kind in (*REMADE, "results"):
        for folder in store.contents(kind):
            age = moment - folder.changed_at
            why, stays = "never finished", age <= UNFINISHED_S
            if folder.is_published:
                why = OUTDATED if kind == "results" else UNNEEDED
                stays = folder.reference in needed or age < options.keep_days * DAY_S
            if not stays:
                removals.append(Removal(folder.reference, why, folder.bytes))
    return sorted(removals, key=lambda removal: removal.reference)


def apply_retention(store: Store, options: RetentionOptions, *, delete: bool) -> list[Removal]:
    """Remove what the policy removes; returns what that was.

    Args:
        delete: False only says what would go.

    Raises:
        StorageError: the storage refused; what is not removed yet stays whole.
    """
    removals = plan_removals(store, options)
    if not delete:
        return removals
    done = []
    for removal in removals:
        artifact = Artifact(store, removal.reference)
        # A night may have taken it up since it was planned.
        if artifact.is_published and _is_young(artifact, options, time.time()):
            continue
        artifact.remove()
        done.append(removal)
    return done


def _kept_results(
    store: Store, loads: list[Load], options: RetentionOptions, now: float
) -> Iterator[str]:
    """Results that stay with all that they were made from."""
    accepted = {
        (row["collection"], row["run_date"].isoformat())
        for row in all_acceptances(store).to_pylist()
    }
    ranked = [
        (collection_of(load.results), day, arm, load.results)
        for load in loads
        for series, day, arm in load.keys
        if series == NIGHTLY
    ]
    first: dict[tuple[str, str], str] = {}
    dates: dict[str, set[str]] = defaultdict(set)
    for collection, day, arm, _ in ranked:
        dates[collection].add(day)
        first[collection, arm] = min(day, first.get((collection, arm), day))
    last = {collection: sorted(days)[-options.keep_last :] for collection, days in dates.items()}
    for collection, day, arm, results in ranked:
        is_needed = (collection, day) in accepted or first[collection, arm] == day
        if is_needed or day in last[collection]:
            yield results
    for load in loads:
        if _is_young(Artifact(store, load.results), options, now):
            yield load.results


def _newest(store: Store, options: RetentionOptions) -> Iterator[str]:
    """The last snapshots of each collection, the last embeddings and indexes of each kind."""
    for kind in REUSED:
        for collection in store.collections(kind):
            seen: dict[str, int] = defaultdict(int)
            for artifact in store.published(kind, collection):
                # A snapshot's says where it was read, of which the newest stay together.
                group = "" if kind == "snapshots" else stable_hash(artifact.manifest.config)
                seen[group] += 1
                if seen[group] <= options.keep_last:
                    yield artifact.reference


def _with_inputs(store: Store, references: Iterable[str]) -> set[str]:
    """These artifacts, and everything that they were made from."""
    reached: set[str] = set()
    todo = list(references)
    while todo:
        reference = todo.pop()
        artifact = Artifact(store, reference)
        if reference not in reached and artifact.is_published:
            reached.add(reference)
            todo += artifact.manifest.inputs.values()
    return reached


def _is_young(artifact: Artifact, options: RetentionOptions, now: float) -> bool:
    return now - artifact.used_at < options.keep_days * DAY_S
