"""The embedded collection: what it holds, that it is always the same, and that it is safe."""

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from perank_tasks.collections import pydocs
from perank_tasks.collections.records import CollectionData, Passage
from perank_tasks.collections.spec import open_collection
from perank_tasks.errors import CollectionError
from perank_tasks.support.text import clean_text


@pytest.fixture(scope="module")
def data() -> CollectionData:
    return open_collection("pydocs").load(date(2025, 1, 31))


@pytest.fixture(scope="module")
def passages(data: CollectionData) -> list[Passage]:
    return list(data.passages)


@pytest.fixture(scope="module")
def by_id(passages: list[Passage]) -> dict[str, Passage]:
    return {passage.passage_id: passage for passage in passages}


def test_it_is_large_and_each_text_comes_once(passages: list[Passage]) -> None:
    assert len(passages) >= 4500
    assert len({passage.passage_id for passage in passages}) == len(passages)
    assert len({passage.text for passage in passages}) == len(passages)
    topics = [passage for passage in passages if passage.passage_id.startswith("topic:")]
    assert len(topics) >= 300
    assert all(len(passage.text.split()) <= 200 for passage in topics)


def test_passages_are_of_functions_classes_methods_properties_modules_and_topics(
    by_id: dict[str, Passage],
) -> None:
    for passage_id, words in {
        "shutil.copytree": "Recursively copy a directory tree",
        "builtins.int.from_bytes": "integer represented by the given array of bytes",
        "pathlib.PurePath.suffix": "last suffix",
        "logging.handlers.RotatingFileHandler": "a certain size",
        "concurrent.futures.as_completed": "yields each as it completes",
        "os.path.join": "Join two or more pathname components",
        "typing.Optional": "Union[X, None]",
        "subprocess.run": "CompletedProcess",
        "copy": "shallow and deep",
        "contextlib.ExitStack": "dynamic management",
        "xml.etree.ElementTree.iterparse": "Incrementally parse XML",
    }.items():
        assert words in by_id[passage_id].text
        assert by_id[passage_id].title == passage_id
    exit_value = by_id["topic:context-managers#2"]
    assert exit_value.title == "context-managers: With Statement Context Managers"
    assert "should\n   return a true value" in exit_value.text


def test_a_passage_goes_by_the_name_that_programmers_import(by_id: dict[str, Passage]) -> None:
    for name, alias in {
        "asyncio.gather": "asyncio.tasks.gather",
        "builtins.open": "io.open",
        "getpass.getpass": "getpass.unix_getpass",
    }.items():
        assert alias in by_id[name].aliases
        assert alias not in by_id
    for name in ("struct.unpack", "os.mkdir", "datetime.datetime", "socket.socket"):
        assert name in by_id


def test_nothing_private_and_nothing_from_elsewhere(passages: list[Passage]) -> None:
    for passage in passages:
        for name in (passage.passage_id, *passage.aliases):
            if name.startswith("topic:"):
                continue
            parts = name.split(".")
            assert parts[0] in sys.stdlib_module_names
            for part in parts:
                assert not part.startswith("_") or re.fullmatch(r"__\w+__", part), name


def test_texts_are_clean_and_show_no_address_and_no_path_of_this_machine(
    passages: list[Passage],
) -> None:
    for passage in passages:
        text = f"{passage.title}\n{passage.text}"
        assert clean_text(text) == text
        assert not re.search(r" at 0x[0-9a-fA-F]{4,}", text), passage.passage_id
        assert str(Path.cwd()) not in text
        assert sys.prefix == "/usr" or sys.prefix not in text


def test_it_is_the_same_in_every_process_and_for_every_user(
    passages: list[Passage], tmp_path: Path
) -> None:
    code = (
        "from datetime import date; from perank_tasks.collections.spec import open_collection; "
        "from perank_tasks.support.text import text_hash; import hashlib; "
        "found = [(p.passage_id, text_hash(p.title, p.text), p.aliases) "
        "for p in open_collection('pydocs').load(date.max).passages]; "
        "print(hashlib.sha256(repr(found).encode()).hexdigest())"
    )
    digests = set()
    for seed, optimize, term in (("1", "2", "xterm"), ("2", "", "dumb")):
        environment = {
            "PYTHONHASHSEED": seed,
            "PYTHONOPTIMIZE": optimize,
            "PYTHONPATH": str(Path(pydocs.__file__).parents[2]),
            "HOME": str(tmp_path / seed),
            "TERM": term,
            "LANG": "C",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert done.stderr == ""
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_reader_prints_one_json_object_whatever_modules_print() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "default", str(pydocs.READER)],
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert found["modules"] > 300
    assert "antigravity" not in found["skipped"]  # left out before it is tried


