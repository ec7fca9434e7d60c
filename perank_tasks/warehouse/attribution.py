"""Attribution: what was different between two runs, in words, and what a night's changes come from.

In: the facts recorded of two runs (the view `run_facts`), their snapshots where they are
still there, and the verdicts of all arms of a night. Out: phrases for a person, in the order in
which changes are attributed: to judgements, settings, versions and data, and only what none of
these explains to a stage, of which the control arms tell.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import duckdb
import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store
from perank_tasks.regression.ladder import Verdict
from perank_tasks.warehouse.nights import LLM_OFF, Run
from perank_tasks.warehouse.sql_files import rows_where

Facts = Mapping[str, str]

Kind = Literal["judgements", "settings", "versions", "data"]
"""Of what can differ between two runs, in the order of attribution."""

_CONTENTS = {"qrels": "judgements", "passages": "passages", "queries": "queries"}
_SETTINGS_OF_FILES = {
    "arm.embedder_hash": "the embedder's files or precision",
    "arm.first_stage.embedder_hash": "the first stage's embedder's files or precision",
}
_MACHINE = ("device", "accelerators", "processor", "threads", "cores", "platform", "python")


def facts_of(connection: duckdb.DuckDBPyConnection, run: Run) -> dict[str, str]:
    """Everything recorded of how a run came about."""
    return {row["key"]: row["value"] for row in rows_where(connection, "run_facts", **run.key)}


@dataclass(frozen=True)
class Change:
    """One thing that was different between two runs."""

    kind: Kind
    phrase: str


def explain(
    connection: duckdb.DuckDBPyConnection, store: Store, before: Run, now: Run
) -> list[Change]:
    """What was different between two runs, in the order of attribution; empty: nothing was."""
    old, new = facts_of(connection, before), facts_of(connection, now)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    phrases: dict[Kind, list[str]] = {
        "judgements": [],
        "settings": _settings(old, new, changed),
        "versions": _versions(old, new, changed),
        "data": [],
    }
    was, is_now = (Artifact(store, run.snapshot) for run in (before, now))
    are_kept = was.is_published and is_now.is_published
    for table, name in _CONTENTS.items():
        if f"collection.{table}_hash" in changed:
            counts = _arrow(old, new, f"collection.{table}")
            known = compare_snapshots(was, is_now, table) if are_kept else ""
            phrases["judgements" if table == "qrels" else "data"].append(
                f"{name}: {known}" if known else f"{name} changed ({counts})"
            )
    if "collection.relevance_level" in changed:
        level = _arrow(old, new, "collection.relevance_level")
        phrases["judgements"].append(f"relevance level {level}")
    if "run.content" in changed:
        phrases["data"].append("the run's lines")
    return [Change(kind, phrase) for kind, of_kind in phrases.items() for phrase in of_kind]


def _settings(before: Facts, now: Facts, changed: set[str]) -> list[str]:
    phrases = []
    # How many queries a limited night ranks says nothing of how it ranks them.
    for key in sorted(k for k in changed if k.startswith("arm.") and k != "arm.query_limit"):
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
    return phrases


def _versions(before: Facts, now: Facts, changed: set[str]) -> list[str]:
    phrases = []
    if "code" in changed:
        phrases.append(f"perank's code (commit {_arrow(before, now, 'commit')})")
    for key in sorted(k for k in changed if k.startswith("library.")):
        phrases.append(f"{key.removeprefix('library.')} {_arrow(before, now, key)}")
    for key in _MACHINE:
        if key in changed:
            phrases.append(f"{key.replace('python', 'Python')} {_arrow(before, now, key)}")
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
    has_moved: bool
    """Whether it ranks otherwise than that one did."""
    changes: Sequence[Change] = ()
    """What was different from that one."""

    @property
    def has_changed(self) -> bool:
        return self.against is not None and self.verdict not in (Verdict.FIRST, Verdict.IDENTICAL)

    def has(self, kind: Kind) -> bool:
        """Whether anything of that kind was different."""
        return any(change.kind == kind for change in self.changes)


def find_cause(words: Sequence[ArmWord]) -> str | None:
    """What a night's changes come from, as far as can be told.

    Where no ranking moved, it is the judgements or what measures. Settings explain the arms that
    have other ones. Other versions and data come with what is left, and the control arms among
    these say where it shows.

    Returns:
        A sentence, or None where nothing changed or nothing can be said.
    """
    changed = [word for word in words if word.has_changed]
    moved = [word for word in changed if word.has_moved]
    if changed and not moved:
        causes = [_phrases(changed, "judgements"), _phrases(changed, "versions")]
        return next((f"because of {cause}; no ranking moved" for cause in causes if cause), None)
    left = [word for word in words if not word.has("settings")]
    moved_left = [word for word in left if word in moved]
    judgements, settings = _phrases(changed, "judgements"), _phrases(moved, "settings")
    versions, data = _phrases(moved_left, "versions"), _phrases(moved_left, "data")
    with_them = ", ".join(filter(None, [judgements, versions, data]))
    parts = [settings and f"because of {settings}", with_them and f"with {with_them}"]
    if moved_left and (stage := which_stage(left)):
        evidence, place = stage
        if not (versions or data):
            parts.append(f"{evidence}: it is {place}")
        elif versions or place != FIRST_STAGE:  # other data move a first stage
            parts.append(f"{evidence}: it shows in {place}")
    return "; ".join(filter(None, parts)) or None


FIRST_STAGE = "the first stage"

LISTED = 3
"""Changes of a kind that a sentence names; an arm's line has them all."""


