"""Rows in: batches of the size that the engine takes best, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pymilvus.grpc_gen import milvus_pb2 as pb

from milvine.domain.entity import FieldValue
from milvine.domain.errors import InvalidArgument
from milvine.vectors import columns, expressions
from milvine.vectors.connection import Calls, Message
from milvine.vectors.engine import Engine
from milvine.vectors.spec import CollectionSpec

_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""An eighth of what a server takes by default; a row of the largest values may exceed it."""
_DELETE_BATCH = 1_000


def check_vectors(spec: CollectionSpec, vectors: NDArray[np.float32]) -> None:
    """Raise InvalidArgument for vectors that the collection can't hold or be searched with."""
    if vectors.ndim != 2 or vectors.shape[1] != spec.dimension:
        found = "x".join(map(str, vectors.shape[1:])) or "none"
        raise InvalidArgument.at("vector", f"must have {spec.dimension} dimensions, has {found}")
    if not np.isfinite(vectors).all():
        raise InvalidArgument.at("vector", "must be finite")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as parallel columns; `vectors` is (n, dimension) float32."""

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    fields: Sequence[Mapping[str, FieldValue]]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.vectors) == len(self.fields):
            raise ValueError("ids, vectors and fields are of different lengths")

    def part(self, start: int, stop: int) -> Batch:
        """Some of the rows."""
        return Batch(self.ids[start:stop], self.vectors[start:stop], self.fields[start:stop])

    def latest(self) -> Batch:
        """The rows without those that a later row of the same id replaces."""
        kept = sorted({id_: row for row, id_ in enumerate(self.ids)}.values())
        if len(kept) == len(self.ids):
            return self
        return Batch(
            [self.ids[row] for row in kept], self.vectors[kept], [self.fields[row] for row in kept]
        )


async def write(
    calls: Calls,
    engine: Engine,
    spec: CollectionSpec,
    batch: Batch,
    *,
    fresh: bool,
) -> None:
    """Insert (fresh) or upsert rows; the batch's ids are as stored.

    All is checked before anything is sent: on Lite an upsert that fails deletes the rows.
    """
    check_vectors(spec, batch.vectors)
    rows = batch if fresh else batch.latest()
    method, kind = (
        (calls.rpc.Insert, pb.InsertRequest) if fresh else (calls.rpc.Upsert, pb.UpsertRequest)
    )
    size = engine.rows_at_once
    for at in range(0, len(rows.ids), size):
        for request in _requests(kind, spec, rows.part(at, at + size)):
            await calls.send(method, request)


async def delete(calls: Calls, name: str, ids: Sequence[str]) -> None:
    """Delete the rows of these ids, as stored."""
    for at in range(0, len(ids), _DELETE_BATCH):
        some = expressions.id_in(ids[at : at + _DELETE_BATCH])
        request = pb.DeleteRequest(collection_name=name, expr=some)
        await calls.send(calls.rpc.Delete, request)


def _requests(kind: type[Message], spec: CollectionSpec, batch: Batch) -> Iterator[Message]:
    """The request for some rows, or several where one would be too large for a message."""
    request = kind(
        collection_name=spec.name,
        fields_data=columns.encode(batch.ids, batch.vectors, spec.fields, batch.fields),
        num_rows=len(batch.ids),
    )
    half = len(batch.ids) // 2
    if request.ByteSize() <= _MAX_MESSAGE_BYTES or not half:
        yield request
        return
    yield from _requests(kind, spec, batch.part(0, half))
    yield from _requests(kind, spec, batch.part(half, len(batch.ids)))
