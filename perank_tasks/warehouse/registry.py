"""Registry: the checkpoints that are kept here, and which of them is champion as of a date.

A registered checkpoint is the artifact `checkpoints/<name>/<key>`: the folder `model`, which
loads like any other checkpoint, and what it came from, in tables and in its manifest. Its
reference names it for good, its name the newest of that name.

The *champion* is what a night ranks by unless it is told otherwise. Who is champion follows from
decisions, each an artifact `promotions/champion/<key>` with one row of the table `promotions`,
and each with a date as of which it holds: a night of an earlier date does not see it. A checkpoint
that is withdrawn leaves the place to the one promoted before it, and at last to the one that
ships. Nothing changes or removes a decision.
"""

import json
import shutil
from collections.abc import Iterable
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from perank_tasks.artifacts.store import Artifact, Store, artifact_key
from perank_tasks.config import CHAMPION, DEFAULT_CHECKPOINT, Promotion
from perank_tasks.errors import ConfigError
from perank_tasks.perank.checkpoint_config import shipped_checkpoints, summarize_checkpoint
from perank_tasks.perank.embedders import CHECKPOINT_PREFIX
from perank_tasks.schemas import PROMOTIONS
from perank_tasks.settings import Settings
from perank_tasks.warehouse.decisions import now, publish_row, signed

KIND = "checkpoints"
TRAINED = "trained"
"""What stages of training make; named by reference, never promoted."""
DECISIONS = "promotions"
MODEL = "model"
"""The folder of a registered checkpoint's artifact that is the checkpoint."""

Row = dict[str, Any]

_in_order = itemgetter("as_of", "decided_at", "promotion_id")


def open_store() -> Store:
    """The store that the environment names."""
    return Store(Settings.from_environment().root)


def registered(store: Store) -> list[Artifact]:
    """Every registered checkpoint, the newest of each name first."""
    return [
        artifact for name in store.collections(KIND) for artifact in store.published(KIND, name)
    ]


def find(name: str, store: Store) -> Artifact | None:
    """The checkpoint that an artifact's reference names, or the newest one registered by a name."""
    kind, _, rest = name.partition("/")
    if kind in (KIND, TRAINED) and rest.count("/") == 1:
        artifact = Artifact(store, name)
        return artifact if artifact.use() else None
    if "/" in name or name.startswith("."):
        return None
    return next(iter(store.published(KIND, name)), None)


def local(name: str, store: Store) -> str:
    """What `PERank.from_pretrained` or an embedder loads by that name.

    A registered checkpoint, or the encoder inside one (`checkpoint:NAME`), becomes a folder on this
    machine; any other name is handed back.
    """
    if name.startswith(CHECKPOINT_PREFIX):
        return CHECKPOINT_PREFIX + local(name.removeprefix(CHECKPOINT_PREFIX), store)
    if name in shipped_checkpoints() or Path(name).expanduser().is_dir():
        return name
    artifact = find(name, store)
    return str(artifact.local(MODEL)) if artifact else name


def trained_by(name: str, store: Store) -> str | None:
    """The hash of the training run that registered a checkpoint; None where none did."""
    found = find(name, store) if name.startswith(f"{KIND}/") else None
    return found.manifest.config.get("training") if found else None


def resolve(name: str, as_of: date, store: Store) -> tuple[str, Promotion | None]:
    """What a night of that date means by a checkpoint's name, and the decision it rests on.

    A reference, a shipped name, a folder and a hub id mean themselves; the name of registered
    checkpoints means the newest; `champion` means the one promoted as of the date, or the
    shipped one where none was.
    """
    if name == CHAMPION:
        act = champion(all_decisions(store), as_of)
        if act is None:
            return DEFAULT_CHECKPOINT, None
        fields = ("promotion_id", "checkpoint", "as_of", "name", "reason")
        return act["checkpoint"], Promotion(**{field: act[field] for field in fields})
    if name not in shipped_checkpoints() and not Path(name).expanduser().is_dir():
        found = find(name, store)
        if found:
            return found.reference, None
    return name, None


def champion(decisions: Iterable[Row], as_of: date) -> Row | None:
    """The promotion that holds as of a date; None: the shipped checkpoint is champion.

    Args:
        decisions: rows of `schemas.PROMOTIONS`.
    """
    standing: list[Row] = []
    for act in sorted(decisions, key=_in_order):
        if act["as_of"] > as_of:
            break
        standing = [other for other in standing if other["checkpoint"] != act["checkpoint"]]
        if act["act"] == "promote":
            standing.append(act)
    return standing[-1] if standing else None


def all_decisions(store: Store) -> list[Row]:
    """Every decision there is, in the order in which they hold."""
    artifacts = store.published(DECISIONS, CHAMPION)
    rows = [row for artifact in artifacts for row in artifact.read(DECISIONS).to_pylist()]
    return sorted(rows, key=_in_order)


def promote(
    store: Store,
    checkpoint: str,
    name: str,
    reason: str,
    *,
    as_of: date,
    evaluation: str | None = None,
) -> Row:
    """Make a checkpoint champion from a date on, for good; the same decision twice is one.

    Args:
        checkpoint: a registered one, by reference or name, or a shipped one.
        name: who promotes it.
        evaluation: the reference of the evaluation that the decision rests on.

    Raises:
        ConfigError: no name or no reason, or no such checkpoint.
        CheckpointError: it cannot be read.
    """
    found, _ = resolve(checkpoint, as_of, store)
    if not found.startswith(f"{KIND}/") and found not in shipped_checkpoints():
        raise ConfigError(
            f"{checkpoint!r} is neither shipped nor registered, and a folder may change after it "
            "was promoted. Register it first: perank checkpoint register FOLDER --name …"
        )
    summary = summarize_checkpoint(local(found, store), cache=Settings.from_environment().cache)
    return _decide(
        store,
        name,
        reason,
        act="promote",
        checkpoint=found,
        checkpoint_hash=summary.hash,
        as_of=as_of,
        evaluation=evaluation,
    )


