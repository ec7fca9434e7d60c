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
    return rows_at(dataset, columns, np.arange(first, last))


def rows_with(
    dataset: ds.Dataset, columns: Sequence[str], column: str, values: Iterable[str]
) -> Iterator[pa.RecordBatch]:
    """The rows whose `column` is one of `values`; a value that is not there is passed over."""
    wanted = pa.array(sorted(values), pa.string())
    cells = dataset.to_batches(columns=[column], batch_readahead=4, fragment_readahead=1)
    numbers, start = [np.empty(0, np.int64)], 0
    for block in in_groups(cells, ROWS_A_LOOKUP):
        is_wanted = pc.is_in(block.column(0), value_set=wanted).to_numpy(zero_copy_only=False)
        numbers.append(np.flatnonzero(is_wanted) + start)
        start += block.num_rows
    return rows_at(dataset, columns, np.concatenate(numbers))


def rows_at(
    dataset: ds.Dataset, columns: Sequence[str], numbers: np.ndarray
) -> Iterator[pa.RecordBatch]:
    """The rows of these numbers.

    Args:
        numbers: (n,) int64, ascending, none twice.
    """
    start = 0
    for fragment in dataset.get_fragments():
        groups, kept, skipped = [], [np.empty(0, np.int64)], start
        for group in fragment.row_groups:
            end = start + group.num_rows
            low, high = np.searchsorted(numbers, (start, end))
            if low < high:
                groups.append(group.id)
                kept.append(numbers[low:high] - skipped)
            else:
                skipped += group.num_rows
            start = end
        yield from _take(fragment, groups, columns, np.concatenate(kept))


def _take(
    fragment: ds.ParquetFileFragment, groups: list[int], columns: Sequence[str], places: np.ndarray
) -> Iterator[pa.RecordBatch]:
    """The rows at these places of a file's row groups, counted from the first of them."""
    begin = 0
    for i in range(0, len(groups), GROUPS_A_READ):
        part = fragment.subset(row_group_ids=groups[i : i + GROUPS_A_READ])
        for batch in part.to_batches(columns=list(columns), batch_readahead=2):
            low, high = np.searchsorted(places, (begin, begin + batch.num_rows))
            if low < high:
                yield batch.take(pa.array(places[low:high] - begin))
            begin += batch.num_rows


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
