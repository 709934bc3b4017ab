"""Subjects and ids as bytes, as few as cost little to make."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milvine.models.vocabulary import Vocabulary
from milvine.retrieval.people import Person
from milvine.retrieval.ranking import NO_ROWS, Rows

LONG = 4_096
"""More seen items than these take some milliseconds."""
_SUBJECT = struct.Struct("<III")
"""Dimensions of the vector and of the reader, bytes of the seen rows."""
_PLAIN = b"\0"
_COMPRESSED = b"\1"
_WORTH_IT = 1_024
"""So many bytes and more are compressed."""


def pack_subject(person: Person, items: Vocabulary) -> bytes:
    """A person as bytes: the vectors, and the seen items that the release has, in no order."""
    vector, reader = _pack_vector(person.vector), _pack_vector(person.reader)
    rows = _known(list(set(person.seen)), items)
    seen = _pack_set(rows[rows < items.fixed])
    later = pack_ids(items.take(rows[rows >= items.fixed]))
    head = _SUBJECT.pack(len(vector) // 4, len(reader) // 4, len(seen))
    return b"".join((head, vector, reader, seen, later))


def unpack_subject(data: bytes, items: Vocabulary) -> Person:
    """The person of bytes that `pack_subject` made."""
    dimension, read, seen_bytes = _SUBJECT.unpack_from(data)
    vectors = np.frombuffer(data, "<f4", dimension + read, _SUBJECT.size).astype(np.float32)
    start = _SUBJECT.size + vectors.nbytes
    seen = items.take(_unpack_set(data[start : start + seen_bytes]))
    later = unpack_ids(data[start + seen_bytes :])
    return Person(
        vectors[:dimension] if dimension else None,
        (*seen, *later),
        vectors[dimension:] if read else None,
    )


def _pack_vector(vector: NDArray[np.float32] | None) -> bytes:
    return b"" if vector is None else vector.astype("<f4", copy=False).tobytes()


def pack_ids(ids: Sequence[str]) -> bytes:
    """Ids as bytes; U+0000 is in none."""
    return _compressed("\0".join(ids).encode()) if ids else b""


def unpack_ids(data: bytes) -> list[str]:
    """The ids of bytes that `pack_ids` made."""
    return _restored(data).decode().split("\0") if data else []


def _known(ids: Sequence[str], items: Vocabulary) -> Rows:
    """The rows of ids; in parts, for each is found faster so than by a look at all items."""
    parts = [items.rows(ids[start : start + LONG]) for start in range(0, len(ids), LONG)]
    rows = parts[0] if len(parts) == 1 else np.concatenate([NO_ROWS, *parts])
    return rows[rows >= 0]


def _pack_set(rows: Rows) -> bytes:
    """Rows in any order as bytes: the steps from one to the next higher, which are small."""
    ordered = np.sort(rows)
    steps = ordered.copy()
    steps[1:] -= ordered[:-1]
    return _compressed(steps.astype("<i4", copy=False).tobytes())


def _unpack_set(data: bytes) -> Rows:
    """The rows of bytes that `_pack_set` made, ascending."""
    return np.cumsum(np.frombuffer(_restored(data), "<i4"), dtype=np.int32)


def _compressed(data: bytes) -> bytes:
    return _PLAIN + data if len(data) < _WORTH_IT else _COMPRESSED + zlib.compress(data, level=1)


def _restored(data: bytes) -> bytes:
    return data[1:] if data[:1] == _PLAIN else zlib.decompress(data[1:])
