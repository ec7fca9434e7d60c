"""Attribution: what was different between two runs, in words, and which stage it shows in.

In: the facts recorded of two runs (the view `run_facts`), their snapshots where they are
still there, and the verdicts of the control arms. Out: phrases for a person, the likeliest
cause of changed results first.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.regression.ladder import Verdict
from perank_tasks.warehouse.database import rows_where
from perank_tasks.warehouse.nights import LLM_OFF, Run

Facts = Mapping[str, str]

_CONTENTS = {"passages": "passages", "queries": "queries", "qrels": "judgements"}
_SETTINGS_OF_FILES = {
    "arm.embedder_hash": "the embedder's files or precision",
    "arm.first_stage.embedder_hash": "the first stage's embedder's files or precision",
}
_MACHINE = {
    "device": "device",
    "accelerators": "accelerators",
    "processor": "processor",
    "threads": "threads",
    "cores": "cores",
    "platform": "platform",
    "python": "Python",
}


def facts_of(connection: duckdb.DuckDBPyConnection, run: Run) -> dict[str, str]:
    """Everything recorded of how a run came about."""
    return {row["key"]: row["value"] for row in rows_where(connection, "run_facts", **run.key)}


def snapshot_of(connection: duckdb.DuckDBPyConnection, store: Store, run: Run) -> Artifact | None:
    """The run's snapshot; None where it has been removed."""
    (row,) = rows_where(connection, "runs", **run.key)
    snapshot = Artifact(store, row["snapshot"])
    return snapshot if snapshot.is_published else None


def explain(
    connection: duckdb.DuckDBPyConnection, store: Store, before: Run, now: Run
) -> list[str]:
    """What was different between two runs, in words; empty where nothing was."""
    old, new = facts_of(connection, before), facts_of(connection, now)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    snapshots = [snapshot_of(connection, store, run) for run in (before, now)]
    phrases = []
    for table, name in _CONTENTS.items():
        if f"collection.{table}_hash" in changed:
            counts = _arrow(old, new, f"collection.{table}")
            was, is_now = snapshots
            known = compare_snapshots(was, is_now, table) if was and is_now else ""
            phrases.append(f"{name}: {known}" if known else f"{name} changed ({counts})")
    return phrases + _in_words(old, new, changed)


def _in_words(before: Facts, now: Facts, changed: set[str]) -> list[str]:
    """What else was different, from the facts alone."""
    phrases = []
    if "collection.relevance_level" in changed:
        arrow = _arrow(before, now, "collection.relevance_level")
        phrases.append(f"relevance level {arrow}")
    for key in sorted(k for k in changed if k.startswith("arm.")):
        if key.endswith("_hash"):
            # A new name says more than a new hash.
            if (setting := key.removesuffix("_hash")) not in changed:
                files = f"the {setting.removeprefix('arm.')}'s files"
                phrases.append(_SETTINGS_OF_FILES.get(key, files))
        else:
            phrases.append(f"setting {key.removeprefix('arm.')}: {_arrow(before, now, key)}")
            if key == "arm.checkpoint" and "promotion.id" in now:
                phrases[-1] += " (promoted as of {}, {}: {})".format(
                    *(now[f"promotion.{what}"] for what in ("as_of", "name", "reason"))
                )
    if "run.content" in changed:
        phrases.append("the run's lines")
    if "code" in changed:
        commits = _arrow(before, now, "commit")
        phrases.append(f"perank's code (commit {commits})")
    for key in sorted(k for k in changed if k.startswith("library.")):
        phrases.append(f"{key.removeprefix('library.')} {_arrow(before, now, key)}")
    for key, name in _MACHINE.items():
        if key in changed:
            phrases.append(f"{name} {_arrow(before, now, key)}")
    return phrases


def compare_snapshots(before: Artifact, now: Artifact, table: str) -> str:
    """Count what was added, removed and changed in one table of a snapshot."""
    keys, value = {
        "passages": (["passage_id"], "text_hash"),
        "queries": (["query_id"], "text"),
        "qrels": (["query_id", "passage_id"], "relevance"),
    }[table]
    old, new = (_named(snapshot.read(table, [*keys, value])) for snapshot in (before, now))
    common = old.keys() & new.keys()
    counts = {
        "added": len(new.keys() - common),
        "removed": len(old.keys() - common),
        "changed": sum(old[key] != new[key] for key in common),
    }
    return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "in another order"


@dataclass(frozen=True)
class ArmWord:
    """What was said of one arm of a night."""

    run: Run
    verdict: str
    against: date | None
    """The night it was judged by."""

    @property
    def has_moved(self) -> bool:
        return self.against is not None and self.verdict not in (Verdict.FIRST, Verdict.IDENTICAL)


def which_stage(words: Sequence[ArmWord]) -> str | None:
    """What the control arms of a night say of where a change comes from: those that rank by the
    first stage alone, by the cosine alone, and with the LLM off.

    Arms are compared with each other where they were judged by the same night and rank the
    candidates of the same first stage; others are left out.

    Returns:
        A sentence, or None where no arm moved or no control arm was run.
    """
    controlled = {word.run.first_stage for word in words if word.run.ranker == "first-stage"}
    words = [word for word in words if word.run.first_stage in controlled]
    baselines = {word.against for word in words if word.has_moved}
    if len(baselines) != 1:
        return None
    words = [word for word in words if word.against in baselines]
    moved: dict[str, list[str]] = defaultdict(list)
    still: dict[str, list[str]] = defaultdict(list)
    for word in words:
        (moved if word.has_moved else still)[word.run.ranker].append(word.run.arm)
    if "first-stage" in moved:
        return f"{_and(moved['first-stage'])} moved: it is the data or the first stage"
    if "first-stage" not in still:
        return None
    first = _and(still["first-stage"])
    if "cosine" in moved:
        return f"{_and(moved['cosine'])} moved and {first} did not: it is the embeddings"
    if "cosine" in still and "perank" in moved:
        controls = [*still["first-stage"], *still["cosine"]]
        if LLM_OFF in still and LLM_OFF not in moved:
            return f"{_and([*controls, *still[LLM_OFF]])} did not move: it is the LLM"
        return f"{_and(controls)} did not move: it is the reranker"
    others = ", ".join(name for names in moved.values() for name in names)
    return f"{first} did not move: it is what comes after the first stage, in {others}"


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _named(rows: pa.Table) -> dict[tuple, object]:
    return {tuple(key): value for *key, value in zip(*(c.to_pylist() for c in rows), strict=True)}


def _arrow(before: Facts, now: Facts, key: str) -> str:
    old, new = before.get(key, "none"), now.get(key, "none")
    return old if old == new else f"{old} → {new}"
