"""The vector store: collections in any Milvus, built, searched, read and changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pymilvus.grpc_gen import milvus_pb2 as pb

from milvine.domain.catalog import Field, IndexKind
from milvine.domain.entity import FieldValue
from milvine.domain.filter import LITE, MILVUS, Dialect
from milvine.domain.hit import Found
from milvine.vectors import building, expressions, indexes, reading, writing
from milvine.vectors.connection import Connection
from milvine.vectors.engine import Engine
from milvine.vectors.reading import Queries
from milvine.vectors.spec import CollectionSpec, Row
from milvine.vectors.writing import Batch

__all__ = ["CollectionSpec", "Row", "Vectors"]


class Vectors:
    """Collections of vectors in one Milvus.

    Every method raises Unavailable where the server does not answer, DeadlineExceeded where
    it takes longer than `timeout_s`, and CollectionMissing. Reads see writes a moment after they
    were acknowledged; `strong` ones at once, by any process, and wait for that moment.
    """

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._connection = connection
        self._engine = engine

    @classmethod
    async def connect(
        cls, uri: str, *, token: str = "", database: str = "", timeout_s: float = 10.0
    ) -> Self:
        """Connect to a Milvus at `http(s)://host:port`, or to a Lite process at `unix:…`."""
        connection = Connection(uri, token=token, database=database)
        try:
            version = await connection.hello(timeout_s=timeout_s)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, Engine(is_lite=not version))

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    @property
    def dialect(self) -> Dialect:
        """What filter expressions the server understands."""
        return LITE if self._engine.is_lite else MILVUS

    @property
    def has_aliases(self) -> bool:
        """Whether the server knows aliases."""
        return self._engine.has_aliases

    def is_exact(self, spec: CollectionSpec) -> bool:
        """Whether searches scan every row, so that a short answer has all that there is."""
        return self._engine.kind(spec.index) is IndexKind.FLAT

    async def ping(self, *, timeout_s: float) -> None:
        """Return if the server answers."""
        await self._connection.hello(timeout_s=timeout_s)

    async def create(self, spec: CollectionSpec, *, timeout_s: float) -> None:
        """Create an empty collection; one of the same name is dropped first."""
        await building.create(self._connection.within(timeout_s), self._engine, spec)

    async def write(
        self,
        spec: CollectionSpec,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        fields: Sequence[Mapping[str, FieldValue]],
        *,
        fresh: bool,
        timeout_s: float,
    ) -> None:
        """Write rows; `vectors` is (n, dimension) float32.

        `fresh` says that the collection has none of the ids yet, which is cheaper; otherwise
        rows replace those of the same ids, and the last of two in one call stays. Raises
        InvalidArgument, before anything is written, for vectors that are not finite or of
        another dimension.
        """
        batch = Batch(self._engine.stored(ids), vectors, fields)
        await writing.write(
            self._connection.within(timeout_s), self._engine, spec, batch, fresh=fresh
        )

    async def delete(self, name: str, ids: Sequence[str], *, timeout_s: float) -> None:
        """Delete the rows of these ids, where there are any."""
        stored = self._engine.stored(ids)
        await writing.delete(self._connection.within(timeout_s), name, stored)

    async def seal(self, spec: CollectionSpec, *, timeout_s: float) -> None:
        """After the last write of a build: flush, index, load, and wait for each to be done."""
        await building.seal(self._connection.within(timeout_s), spec)

    async def load(self, name: str, *, timeout_s: float) -> None:
        """Put the collection into the server's memory and wait until it is there."""
        await building.load(self._connection.within(timeout_s), name)

    async def is_loaded(self, name: str, *, timeout_s: float) -> bool:
        """Whether the collection is in the server's memory; False for a missing one."""
        return await building.is_loaded(self._connection.within(timeout_s), name)

    async def drop(self, name: str, *, timeout_s: float) -> None:
        """Drop the collection, where there is one, with the aliases that point at it."""
        await building.drop(self._connection.within(timeout_s), self._engine, name)

    async def count(self, name: str, *, timeout_s: float) -> int:
        """The exact number of rows."""
        return await Queries(self._connection.within(timeout_s), name, self._engine).count()

    async def count_matching(
        self, spec: CollectionSpec, expression: str, *, timeout_s: float
    ) -> int:
        """The number of rows that match, of those that were written until a moment ago."""
        return await self._queries(spec.name, strong=False, timeout_s=timeout_s).count(expression)

    async def search(  # noqa: PLR0913 - options are named
        self,
        spec: CollectionSpec,
        vectors: NDArray[np.float32],
        *,
        limit: int,
        expression: str = "",
        without: Collection[str] = (),
        fields: Sequence[Field] = (),
        strong: bool = False,
        timeout_s: float,
    ) -> list[Found]:
        """The rows nearest to each query by inner product, best first, in one request.

        `vectors` is (q, dimension) float32; `limit` is at most 16,384; a row has to match
        `expression` where there is one, and must not be `without`. Raises InvalidArgument as
        `write` does.
        """
        writing.check_vectors(spec, vectors)
        if not len(vectors):
            return []
        if without:
            expression = expressions.none_of(expression, self._engine.stored(without))
        kind = self._engine.kind(spec.index)
        request = reading.search_request(
            spec.name,
            vectors,
            limit=limit,
            expression=expression,
            parameters=indexes.search_parameters(kind, spec.index, limit),
            fields=fields,
            strong=strong,
        )
        calls = self._connection.within(timeout_s)
        reply = await calls.send(calls.rpc.Search, request)
        return reading.found(reply.results, fields, self._engine)

    async def match(
        self,
        spec: CollectionSpec,
        *,
        expression: str,
        limit: int,
        among: Sequence[str] | None = None,
        strong: bool = False,
        timeout_s: float,
    ) -> list[str]:
        """The smallest `limit` ids of rows that match, in their order; every row for "".

        `among` narrows the look to some ids.
        """
        queries = self._queries(spec.name, strong=strong, timeout_s=timeout_s)
        if among is not None:
            expression = expressions.one_of(expression, self._engine.stored(among))
        return await queries.match(expression, limit)

    async def fetch(  # noqa: PLR0913 - options are named
        self,
        spec: CollectionSpec,
        ids: Sequence[str],
        *,
        expression: str = "",
        fields: Sequence[Field] = (),
        with_vector: bool = False,
        strong: bool = False,
        timeout_s: float,
    ) -> list[Row]:
        """The rows of these ids that exist, in no particular order.

        Of them, those that match `expression` where there is one.
        """
        queries = self._queries(spec.name, strong=strong, timeout_s=timeout_s)
        return await queries.fetch(ids, fields, expression=expression, with_vector=with_vector)

    async def point(self, alias: str, name: str, *, timeout_s: float) -> None:
        """Point an alias at a collection, new or moved; nothing where there are no aliases."""
        if self.has_aliases:
            await building.point(self._connection.within(timeout_s), alias, name)

    async def list(self, *, timeout_s: float) -> list[str]:
        """The names of all collections."""
        calls = self._connection.within(timeout_s)
        reply = await calls.send(calls.rpc.ShowCollections, pb.ShowCollectionsRequest())
        return sorted(reply.collection_names)

    def _queries(self, name: str, *, strong: bool, timeout_s: float) -> Queries:
        return Queries(self._connection.within(timeout_s), name, self._engine, strong)
