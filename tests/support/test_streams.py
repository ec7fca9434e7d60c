"""Some rows of a Parquet table: against the whole table in memory, for any files and row groups."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from perank_tasks.support import streams
from perank_tasks.support.streams import in_groups, rows_at, rows_between, rows_with

FILES = st.lists(st.lists(st.integers(0, 7), max_size=5), min_size=1, max_size=3)
"""Rows of each row group of each file."""


def write(folder: Path, files: list[list[int]]) -> tuple[ds.Dataset, pa.Table]:
    """A dataset of such files with the columns `id` and `n`, and all its rows."""
    schema = pa.schema([("id", pa.string()), ("n", pa.int64())])
    paths, tables, start = [], [], 0
    for number, groups in enumerate(files):
        path = folder / f"{number}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for rows in groups:
                n = list(range(start, start + rows))
                batch = pa.record_batch([[f"p{i * 37 % 101}" for i in n], n], schema=schema)
                writer.write_batch(batch)
                tables.append(pa.Table.from_batches([batch]))
                start += rows
        paths.append(str(path))
    whole = pa.concat_tables(tables) if tables else schema.empty_table()
    return ds.dataset(paths, schema=schema, format="parquet"), whole


def numbers(batches: list[pa.RecordBatch]) -> list[int]:
    return [n for batch in batches for n in batch["n"].to_pylist()]


@settings(max_examples=60, deadline=None)
@given(FILES, st.data())
def test_rows_come_by_number_and_by_value(files: list[list[int]], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        dataset, whole = write(Path(folder), files)
        rows = whole.num_rows
        first = data.draw(st.integers(0, rows))
        last = data.draw(st.integers(first, rows))
        assert numbers(list(rows_between(dataset, ["n"], first, last))) == list(range(first, last))
        some = sorted(data.draw(st.sets(st.integers(0, rows - 1)))) if rows else []
        assert numbers(list(rows_at(dataset, ["n"], np.array(some, np.int64)))) == some
        wanted = {f"p{i}" for i in data.draw(st.sets(st.integers(0, 110)))}
        found = list(rows_with(dataset, ["id", "n"], "id", wanted))
        expected = [row for row in whole.to_pylist() if row["id"] in wanted]
        assert [row for batch in found for row in batch.to_pylist()] == expected


def test_more_row_groups_than_one_read_fetches(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(streams, "GROUPS_A_READ", 2)
    monkeypatch.setattr(streams, "ROWS_A_LOOKUP", 4)
    dataset, whole = write(tmp_path, [[3] * 9, [2] * 5])
    assert numbers(list(rows_between(dataset, ["n"], 2, 33))) == list(range(2, 33))
    wanted = set(whole["id"].to_pylist()[::5])
    found = numbers(list(rows_with(dataset, ["n"], "id", wanted)))
    assert found == [
        n for i, n in zip(*(whole[c].to_pylist() for c in ("id", "n")), strict=True) if i in wanted
    ]


def test_row_groups_without_a_wanted_row_are_not_read(tmp_path: Path) -> None:
    dataset, whole = write(tmp_path, [[4, 4, 4, 4]])
    path = Path(dataset.files[0])
    # Spoil the values of every row group but the second.
    content = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    for group in (0, 2, 3):
        column = metadata.row_group(group).column(1)
        begin = column.dictionary_page_offset or column.data_page_offset
        content[begin : begin + column.total_compressed_size] = b"\xff" * (
            column.total_compressed_size
        )
    path.write_bytes(content)
    wanted = set(whole["id"].to_pylist()[5:7])
    assert numbers(list(rows_with(dataset, ["n"], "id", wanted))) == [5, 6]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 6))
def test_batches_are_regrouped(sizes: list[int], rows: int) -> None:
    values = iter(range(100))
    batches = [pa.record_batch({"n": [next(values) for _ in range(size)]}) for size in sizes]
    groups = list(in_groups((b for b in batches if b.num_rows), rows))
    assert numbers(groups) == list(range(sum(sizes)))
    assert all(group.num_rows == rows for group in groups[:-1])
    assert all(0 < group.num_rows <= rows for group in groups)