def test_a_module_that_this_machine_lacks_is_skipped_and_counted() -> None:
    code = (
        "import runpy, sys; sys.modules['_sqlite3'] = sys.modules['_curses'] = None; "
        f"runpy.run_path({str(pydocs.READER)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", code]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert {"sqlite3", "sqlite3.dbapi2", "curses"} <= set(found["skipped"])
    names = {name for name, *_ in found["docstrings"]}
    assert "shutil.copytree" in names
    assert "sqlite3.connect" not in names


def test_reading_does_not_import_the_library_into_this_process() -> None:
    code = (
        "import sys; from perank_tasks.collections import pydocs; before = set(sys.modules); "
        "pydocs.read_documentation(); "
        "print(sorted(set(sys.modules) - before - {'_locale', 'encodings.ascii'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_fails_is_reported_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for script in ("import sys; sys.exit(3)", "print('no JSON')"):
        broken = tmp_path / "reader.py"
        broken.write_text(script)
        monkeypatch.setattr(pydocs, "READER", broken)
        with pytest.raises(CollectionError, match=r"reader\.py` to see why"):
            pydocs.read_documentation()


def test_duplicate_texts_become_aliases_of_the_best_name() -> None:
    text = "Open a file for reading."
    found = pydocs.docstring_passages(
        [
            ("aaa.reopen", False, text),
            ("io.open", False, text),
            ("builtins.open", True, text),
            ("zipfile.Path.open", True, text),
            ("x.short", True, "Too short."),
        ]
    )
    aliases = ("aaa.reopen", "io.open", "zipfile.Path.open")
    assert found == [Passage("builtins.open", text, title="builtins.open", aliases=aliases)]


def test_topics_are_cut_at_headings_then_paragraphs_then_lines() -> None:
    paragraph = "\n".join(["word " * 30 + "end"] * 3)  # 93 words
    long = "\n".join(["long " * 79 + "end"] * 6)  # 480 words
    topic = (
        f"The Statement\n*************\n\n{paragraph}\n\n{paragraph}\n\n{paragraph}\n\n"
        f"Details\n=======\n\n{long}\n"
    )
    pieces = list(pydocs.cut(topic))
    assert [(heading, len(text.split())) for heading, text in pieces] == [
        ("The Statement", 186),
        ("The Statement", 93),
        ("Details", 160),
        ("Details", 160),
        ("Details", 160),
    ]
    assert " ".join(" ".join(text for _, text in pieces).split()) == " ".join(
        " ".join([paragraph] * 3 + [long]).split()
    )


def test_a_section_that_two_topics_share_comes_once() -> None:
    section = "Calls\n*****\n\n" + "word " * 20
    found = pydocs.topic_passages({"calls": section, "also": section, "tiny": "New in 3.5."})
    assert [(passage.passage_id, passage.title, passage.aliases) for passage in found] == [
        ("topic:also#1", "also: Calls", ("topic:calls#1",))
    ]


def test_queries_are_many_distinct_and_numbered(data: CollectionData) -> None:
    assert len(data.queries) >= 90
    assert len({query.text.lower() for query in data.queries}) == len(data.queries)
    assert [query.query_id for query in data.queries] == [
        f"q{number:03}" for number in range(1, len(data.queries) + 1)
    ]
    assert data.snapshot_date is None
    assert data.relevance_level == 2


def test_judgements_fit_queries_and_grades_and_name_the_text_that_was_judged(
    data: CollectionData,
) -> None:
    assert {one.query_id for one in data.judgements} <= {query.query_id for query in data.queries}
    assert {one.relevance for one in data.judgements} <= {0, 1, 2, 3}
    assert all(one.text_hash for one in data.judgements)
