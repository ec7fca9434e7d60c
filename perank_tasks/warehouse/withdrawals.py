"""Withdrawals: a snapshot declared bad, by name, with a reason.

In: a snapshot's reference. Out: the artifact `withdrawals/<collection>/<key of the snapshot>`, a
manifest without parts. From then on no night takes that snapshot, and results that were made from
it do not count: the warehouse is made again without them, and where an earlier run of the same
date was replaced by them, its rows hold again. Nothing else is removed; retention does that in its
time. Taking a withdrawal back brings the same tables back.
"""

from dataclasses import dataclass

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.errors import CollectionError, ConfigError

KIND = "withdrawals"


@dataclass(frozen=True)
class Withdrawal:
    """Who withdrew which snapshot, when and why."""

    snapshot: str
    name: str
    reason: str
    moment: str

    @classmethod
    def of(cls, artifact: Artifact) -> "Withdrawal":
        """The withdrawal that an artifact holds."""
        manifest = artifact.manifest
        said = manifest.config
        return cls(manifest.inputs["snapshot"], said["name"], said["reason"], manifest.created_at)


def record_withdrawal(store: Store, snapshot: str, name: str, reason: str) -> Withdrawal:
    """Write a withdrawal down; one that is there stays as it is.

    Raises:
        ConfigError: it is no snapshot's reference, or name or reason is missing.
        ArtifactError: there is no such snapshot.
    """
    artifact = _artifact(store, snapshot)
    if not name.strip() or not reason.strip():
        raise ConfigError("A withdrawal needs a name and a reason: who withdraws, and why.")
    store.open(snapshot)
    artifact.publish(
        expected={},
        inputs={"snapshot": snapshot},
        config={"name": name.strip(), "reason": reason.strip()},
        counts={},
        provenance={},
    )
    return Withdrawal.of(artifact)


def take_back(store: Store, snapshot: str) -> Withdrawal:
    """Remove a withdrawal; returns what it was.

    Raises:
        ConfigError: that snapshot has not been withdrawn.
    """
    artifact = _artifact(store, snapshot)
    if not artifact.is_published:
        raise ConfigError(
            f"{snapshot} has not been withdrawn. List those that have been: perank withdraw --list"
        )
    found = Withdrawal.of(artifact)
    artifact.remove()
    return found


def withdrawn_snapshots(store: Store, collection: str) -> dict[str, Withdrawal]:
    """{reference: withdrawal} of a collection's snapshots, the newest withdrawal first."""
    found = map(Withdrawal.of, store.published(KIND, collection))
    return {withdrawal.snapshot: withdrawal for withdrawal in found}


def all_withdrawals(store: Store) -> list[Withdrawal]:
    """Every withdrawal there is, by collection, the newest first."""
    return [w for c in store.collections(KIND) for w in withdrawn_snapshots(store, c).values()]


def refuse_withdrawn(store: Store, snapshot: str) -> None:
    """Refuse a snapshot that has been withdrawn.

    Raises:
        CollectionError: says by whom and why, and how to go on.
    """
    artifact = _artifact(store, snapshot)
    if artifact.is_published:
        found = Withdrawal.of(artifact)
        raise CollectionError(
            f"The collection's contents are those of {snapshot}, which {found.name} withdrew on "
            f"{found.moment[:10]}: {found.reason}. Put its files right, or remove the dt= folder, "
            "and run the night again. If it was right all along: perank withdraw --undo "
            f"{snapshot}"
        )


def _artifact(store: Store, snapshot: str) -> Artifact:
    kind, _, rest = snapshot.partition("/")
    collection, _, key = rest.partition("/")
    if kind != "snapshots" or not collection or not key or "/" in key or ".." in snapshot:
        raise ConfigError(
            f"{snapshot!r} is no snapshot; expected snapshots/COLLECTION/KEY, as in the column "
            '`snapshot` of: perank sql "SELECT DISTINCT run_date, collection, snapshot FROM runs"'
        )
    return store.artifact(KIND, collection, key)
