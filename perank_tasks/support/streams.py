"""Tables that are larger than memory: some rows of a Parquet dataset, and no more than those.

In: a `pyarrow` dataset of Parquet files, whose rows are numbered from 0, file after file. Out:
record batches with the rows asked for, by number or by a column's values, in the dataset's
order. Row groups without such a row are not read, and what is in memory is a few row groups.

Notes: which rows have the values is found by reading that one column; of a table of embeddings
that is a hundredth of its bytes. So the rows may be in any order, and stay in that of the corpus.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

ROWS_A_GROUP = 2048
"""Rows of a row group that is to be read alone: 3 MB of embeddings with 384 values."""

GROUPS_A_READ = 16
"""Row groups fetched in one go: a request to S3 costs as much as many of them."""

ROWS_A_LOOKUP = 1 << 17
"""Values looked up at once: what is looked for is hashed once for so many."""


def share(rows: int, shards: int, shard: int) -> tuple[int, int]:
    """The numbers of a shard's first row and of the one after its last: a contiguous share."""
    return rows * shard // shards, rows * (shard + 1) // shards


def rows_between(
    dataset: ds.Dataset, columns: Sequence[str], first: int, last: int
) -> Iterator[pa.RecordBatch]:
    """The rows numbered `first` to `last - 1`."""
    for batch, numbers in _batches(dataset, columns, np.arange(first, last)):
        if len(numbers):
            yield batch.slice(int(numbers[0]), len(numbers))


def rows_at(
    dataset: ds.Dataset, columns: Sequence[str], numbers: np.ndarray
) -> Iterator[pa.RecordBatch]:
    """The rows of these numbers.

    Args:
        numbers: (n,) int64, ascending, none twice.
    """
    for batch, local in _batches(dataset, columns, numbers):
        if len(local):
            yield batch.take(pa.array(local))


def rows_with(
    dataset: ds.Dataset, columns: Sequence[str], column: str, values: Iterable[str]
) -> Iterator[pa.RecordBatch]:
    """The rows whose `column` is one of `values`; a value that is not there is passed over."""
    wanted = pa.array(sorted(values), pa.string())
    numbers, start = [], 0
    for block in _blocks(dataset, column):
        here = pc.is_in(block, value_set=wanted).to_numpy(zero_copy_only=False)
        numbers.append(np.flatnonzero(here) + start)
        start += len(block)
    found = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    yield from rows_at(dataset, columns, found)


def in_groups(
    batches: Iterable[pa.RecordBatch], rows: int = ROWS_A_GROUP
) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows` each, the last one smaller: a batch is a row group."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count >= rows:
            whole = pa.Table.from_batches(waiting).combine_chunks()
            full = count - count % rows
            yield from whole.slice(0, full).to_batches(max_chunksize=rows)
            waiting, count = whole.slice(full).to_batches(), count - full
    if count:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


def _batches(
    dataset: ds.Dataset, columns: Sequence[str], numbers: np.ndarray
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Batches of the row groups that hold these rows, and where in each batch they are."""
    start = 0
    for fragment in dataset.get_fragments():
        groups, kept, skipped = [], [], start
        for group in fragment.row_groups:
            end = start + group.num_rows
            low, high = np.searchsorted(numbers, (start, end))
            if low < high:
                groups.append(group.id)
                kept.append(numbers[low:high] - skipped)
            else:
                skipped += group.num_rows
            start = end
        local = np.concatenate(kept) if kept else np.empty(0, np.int64)
        begin = 0
        for i in range(0, len(groups), GROUPS_A_READ):
            part = fragment.subset(row_group_ids=groups[i : i + GROUPS_A_READ])
            for batch in part.to_batches(columns=list(columns), batch_readahead=2):
                low, high = np.searchsorted(local, (begin, begin + batch.num_rows))
                yield batch, local[low:high] - begin
                begin += batch.num_rows


def _blocks(dataset: ds.Dataset, column: str) -> Iterator[pa.ChunkedArray]:
    """One column, in order, in blocks of many rows."""
    waiting: list[pa.Array] = []
    rows = 0
    for batch in dataset.to_batches(columns=[column], batch_readahead=4, fragment_readahead=1):
        waiting.append(batch.column(0))
        rows += batch.num_rows
        if rows >= ROWS_A_LOOKUP:
            yield pa.chunked_array(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.chunked_array(waiting)
