"""Collections as wholes: create, seal, load, drop."""

from __future__ import annotations

from pymilvus.grpc_gen import common_pb2 as common
from pymilvus.grpc_gen import milvus_pb2 as pb
from pymilvus.grpc_gen.schema_pb2 import CollectionSchema

from milvine.vectors import columns, indexes
from milvine.vectors.connection import Calls
from milvine.vectors.engine import Engine
from milvine.vectors.errors import CollectionMissing, VectorsFault
from milvine.vectors.spec import CollectionSpec


async def create(calls: Calls, engine: Engine, spec: CollectionSpec) -> None:
    """Create an empty collection with its index; one of the same name is dropped first."""
    await drop(calls, engine, spec.name)
    schema = CollectionSchema(
        name=spec.name, fields=columns.schema(spec.dimension, spec.fields, id_bytes=engine.id_bytes)
    )
    request = pb.CreateCollectionRequest(
        collection_name=spec.name,
        schema=schema.SerializeToString(),
        shards_num=1,
        consistency_level=common.Bounded,
    )
    await calls.send(calls.rpc.CreateCollection, request)
    await _declare_index(calls, engine, spec)


async def drop(calls: Calls, engine: Engine, name: str) -> None:
    """Drop the collection where there is one, with the aliases that point at it."""
    if engine.has_aliases:  # from 2.5.5 on Milvus refuses to drop what an alias points at
        for alias in await _aliases(calls, name):
            await calls.send(calls.rpc.DropAlias, pb.DropAliasRequest(alias=alias))
    request = pb.DropCollectionRequest(collection_name=name)
    await calls.send(calls.rpc.DropCollection, request)


async def seal(calls: Calls, spec: CollectionSpec) -> None:
    """Make what was written durable and indexed, then load it."""
    await _flush(calls, spec.name)
    while not await _is_indexed(calls, spec.name):
        await calls.pause()
    await load(calls, spec.name)


async def load(calls: Calls, name: str) -> None:
    """Put the collection into the server's memory and wait until it answers from there."""
    request = pb.LoadCollectionRequest(collection_name=name, replica_number=1)
    await calls.send(calls.rpc.LoadCollection, request)
    while not await is_loaded(calls, name):
        await calls.pause()


async def is_loaded(calls: Calls, name: str) -> bool:
    """Whether the whole collection is in the server's memory."""
    request = pb.GetLoadStateRequest(collection_name=name)
    reply = await calls.send(calls.rpc.GetLoadState, request)
    return bool(reply.state == common.LoadStateLoaded)


async def _flush(calls: Calls, name: str) -> None:
    request = pb.FlushRequest(collection_names=[name])
    reply = await calls.send(calls.rpc.Flush, request)
    segments = list(reply.coll_segIDs[name].data)
    question = pb.GetFlushStateRequest(
        collection_name=name, segmentIDs=segments, flush_ts=reply.coll_flush_ts[name]
    )
    while segments:  # Lite names none: it has written all that it acknowledged
        state = await calls.send(calls.rpc.GetFlushState, question)
        if state.flushed:
            return
        await calls.pause()


async def _declare_index(calls: Calls, engine: Engine, spec: CollectionSpec) -> None:
    """Say which index to build: before the rows, so that their flush starts the build.

    Of indexes declared at one moment on flushed rows, a server may notice only the first, and the
    others up to a minute later.
    """
    parameters = indexes.build_parameters(engine.kind(spec.index), spec.index)
    request = pb.CreateIndexRequest(
        collection_name=spec.name,
        field_name=columns.VECTOR,
        index_name=columns.VECTOR,
        extra_params=columns.pairs(parameters),
    )
    await calls.send(calls.rpc.CreateIndex, request)


async def _is_indexed(calls: Calls, name: str) -> bool:
    request = pb.DescribeIndexRequest(collection_name=name, index_name=columns.VECTOR)
    reply = await calls.send(calls.rpc.DescribeIndex, request)
    (index,) = reply.index_descriptions
    if index.state == common.Failed:
        raise VectorsFault
    return bool(index.state == common.Finished and not index.pending_index_rows)


async def _aliases(calls: Calls, name: str) -> list[str]:
    request = pb.DescribeCollectionRequest(collection_name=name)
    try:
        reply = await calls.send(calls.rpc.DescribeCollection, request)
    except CollectionMissing:
        return []
    return list(reply.aliases)


async def point(calls: Calls, alias: str, name: str) -> None:
    """Move an alias to the collection, or create it there."""
    try:
        move = pb.AlterAliasRequest(alias=alias, collection_name=name)
        await calls.send(calls.rpc.AlterAlias, move)
    except VectorsFault:  # there is none to move
        create_ = pb.CreateAliasRequest(alias=alias, collection_name=name)
        await calls.send(calls.rpc.CreateAlias, create_)
