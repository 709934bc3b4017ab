"""Parquet: columns with types of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow.parquet as pq

from milvine.domain.errors import InvalidArgument
from milvine.ingest.files import Chunk, first_bytes, readable
from milvine.ingest.source import Source

_BATCH_ROWS = 250_000


class ParquetReader:
    """A Parquet file."""

    def __init__(self, source: Source) -> None:
        if source.compression:
            raise InvalidArgument.at(
                "path", "is Parquet inside another compression; decompress it first"
            )
        first_bytes(source)
        self._path = source.path
        with readable(source.path), pq.ParquetFile(source.path) as file:
            self.column_names = tuple(file.schema_arrow.names)

    def chunks(self, wanted: Collection[str]) -> Iterator[Chunk]:
        """Yield the wanted columns as Arrow's arrays."""
        wanted = [name for name in self.column_names if name in wanted]
        done = 0
        size = self._path.stat().st_size
        with readable(self._path), pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                rows = np.arange(done + 1, done + batch.num_rows + 1)
                done += batch.num_rows
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield Chunk(columns, rows, size * done // file.metadata.num_rows)