def _phrases(words: Sequence[ArmWord], kind: Kind) -> str:
    """The changes of a kind in one phrase, and whose they are where not of all words."""
    by_phrase: dict[str, list[str]] = defaultdict(list)
    for word in words:
        for change in word.changes:
            if change.kind == kind:
                by_phrase[change.phrase].append(word.run.arm)
    phrases = [
        phrase if len(arms) == len(words) else f"{phrase} ({and_list(arms)})"
        for phrase, arms in by_phrase.items()
    ]
    more = len(phrases) - LISTED
    return ", ".join([*phrases[:LISTED], *([f"and {more} more"] if more > 0 else [])])


def which_stage(words: Sequence[ArmWord]) -> tuple[str, str] | None:
    """What the control arms of a night say of where a change comes from: those that rank by the
    first stage alone, by the cosine alone, and with the LLM off.

    Arms are compared with each other where they were judged by the same night and rank the
    candidates of the same first stage; others are left out.

    Returns:
        Which controls moved or did not, and the stage; None where no arm moved or no control arm
        was run.
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
        return f"{and_list(moved['first-stage'])} moved", FIRST_STAGE
    if "first-stage" not in still:
        return None
    first = and_list(still["first-stage"])
    if "cosine" in moved:
        return f"{and_list(moved['cosine'])} moved and {first} did not", "the embeddings"
    if "cosine" in still and "perank" in moved:
        controls = [*still["first-stage"], *still["cosine"]]
        if LLM_OFF in still and LLM_OFF not in moved:
            return f"{and_list([*controls, *still[LLM_OFF]])} did not move", "the LLM"
        return f"{and_list(controls)} did not move", "the reranker"
    others = ", ".join(name for names in moved.values() for name in names)
    return f"{first} did not move", f"what comes after the first stage, in {others}"


def and_list(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _named(rows: pa.Table) -> dict[tuple, object]:
    return {tuple(key): value for *key, value in zip(*(c.to_pylist() for c in rows), strict=True)}


def _arrow(before: Facts, now: Facts, key: str) -> str:
    old, new = before.get(key, "none"), now.get(key, "none")
    return old if old == new else f"{old} → {new}"
