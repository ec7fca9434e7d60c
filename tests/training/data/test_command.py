"""`perank train data`, as a person types it."""

import re
from pathlib import Path

from tests.small import GOLDEN, write_collection
from tests.typed import perank


def test_lists_are_made_and_named_for_the_next_command(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    options = [
        *("--collections", spec, "--embedder", f"checkpoint:{GOLDEN}"),
        *("--hard", "4", "--random", "2", "--depth", "8"),
        *("--terms", "topics=Ours, and free, for all"),
    ]
    done = perank("train", "data", *options)
    assert done.returncode == 0, done.stderr
    reference = done.stdout.splitlines()[0]
    assert re.fullmatch(r"training_data/topics/[0-9a-f]{16}", reference)
    assert "  examples: 5\n" in done.stdout
    assert "terms of topics: Ours, and free, for all" in done.stdout
    assert done.stdout.rstrip().endswith(f"next: perank train rank --data {reference}")
    assert perank("train", "data", *options).stdout == done.stdout

    aligned = perank("train", "data", "--stage", "alignment", *options[:4])
    assert aligned.returncode == 0, aligned.stderr
    assert "  examples: 40\n" in aligned.stdout
    assert "next: perank train align --data training_data/topics/" in aligned.stdout


def test_help_teaches_and_mistakes_are_explained() -> None:
    text = perank("train", "data", "--help").stdout
    for word in ("--teacher", "--drop-evaluation-queries", "--reference-jsonl", "cross-encoder"):
        assert word in text
    done = perank("train", "data", "--collections", "pydocs", "--teacher", "cosin")
    assert done.returncode == 1
    assert "there is no scorer 'cosin'" in done.stderr
    assert "Did you mean cosine?" in done.stderr
