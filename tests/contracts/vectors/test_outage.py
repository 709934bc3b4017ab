"""A Milvus that is down, goes away, comes back or hangs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from milvine.domain.errors import DeadlineExceeded, Reason, Unavailable
from milvine.vectors import Vectors
from tests.contracts.vectors.conftest import SOON, Library
from tests.contracts.vectors.relay import Relay, relayed
from tests.servers.milvus import free_ports


@pytest.fixture
async def relay(uri: str):
    async with relayed(uri) as link:
        yield link


@pytest.fixture
async def remote(relay: Relay):
    """The store through the relay."""
    store = await Vectors.connect(relay.uri, timeout_s=SOON)
    yield store
    await store.close()


async def until_it_works(call: Callable[[], Awaitable[object]]) -> None:
    """Call until it no longer raises Unavailable, for a limited time."""
    end = time.monotonic() + 20
    while True:
        try:
            await call()
        except Unavailable:
            assert time.monotonic() < end, "it stays unavailable"
        else:
            return


async def test_a_server_that_is_not_there_is_unavailable_in_time():
    """Connecting to a closed port fails within its timeout."""
    (port,) = free_ports(1)
    begin = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await Vectors.connect(f"http://127.0.0.1:{port}", timeout_s=0.5)
    assert caught.value.reason is Reason.VECTORS_UNAVAILABLE
    assert time.monotonic() - begin < 3


async def test_a_store_that_goes_away_is_unavailable_and_comes_back(
    relay: Relay, remote: Vectors, library: Library
):
    """The same object works again once the server does."""

    async def search() -> None:
        await remote.search(library.spec, library.vectors[:1], limit=3, timeout_s=SOON)

    await search()
    await relay.cut()
    begin = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await search()
        assert caught.value.reason is Reason.VECTORS_UNAVAILABLE
    assert time.monotonic() - begin < 10
    await relay.mend()
    await until_it_works(search)


async def test_a_store_that_hangs_exceeds_the_deadline(
    relay: Relay, remote: Vectors, library: Library
):
    """Every call ends by its timeout, though the connection stays open."""
    relay.stall()
    spec = library.spec
    calls: list[Awaitable[object]] = [
        remote.ping(timeout_s=0.2),
        remote.search(spec, library.vectors[:1], limit=3, timeout_s=0.2),
        remote.fetch(spec, ["book-1"], timeout_s=0.2),
        remote.match(spec, expression="", limit=3, timeout_s=0.2),
        remote.count(spec.name, timeout_s=0.2),
        remote.write(spec, ["x"], library.vectors[:1], [{}], fresh=False, timeout_s=0.2),
        remote.seal(spec, timeout_s=0.2),
    ]
    for call in calls:
        begin = time.monotonic()
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await call
        assert time.monotonic() - begin < 3
