"""`perank train align` and `perank train rank`, as a person types them."""

from pathlib import Path

import pytest

from perank_tasks.perank import PERank
from tests.small import GOLDEN, write_collection
from tests.typed import perank

FEW = [
    *("--set", "max_steps=4", "--set", "eval_steps=2", "--set", "ridge_passages=36"),
    *("--hold-out", "0.2"),
]


@pytest.mark.long
def test_from_a_collection_to_a_checkpoint(base: Path, cache: Path, tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    made = [
        *("train", "data", "--collections", spec, "--embedder", f"checkpoint:{GOLDEN}"),
        *("--terms", "topics=Ours, and free"),
    ]
    passages = perank(*made, "--stage", "alignment").stdout.splitlines()[0]
    lists = perank(*made, "--hard", "4", "--random", "2", "--depth", "8").stdout.splitlines()[0]

    first = ["train", "align", "--data", passages, "--set", f"base_model={base}", *FEW]
    aligned = perank(*first, "--out", str(tmp_path / "aligned"))
    assert aligned.returncode == 0, aligned.stderr
    assert "4 of 4 steps" in aligned.stdout
    assert "with shuffled embeddings; difference" in aligned.stdout
    assert f"--start {tmp_path}/aligned/checkpoint" in aligned.stdout

    second = ["train", "rank", "--data", lists, "--start", str(tmp_path / "aligned/checkpoint")]
    second += [*FEW, "--set", "num_layers=2"]
    ranked = perank(*second, "--out", str(tmp_path / "ranked"))
    assert ranked.returncode == 0, ranked.stderr
    checkpoint = tmp_path / "ranked" / "checkpoint"
    assert f"next: perank nightly --set perank.checkpoint={checkpoint}" in ranked.stdout
    assert (tmp_path / "ranked" / "curves.png").is_file()
    assert perank(*second, "--out", str(tmp_path / "ranked")).stdout == ranked.stdout
    config = (checkpoint / "config.json").read_text()
    assert lists in config
    assert "Ours, and free" in config
    engine = PERank.from_pretrained(checkpoint, cache=cache, device="cpu")
    assert engine.needs_query_embedding

    other = perank(*second, "--set", "seed=2", "--out", str(tmp_path / "ranked"))
    assert other.returncode == 1
    assert "recipe.seed was 1, is 2" in other.stderr
    wrong = perank("train", "rank", "--data", passages, "--out", str(tmp_path / "wrong"))
    assert wrong.returncode == 1
    assert "is data for alignment" in wrong.stderr
    assert not (tmp_path / "wrong").exists()


def test_help_teaches_every_hyper_parameter() -> None:
    text = perank("train", "rank", "--help").stdout
    for word in ("kl_scaling", "summed over steps", "step_weights", "--start"):
        assert word in text
    assert "accelerate launch -m perank_tasks.cli train rank" in text
    assert "ridge regression" in perank("train", "align", "--help").stdout


def test_mistakes_are_explained_before_anything_is_written(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    for words, said in (
        (["--set", "learning_rat=1"], "Did you mean learning_rate or"),
        (["--preset", "tinny"], "'paper', 'tiny' or 'feedback'"),
        (["--data", "training_data/none/0"], "training_data/none/0"),
    ):
        done = perank("train", "rank", "--data", "training_data/none/0", "--out", out, *words)
        assert done.returncode == 1
        assert said in done.stderr
    assert not (tmp_path / "run").exists()
