"""Checkpoints are kept whole, and decisions on the champion hold as of their dates."""

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perank_tasks.artifacts.store import Store
from perank_tasks.cli.main import app
from perank_tasks.config import CHAMPION, DEFAULT_CHECKPOINT, NightOptions
from perank_tasks.errors import CheckpointError, ConfigError
from perank_tasks.night.plan import plan_night
from perank_tasks.night.site import Site
from perank_tasks.perank.checkpoint_config import summarize_checkpoint
from perank_tasks.settings import Settings
from perank_tasks.warehouse import registry
from tests.perank.tiny import write_own


def day(number: int) -> date:
    return date(2026, 1, number)


@pytest.fixture
def store() -> Store:
    return registry.open_store()


def keep(store: Store, folder: Path, name: str = "mine") -> str:
    return registry.register(
        store,
        name,
        folder,
        tables={},
        folders={},
        card=None,
        inputs={},
        config={},
        counts={},
        provenance={},
    )


@pytest.fixture
def checkpoints(store: Store, tmp_path: Path) -> list[str]:
    """References of two registered checkpoints of other weights."""
    return [keep(store, write_own(tmp_path / f"own-{seed}", seed=seed)) for seed in (1, 2)]


def summary(name: str):
    folder = registry.local(name, registry.open_store())
    return summarize_checkpoint(folder, cache=Settings.from_environment().cache)


def champion(store: Store, number: int) -> str | None:
    standing = registry.champion(registry.all_decisions(store), day(number))
    return standing["checkpoint"] if standing else None


def test_a_registered_checkpoint_loads_by_reference_and_by_name(
    store: Store, tmp_path: Path
) -> None:
    folder = write_own(tmp_path / "own")
    reference = keep(store, folder)
    assert keep(store, folder) == reference
    assert store.collections(registry.KIND) == ["mine"]
    # Its base model lies beside the original, named by a relative path.
    config = json.loads((store.root / reference / "model" / "config.json").read_text())
    assert config["base_model"] == str((tmp_path / "own-base").resolve())
    for name in (reference, "mine"):
        assert summary(name).folder == store.root / reference / "model"
    other = keep(store, write_own(tmp_path / "newer", seed=9))
    assert summary("mine").folder == store.root / other / "model"
    assert summary(reference).hash != summary(other).hash
    with pytest.raises(ConfigError, match="unknown checkpoint 'mind'"):
        summary("mind")


def test_what_is_no_checkpoint_is_not_registered(store: Store, tmp_path: Path) -> None:
    folder = write_own(tmp_path / "own")
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        keep(store, folder)
    assert not list(store.root.rglob("*.safetensors"))


@pytest.mark.parametrize("name", [DEFAULT_CHECKPOINT, CHAMPION, "a/b", "", ".hidden", "a b"])
def test_names_that_mean_something_else_are_refused(
    store: Store, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="name"):
        keep(store, write_own(tmp_path / "own"), name)


def test_a_promotion_holds_from_its_date_on(store: Store, checkpoints: list[str]) -> None:
    first, second = checkpoints
    assert champion(store, 9) is None
    registry.promote(store, second, "Ada", "better", as_of=day(5))
    registry.promote(store, first, "Ada", "good", as_of=day(3))  # decided later, holds earlier
    assert [champion(store, n) for n in (2, 3, 4, 5, 9)] == [None, first, first, second, second]


def test_a_withdrawal_brings_the_one_before_back(store: Store, checkpoints: list[str]) -> None:
    first, second = checkpoints
    registry.promote(store, first, "Ada", "good", as_of=day(2))
    registry.promote(store, second, "Ada", "better", as_of=day(4))
    with pytest.raises(ConfigError, match="is not promoted"):
        registry.withdraw(store, "Bob", "too early", as_of=day(3), checkpoint=second)
    registry.withdraw(store, "Bob", "slow", as_of=day(6))
    assert [champion(store, n) for n in (3, 5, 6)] == [first, second, first]
    registry.withdraw(store, "Bob", "all of it", as_of=day(8))
    assert champion(store, 8) is None
    with pytest.raises(ConfigError, match="no checkpoint is promoted"):
        registry.withdraw(store, "Bob", "again", as_of=day(9))
    # The same words as before, after a withdrawal: a new decision.
    registry.promote(store, second, "Ada", "better", as_of=day(9))
    registry.withdraw(store, "Bob", "slow", as_of=day(10))
    registry.promote(store, second, "Ada", "better", as_of=day(10))
    assert [champion(store, n) for n in (9, 10)] == [second, second]
    assert len(registry.all_decisions(store)) == 7


def test_the_same_decision_twice_is_one(store: Store, checkpoints: list[str]) -> None:
    acts = [registry.promote(store, checkpoints[0], "Ada", "good", as_of=day(2)) for _ in range(2)]
    assert acts[0] == acts[1]
    assert len(registry.all_decisions(store)) == 1


def test_a_decision_needs_a_name_a_reason_and_a_checkpoint_that_stays(
    store: Store, checkpoints: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a name and a reason"):
        registry.promote(store, checkpoints[0], " ", "good", as_of=day(2))
    with pytest.raises(ConfigError, match="Register it first"):
        registry.promote(store, str(write_own(tmp_path / "loose")), "Ada", "good", as_of=day(2))
    registry.promote(store, DEFAULT_CHECKPOINT, "Ada", "back to it", as_of=day(2))
    assert champion(store, 2) == DEFAULT_CHECKPOINT


def test_a_night_ranks_by_the_champion_of_its_date(store: Store, checkpoints: list[str]) -> None:
    act = registry.promote(store, checkpoints[0], "Ada", "good", as_of=day(5))

    def night(number: int, *changes: str):
        options = NightOptions.parse({"arms": ["perank"], "set": changes})
        return plan_night(options, day(number), Site.from_environment())

    before, after = night(4), night(5)
    assert before.arms[0].options["checkpoint"] == DEFAULT_CHECKPOINT
    assert before.promotion is None
    assert after.arms[0].options["checkpoint"] == checkpoints[0]
    assert after.arms[0].identity["checkpoint_hash"] == summary(checkpoints[0]).hash
    assert after.promotion is not None
    assert after.promotion.promotion_id == act["promotion_id"]
    assert type(after).from_json(after.to_json()) == after
    named = night(5, "perank.checkpoint=mine")
    assert (named.arms[0].options["checkpoint"], named.promotion) == (checkpoints[1], None)
    # What was promoted later does not rename what ran before.
    assert night(4).arms[0].hash == before.arms[0].hash


def test_commands_register_promote_list_and_withdraw(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "own")

    def perank(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["checkpoint", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert "champion today: smollm2" in perank("list")
    reference = perank("register", str(folder), "--name", "mine").split()[0]
    said = ("--name", "Ada", "--reason", "try it")
    promoted = perank("promote", reference, *said, "--as-of", "2026-01-05")
    assert f"champion as of 2026-01-05: {reference}" in promoted
    listed = perank("list")
    assert f"2026-01-05  promoted  {reference}  Ada: try it" in listed
    assert f"champion today: {reference}" in listed
    assert "# tiny" in perank("show", "mine")
    gone = perank("withdraw", "--name", "Bob", "--reason", "no", "--as-of", "2026-02-01")
    assert f"champion as of 2026-02-01: {DEFAULT_CHECKPOINT}" in gone
