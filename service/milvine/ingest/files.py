"""Opening files: decompression, progress, and the errors of what can't be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from milvine.domain.errors import InvalidArgument
from milvine.ingest.report import Refusal
from milvine.ingest.source import Source

BLOCK_BYTES = 8 << 20
"""How much is parsed at a time: about 250,000 interactions. No row of CSV can be longer."""

Column: TypeAlias = pa.Array | list[object]
"""The values of a column: Arrow's, or Python's from JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Successive rows of a file."""

    columns: Mapping[str, Column]
    """By the file's names."""
    rows: npt.NDArray[np.int64]
    """(rows,) the places in the file, from 1; see `Refusal.row`."""
    bytes_done: int
    """How much of the file was read for it, as it lies on the disk."""
    refusals: Sequence[Refusal] = ()
    """Rows that could not be told apart into columns."""
    blank: int = 0
    has_marks: bool = False
    """Whether texts may have marks in place of bytes that are no UTF-8."""


class Reader(Protocol):
    """A file that was opened."""

    @property
    def column_names(self) -> Sequence[str]:
        """The columns that the file has; of JSONL those that were seen so far."""
        ...

    def chunks(self, wanted: Collection[str]) -> Iterator[Chunk]:
        """Yield those of the wanted columns that there are, of all rows; can be called once."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """The decompressed bytes of a file."""

    bytes: pa.NativeFile
    tell: Callable[[], int] = field(repr=False)
    """The offset in the file as it lies on the disk."""


@contextmanager
def open_stream(source: Source) -> Iterator[Stream]:
    """The bytes of the source from their beginning."""
    with pa.OSFile(str(source.path)) as raw:
        if source.compression is None:
            yield Stream(raw, raw.tell)
            return
        with pa.CompressedInputStream(raw, source.compression) as stream:
            yield Stream(stream, raw.tell)


def first_bytes(source: Source, count: int = 64) -> bytes:
    """The beginning of a text file.

    Raises:
        InvalidArgument: the file is not there, is empty, or is not in UTF-8.
    """
    with readable(source.path), open_stream(source) as stream:
        start: bytes = stream.bytes.read(count)
    if not start:
        raise InvalidArgument.at("path", f"{str(source.path)!r} is empty")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidArgument.at("path", f"{str(source.path)!r} is in UTF-16; save it as UTF-8")
    return start


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise InvalidArgument where the system or Arrow can't read the file."""
    name = repr(str(path))
    try:
        yield
    except FileNotFoundError as exc:
        raise InvalidArgument.at("path", f"there is no file {name}") from exc
    except IsADirectoryError as exc:
        raise InvalidArgument.at("path", f"{name} is a folder; name a file in it") from exc
    except PermissionError as exc:
        raise InvalidArgument.at("path", f"{name} may not be read by this user") from exc
    except (OSError, pa.ArrowException) as exc:
        raise InvalidArgument.at(
            "path", f"{name} can't be read to its end: it is cut off, damaged or of another format"
        ) from exc
