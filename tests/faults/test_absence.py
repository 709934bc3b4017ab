"""Stores that are down at the start, go away and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from milvine.client import Client, Interaction, RpcError
from tests.servers.milvine import MilvineServer
from tests.servers.milvus import MilvusServer, free_ports

LONG_S = 180.0


@pytest.fixture
def start(tmp_path):
    """Start a server over some settings, which need not all lead to a store."""
    servers = []

    def started(settings: dict[str, str], *, until_serving: bool) -> MilvineServer:
        server = MilvineServer(tmp_path, {"MILVINE_VECTORS_TIMEOUT_S": "1"} | settings)
        servers.append(server)
        server.start(until_serving=until_serving)
        return server

    yield started
    for server in servers:
        server.kill()


async def reason_of(call: Awaitable[object]) -> tuple[str, str]:
    """The code and the reason of a call that fails."""
    with pytest.raises(RpcError) as fault:
        await call
    return fault.value.code.name, fault.value.reason


async def test_a_database_that_is_down_is_told(start):
    """Without its database the server is up and every call says what is away."""
    (port,) = free_ports(1)
    url = f"postgresql://nobody@127.0.0.1:{port}/none"
    server = start({"MILVINE_RECORDS_URL": url}, until_serving=False)

    async with Client(server.address, timeout_s=3) as client:
        answers = [
            await reason_of(client.create_catalog("films", event_types=["view"])),
            await reason_of(client.record("films", [Interaction("u", "i")])),
            await reason_of(client.recommend("films", user="u")),
        ]

    assert answers == [("UNAVAILABLE", "RECORDS_UNAVAILABLE")] * 3


async def test_a_vector_store_that_comes_goes_and_comes_back(start, tmp_path_factory):
    """Data is taken without Milvus; retrieval says it is away, and answers when it is there."""
    milvus = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server = start({"MILVINE_VECTORS_URI": milvus.uri}, until_serving=False)
    events = [Interaction(f"u{n % 20}", f"i{n * 7 % 50}") for n in range(400)]

    async with Client(server.address, timeout_s=5) as client:
        await eventually(lambda: client.create_catalog("films", event_types=["view"]))
        await client.record("films", events)
        before = await reason_of(client.recommend("films", user="u1"))
        milvus.start()
        try:
            await asyncio.to_thread(server.wait, serving=True)
            training = await client.train("films", als={"embedding_size": 4, "epochs": 2})
            model = await training.result(LONG_S)
            await (await client.publish(model.model_id)).result(LONG_S)
            served = await client.recommend("films", user="u1")
            milvus.kill()
            away = await reason_of(client.recommend("films", user="u1"))
            recorded = await client.record("films", [Interaction("u1", "while away")])
            milvus.start()
            again = await eventually(lambda: client.recommend("films", user="u1"))
        finally:
            milvus.kill()

    assert before == away == ("UNAVAILABLE", "VECTORS_UNAVAILABLE")
    assert recorded.written == 1
    assert [hit.id for hit in again.hits] == [hit.id for hit in served.hits]


async def eventually(call: Callable[[], Awaitable[object]]) -> object:
    """The answer of a call that may fail with UNAVAILABLE for a while."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                return await call()
            except RpcError as fault:
                if fault.code.name not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    raise
                await asyncio.sleep(0.2)
