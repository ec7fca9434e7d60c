"""Acceptances: a night's results declared good, by name, with a reason, for good.

In: what a person decided. Out: the artifact `baselines/<collection>/<key>` with one row in the
table `baselines`, which the loader copies into the warehouse. Nothing changes or removes
one; who errs accepts another night. The same decision twice is one.
"""

from datetime import UTC, date, datetime

import pyarrow as pa

from perank_tasks.artifacts.store import Store, artifact_key
from perank_tasks.config import Night
from perank_tasks.errors import ConfigError
from perank_tasks.schemas import BASELINES, rows_to_table

KIND = "baselines"


def acceptance(
    collection: str,
    run_date: date,
    name: str,
    reason: str,
    *,
    arm: str | None = None,
    as_of: date | None = None,
) -> pa.Table:
    """One acceptance as a row of `schemas.BASELINES`.

    Args:
        run_date: the night that is accepted.
        name: who accepts it.
        arm: of one arm only; None: of all.
        as_of: from which date on it holds, by default from the accepted night itself.

    Raises:
        ConfigError: no name or no reason, or it was to hold before the night it accepts.
    """
    since = as_of or run_date
    if not name.strip() or not reason.strip():
        raise ConfigError("An acceptance needs a name and a reason: who accepts, and why.")
    if since < run_date:
        raise ConfigError(
            f"The night of {run_date} cannot be the baseline as of {since}, which is before it. "
            "Leave as_of out, or name that night's date or a later one."
        )
    act = (collection, arm, run_date, since, name.strip(), reason.strip())
    row = (artifact_key(acceptance=act), *act, datetime.now(UTC).replace(tzinfo=None))
    return rows_to_table([row], BASELINES)


def acceptance_of(night: Night) -> pa.Table | None:
    """The acceptance that a night's own options ask for, if they do."""
    options = night.options
    if not options.accept:
        return None
    return acceptance(
        night.collection_name, night.run_date, options.accept_name or "", options.accept
    )


def publish_acceptance(store: Store, act: pa.Table) -> pa.Table:
    """Write an acceptance, for good, and return it as it was first written."""
    (row,) = act.to_pylist()
    artifact = store.artifact(KIND, row["collection"], row["baseline_id"])
    if not artifact.is_published:
        artifact.write_part(KIND, act, BASELINES)
        artifact.publish(expected={KIND: 1}, inputs={}, config={}, counts={}, provenance={})
    return artifact.read(KIND)


def all_acceptances(store: Store) -> pa.Table:
    """Every acceptance there is."""
    artifacts = (a for c in store.collections(KIND) for a in store.published(KIND, c))
    return pa.concat_tables([BASELINES.empty_table(), *(a.read(KIND) for a in artifacts)])
