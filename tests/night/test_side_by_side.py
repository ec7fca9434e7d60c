"""A night by processes side by side is the night by one process: how many follows from the machine
and from how much there is to do, and changes no result."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from perank_tasks.config import Night
from perank_tasks.night import embed, pipeline, retrieve
from perank_tasks.night.site import Site
from perank_tasks.settings import Settings, cores
from tests.small import TOPICS, run_night, small_night, write_collection


@pytest.fixture
def of_two() -> Site:
    """A site where two pieces are done at once, whatever this machine is."""
    site = Site.from_environment()
    return replace(site, settings=replace(site.settings, threads=2, side_by_side=2))


def ranked(night: Night, site: Site) -> dict[str, list[tuple[str, str, int, float]]]:
    """Each arm's rankings."""
    references = run_night(night, site=site, until="rerank")["rerank"]
    rows = {arm: site.store.open(r).read("rankings").to_pylist() for arm, r in references.items()}
    return {arm: [tuple(row.values()) for row in of] for arm, of in rows.items()}


@pytest.mark.slow
def test_processes_side_by_side_rank_as_one_does(
    of_two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_collection(tmp_path / "topics")
    alone = ranked(small_night(spec, shards=1), of_two.of_a_piece)
    monkeypatch.setattr(embed, "PASSAGES_A_SHARD", 2)
    monkeypatch.setattr(retrieve, "QUERIES_A_SHARD", 2)
    side_by_side = []
    do_each = pipeline.do_each

    def spy(do: partial, pieces: Sequence, *, workers: int, threads: int) -> None:
        side_by_side.append((do.args[2].__name__, len(pieces), workers, threads))
        do_each(do, pieces, workers=workers, threads=threads)

    monkeypatch.setattr(pipeline, "do_each", spy)
    # A process of its own embeds anew.
    home = replace(of_two.settings, root=str(tmp_path / "other"))
    site = replace(of_two, store=type(of_two.store)(home.root), settings=home)
    together = ranked(small_night(spec, shards=2, site=site), site)
    assert together == alone
    assert ("embed_shard", 2, 2, 1) in side_by_side
    assert ("rerank_shard", 8, 2, 1) in side_by_side


def test_little_work_is_one_piece_and_much_is_one_a_process(tmp_path: Path, of_two: Site) -> None:
    spec = write_collection(tmp_path / "topics")
    night = small_night(spec, site=of_two)
    assert night.side_by_side == 2
    assert night.fingerprint["threads"] == "1"
    assert [night.shards(rows, least=10) for rows in (0, 19, 20, 1000)] == [1, 1, 2, 2]
    asked = small_night(spec, site=of_two, shards=7)
    assert asked.shards(len(TOPICS), least=10) == 7


@pytest.mark.parametrize(
    ("variables", "at_once", "threads"),
    [
        ({}, cores(), 1),
        ({"PERANK_THREADS": "1"}, cores(), 1),
        ({"PERANK_THREADS": str(cores())}, 1, cores()),
    ],
)
def test_the_machine_says_how_many_and_perank_threads_overrules_it(
    variables: dict[str, str], at_once: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # without a GPU
    monkeypatch.delenv("PERANK_THREADS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < (cores() + 1) * 2**31:
        pytest.skip("there is too little memory for a process a core")
    assert settings.side_by_side == at_once
    piece = settings.of_a_piece
    assert (piece.threads, piece.side_by_side) == (threads, 1)
    assert piece.of_a_piece == piece
