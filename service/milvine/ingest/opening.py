"""Choosing the reader of a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from milvine.ingest.delimited import DelimitedReader
from milvine.ingest.files import Reader
from milvine.ingest.jsonl import JsonlReader
from milvine.ingest.parquet import ParquetReader
from milvine.ingest.source import Format, Source


def open_reader(source: Source, needed: Sequence[Collection[str]]) -> Reader:
    """The reader of the source, which has read until it saw what is needed.

    Args:
        source: the file.
        needed: collections of names, of each of which the file must have one.

    Raises:
        InvalidArgument: the file is not there, is empty, or is of another format.
    """
    match source.known_format:
        case Format.PARQUET:
            return ParquetReader(source)
        case Format.JSONL:
            return JsonlReader(source, needed)
        case _:
            return DelimitedReader(source)
