"""From the columns of a file to ours, and from faults of cells to refusals of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from milvine.ingest.columns import Mask, is_text, to_arrow
from milvine.ingest.files import Chunk
from milvine.ingest.report import Refusal, shorten
from milvine.ingest.source import Plan, Source
from milvine.ingest.utf8 import find_marks, show_marks


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """What is wrong with some cells of a column of ours."""

    column: str
    reason: str
    rows: Mask
    """(rows,) bool, of a chunk."""


def pick(chunk: Chunk, name: str, source: Source, plan: Plan) -> pa.Array:
    """The column of ours: from the file, the same text in each row, or nothing but nulls."""
    if name in source.constants:
        return pa.repeat(pa.scalar(source.constants[name], pa.string()), len(chunk.rows))
    column = chunk.columns.get(plan.columns[name])
    return pa.nulls(len(chunk.rows)) if column is None else to_arrow(column)


def cell_faults(chunk: Chunk, array: pa.Array, found: Fault) -> Iterator[Fault]:
    """Yield the fault that casting found, less the cells that are no UTF-8, and those."""
    if chunk.has_marks and is_text(array.type):
        marked = find_marks(array)
        yield Fault(found.column, "must be in UTF-8", marked)
        yield Fault(found.column, found.reason, found.rows & ~marked)
    else:
        yield found


def refusals(
    chunk: Chunk, faults: Iterable[Fault], arrays: dict[str, pa.Array]
) -> Iterator[Refusal]:
    """Yield the refusal of each cell that has a fault."""
    for fault in faults:
        for i in np.flatnonzero(fault.rows).tolist():
            yield refusal(chunk, i, fault.column, fault.reason, arrays)


def refusal(chunk: Chunk, i: int, column: str, reason: str, arrays: dict[str, pa.Array]) -> Refusal:
    """The refusal of a cell in row `i` of the chunk."""
    text = show_marks(shorten(arrays[column][i].as_py()))
    return Refusal(int(chunk.rows[i]), column, reason, text)
