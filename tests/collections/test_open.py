"""Specs: the one string that names a collection."""

import subprocess
import sys
from pathlib import Path

import pytest

from perank_tasks.collections.files import FilesCollection
from perank_tasks.collections.pydocs import PydocsCollection
from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import ConfigError


def test_pydocs() -> None:
    collection = open_collection("pydocs")
    assert isinstance(collection, PydocsCollection)
    assert collection.name == "pydocs"


def test_files_with_every_option() -> None:
    spec = "files:/data/dl19?name=dl19&run=a+b%26c.trec&qrels=q.txt&relevance_level=2"
    assert open_collection(spec) == FilesCollection(
        Path("/data/dl19"), "dl19", qrels="q.txt", run="a+b&c.trec", relevance_level=2
    )


def test_files_are_named_after_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scifact").mkdir()
    monkeypatch.chdir(tmp_path / "scifact")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_collection("files:.").name == "scifact"
    assert open_collection("files:~/scifact") == FilesCollection(tmp_path / "scifact", "scifact")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("pydoc", "expected pydocs or files or ir_datasets. Did you mean pydocs?"),
        ("file:/data", "Did you mean files?"),
        ("", "expected pydocs or files"),
        ("pydocs:3.11", "takes no path"),
        ("pydocs?name=x", "name: there is no such option"),
        ("files:", "expected a folder"),
        ("files:/data?nmae=x", "Did you mean name?"),
        ("files:/data?run=", "run: String should have at least 1 character"),
        ("files:/data?relevance_level=high", "relevance_level: Input should be a valid integer"),
        ("files:/data?relevance_level=0", "greater than or equal to 1"),
        ("files:/my data", "collection name 'my data'"),
        ("files:/data?name=../x", "collection name '../x'"),
        (f"files:/data?name={'x' * 101}", "100 at most"),
        ("files:/data?name='; DROP TABLE runs;--", "expected letters, digits"),
    ],
)
def test_what_is_wrong_with_a_spec_is_said_before_anything_is_read(
    spec: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        open_collection(spec)
    assert complaint in str(error.value)


def test_opening_a_collection_imports_nothing_heavy() -> None:
    code = (
        "import sys; from perank_tasks.collections.spec import open_collection; "
        "open_collection('pydocs'); open_collection('files:/x'); "
        "print([name for name in ('pyarrow', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
