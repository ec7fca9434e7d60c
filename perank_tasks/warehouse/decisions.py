"""Decisions: what people decide, each by name and with a reason, and each an artifact for good.

An *acceptance* says that a night's results are good: `baselines/<collection>/<key>` with one row
of the table `baselines`, which the loader copies into the warehouse. Nothing changes or removes
one; who errs accepts another night. The same decision twice is one.

A *withdrawal* says that a snapshot is bad: `withdrawals/<collection>/<key of the snapshot>`, a
manifest without parts. From then on no night takes that snapshot, and results that were made from
it do not count: the warehouse is rebuilt without them, and where an earlier run of the same date
was replaced by them, its rows hold again. Nothing else is removed; retention does that in its
time. Taking a withdrawal back brings the same tables back.

The third kind, promotions of checkpoints, is the registry's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.errors import CollectionError, ConfigError
from perank_tasks.schemas import BASELINES, dicts_to_table
from perank_tasks.warehouse.sql_files import TableRow

BASELINE_KIND = "baselines"
WITHDRAWAL_KIND = "withdrawals"


def signed(what: str, name: str, reason: str) -> dict[str, str]:
    """Who decides and why, without blanks around.

    Raises:
        ConfigError: one of them is empty; `what` is the decision, such as `An acceptance`.
    """
    if not name.strip() or not reason.strip():
        raise ConfigError(f"{what} needs a name and a reason: who decides, and why.")
    return {"name": name.strip(), "reason": reason.strip()}


def publish_row(
    artifact: Artifact,
    table: str,
    row: Mapping[str, Any],
    schema: pa.Schema,
    inputs: dict[str, str] | None = None,
) -> pa.Table:
    """Write a decision of one row, for good, and return it as it was first written."""
    if not artifact.is_published:
        artifact.write_part(table, dicts_to_table([row], schema), schema)
        artifact.publish(
            expected={table: 1}, inputs=inputs or {}, config={}, counts={}, provenance={}
        )
    return artifact.read(table)


def now() -> datetime:
    """The moment of a decision, in UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def acceptance(
    collection: str,
    run_date: date,
    name: str,
    reason: str,
    *,
    arm: str | None = None,
    as_of: date | None = None,
) -> TableRow:
    """One acceptance, a row of `schemas.BASELINES`.

    Args:
        run_date: the night that is accepted.
        name: who accepts it.
        arm: of one arm only; None: of all.
        as_of: from which date on it holds, by default from the accepted night itself.

    Raises:
        ConfigError: no name or no reason, or it was to hold before the night it accepts.
    """
    since = as_of or run_date
    if since < run_date:
        raise ConfigError(
            f"The night of {run_date} cannot be the baseline as of {since}, which is before it. "
            "Leave as_of out, or name that night's date or a later one."
        )
    act = {
        "collection": collection,
        "arm": arm,
        "run_date": run_date,
        "as_of": since,
        **signed("An acceptance", name, reason),
    }
    return {"baseline_id": artifact_key(acceptance=act), **act, "accepted_at": now()}


def publish_acceptance(store: Store, act: TableRow) -> pa.Table:
    """Write an acceptance, for good, and return it as it was first written."""
    artifact = store.artifact(BASELINE_KIND, act["collection"], act["baseline_id"])
    return publish_row(artifact, BASELINE_KIND, act, BASELINES)


def all_acceptances(store: Store) -> pa.Table:
    """Every acceptance there is."""
    artifacts = (
        artifact
        for collection in store.collections(BASELINE_KIND)
        for artifact in store.published(BASELINE_KIND, collection)
    )
    return pa.concat_tables([BASELINES.empty_table(), *(a.read(BASELINE_KIND) for a in artifacts)])


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
        return cls(manifest.inputs["snapshot"], **manifest.config, moment=manifest.created_at)


def record_withdrawal(store: Store, snapshot: str, name: str, reason: str) -> Withdrawal:
    """Write a withdrawal down; one that is there stays as it is.

    Raises:
        ConfigError: it is no snapshot's reference, or name or reason is missing.
        ArtifactError: there is no such snapshot.
    """
    artifact = _withdrawal(store, snapshot)
    signature = signed("A withdrawal", name, reason)
    store.open(snapshot)
    artifact.publish(
        expected={}, inputs={"snapshot": snapshot}, config=signature, counts={}, provenance={}
    )
    return Withdrawal.of(artifact)


def take_back(store: Store, snapshot: str) -> Withdrawal:
    """Remove a withdrawal; returns what it was.

    Raises:
        ConfigError: that snapshot has not been withdrawn.
    """
    artifact = _withdrawal(store, snapshot)
    if not artifact.is_published:
        raise ConfigError(
            f"{snapshot} has not been withdrawn. List those that have been: perank withdraw --list"
        )
    withdrawal = Withdrawal.of(artifact)
    artifact.remove()
    return withdrawal


def withdrawn_snapshots(store: Store, collection: str) -> dict[str, Withdrawal]:
    """{reference: withdrawal} of a collection's snapshots, the newest withdrawal first."""
    withdrawals = map(Withdrawal.of, store.published(WITHDRAWAL_KIND, collection))
    return {withdrawal.snapshot: withdrawal for withdrawal in withdrawals}


def all_withdrawals(store: Store) -> list[Withdrawal]:
    """Every withdrawal there is, by collection, the newest first."""
    collections = store.collections(WITHDRAWAL_KIND)
    return [w for c in collections for w in withdrawn_snapshots(store, c).values()]


def refuse_withdrawn(store: Store, snapshot: str) -> None:
    """Refuse a snapshot that has been withdrawn.

    Raises:
        CollectionError: says by whom and why, and how to go on.
    """
    artifact = _withdrawal(store, snapshot)
    if artifact.is_published:
        withdrawal = Withdrawal.of(artifact)
        raise CollectionError(
            f"The collection's contents are those of {snapshot}, which {withdrawal.name} withdrew "
            f"on {withdrawal.moment[:10]}: {withdrawal.reason}. Put its files right, or remove "
            "the dt= folder, and run the night again. If it was right all along: "
            f"perank withdraw --undo {snapshot}"
        )


def _withdrawal(store: Store, snapshot: str) -> Artifact:
    kind, _, rest = snapshot.partition("/")
    collection, _, key = rest.partition("/")
    if kind != "snapshots" or not collection or not key or "/" in key or ".." in snapshot:
        raise ConfigError(
            f"{snapshot!r} is no snapshot; expected snapshots/COLLECTION/KEY, as in the column "
            '`snapshot` of: perank sql "SELECT DISTINCT run_date, collection, snapshot FROM runs"'
        )
    return store.artifact(WITHDRAWAL_KIND, collection, key)