def withdraw(
    store: Store, name: str, reason: str, *, as_of: date, checkpoint: str | None = None
) -> Row:
    """Take a promotion back from a date on: the champion before it is champion again.

    Args:
        checkpoint: by reference; None: whichever is champion as of the date.

    Raises:
        ConfigError: no name or no reason, or it is not promoted as of that date.
    """
    decisions = all_decisions(store)
    if checkpoint is None:
        standing = champion(decisions, as_of)
    else:
        wanted, _ = resolve(checkpoint, as_of, store)
        standing = champion((d for d in decisions if d["checkpoint"] == wanted), as_of)
    if standing is None:
        raise ConfigError(
            f"As of {as_of}, {checkpoint or 'no checkpoint'} is {'not ' if checkpoint else ''}"
            "promoted: there is nothing to withdraw. See: perank checkpoint list"
        )
    return _decide(
        store,
        name,
        reason,
        act="withdraw",
        checkpoint=standing["checkpoint"],
        checkpoint_hash=standing["checkpoint_hash"],
        as_of=as_of,
        evaluation=None,
    )


def _decide(store: Store, name: str, reason: str, **act: Any) -> Row:
    """Publish a decision; `act`: its columns but for who, why and when."""
    decision = {**act, **signed("A decision", name, reason)}
    # The same words mean something new once the opposite has been decided between them.
    turn = sum(
        other["checkpoint"] == act["checkpoint"] and other["act"] != act["act"]
        for other in all_decisions(store)
    )
    key = artifact_key(decision=decision, turn=turn)
    row = {"promotion_id": key, **decision, "decided_at": now()}
    artifact = store.artifact(DECISIONS, CHAMPION, key)
    inputs = {"evaluation": act["evaluation"]} if act["evaluation"] else {}
    return publish_row(artifact, DECISIONS, row, PROMOTIONS, inputs).to_pylist()[0]


def register(
    store: Store,
    name: str,
    source: Path,
    *,
    tables: dict[str, pa.Table],
    folders: dict[str, Path],
    card: str | None,
    inputs: dict[str, str],
    config: dict[str, Any],
    counts: dict[str, Any],
    provenance: dict[str, str],
) -> str:
    """Keep a copy of a checkpoint's folder with what it came from; returns the reference.

    The key is that of its content and of what it was made from: the same twice is one.

    Args:
        name: under which it is kept; not that of a shipped one.
        source: the checkpoint's folder, in either layout.
        tables, folders: what is kept beside it, by name.
        card: Markdown, in place of the folder's own README.md; None keeps that.
        inputs, config, counts, provenance: of its manifest.

    Raises:
        ConfigError: the name is a shipped checkpoint's, or cannot be a folder's.
        CheckpointError: the folder is no checkpoint that loads.
        StorageError: it cannot be copied.
    """
    check_name(name, shipped_checkpoints())
    cache = Settings.from_environment().cache
    content = summarize_checkpoint(source, cache=cache).hash
    key = artifact_key(checkpoint=content, inputs=inputs, config=config)
    final = store.artifact(KIND, name, key)
    if final.use():
        return final.reference
    with store.draft(KIND, name) as draft:
        with draft.writing(MODEL) as folder:
            _copy(source, folder)
            if card is not None:
                (folder / "README.md").write_text(card, encoding="utf-8")
            own = {
                "checkpoint_hash": summarize_checkpoint(folder, cache=cache).hash,
                "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
            }
        for beside, files in folders.items():
            with draft.writing(beside) as folder:
                shutil.copytree(files, folder, dirs_exist_ok=True)
        for table, rows in tables.items():
            draft.write_part(table, rows, rows.schema)
        return draft.publish(
            key=key,
            expected=dict.fromkeys(tables, 1),
            inputs=inputs,
            config=config,
            counts=own | counts,
            provenance=provenance,
        )


def check_name(name: str, shipped: Iterable[str]) -> None:
    """Refuse a name that a registered checkpoint cannot have.

    Raises:
        ConfigError: says why.
    """
    if name in (*shipped, CHAMPION):
        raise ConfigError(
            f"{name!r} is the name of "
            + ("whatever is promoted" if name == CHAMPION else "a checkpoint that ships")
            + ": give yours another one."
        )
    if not name or name.startswith(".") or not all(c.isalnum() or c in "._-" for c in name):
        raise ConfigError(
            f"{name!r} cannot be a checkpoint's name: letters, digits, dot, dash and underscore "
            "only, and no dot in front."
        )


_NAMES_OF_MODELS = {
    "config.json": ("base_model", "encoder", "encoder_name", "_name_or_path"),
    "adapter_config.json": ("base_model_name_or_path",),
}


def _copy(source: Path, folder: Path) -> None:
    """Copy a checkpoint; models outside it that it names by relative paths get whole ones."""
    shutil.copytree(
        source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__")
    )
    for file, keys in _NAMES_OF_MODELS.items():
        path = folder / file
        if not path.is_file():
            continue
        settings = json.loads(path.read_text(encoding="utf-8"))
        moved = {}
        for key in keys:
            if isinstance(name := settings.get(key), str) and name:
                model = (source / Path(name).expanduser()).resolve()
                if model.is_dir() and not model.is_relative_to(source.resolve()):
                    moved[key] = str(model)
        if any(settings[key] != name for key, name in moved.items()):
            path.write_text(json.dumps(settings | moved, indent=2) + "\n", encoding="utf-8")
