"""What the client does with calls that fail and values that travel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import milvine.client
from milvine.api.calls import Calls
from milvine.api.interceptors import Interceptor
from milvine.client import Client, Interaction, Item, RpcError, requests, types
from milvine.domain.errors import Reason, Unavailable
from milvine.v1 import (
    catalog_pb2,
    catalog_service_pb2_grpc,
    interaction_pb2,
    item_service_pb2,
)
from milvine.v1 import item_service_pb2_grpc as items_grpc

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.one_of(
    TEXTS,
    INT64,
    st.floats(allow_nan=False),
    st.booleans(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(TEXTS, min_size=1),
    st.lists(INT64, min_size=1),
)


class Flaky(catalog_service_pb2_grpc.CatalogServiceServicer, items_grpc.ItemServiceServicer):
    """A service whose database is away at the first calls."""

    def __init__(self):
        self.calls = 0

    async def GetCatalog(self, request, _):  # noqa: N802 - named by the protos
        return self._answer(catalog_pb2.Catalog(catalog_id=request.catalog_id))

    async def CreateCatalog(self, request, _):  # noqa: N802 - named by the protos
        return self._answer(request.catalog)

    async def UpsertItems(self, request, _):  # noqa: N802 - named by the protos
        return self._answer(item_service_pb2.UpsertItemsResponse(item_count=len(request.items)))

    def _answer(self, message):
        self.calls += 1
        if self.calls < 3:
            raise Unavailable("the database does not answer", Reason.RECORDS_UNAVAILABLE)
        return message


@pytest.fixture
async def flaky():
    """A service that is away at the first two calls, and a client to it."""
    servicer = Flaky()
    interceptor = Interceptor(Calls(CollectorRegistry(), timeout_s=10))
    server = grpc.aio.server(interceptors=[interceptor])
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(servicer, server)
    items_grpc.add_ItemServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address, timeout_s=20) as client:
        yield servicer, client
    await server.stop(None)


async def test_reads_are_repeated(flaky):
    """A call that may be repeated is, until the service is back."""
    servicer, client = flaky
    assert (await client.get_catalog("films")).catalog_id == "films"
    assert servicer.calls == 3


async def test_large_writes_are_repeated(flaky):
    """A write that may be repeated is, however large."""
    servicer, client = flaky
    items = [Item(str(n), {"title": "x" * 10_000}) for n in range(100)]
    assert await client.upsert_items("films", items) == 100
    assert servicer.calls == 3


async def test_creations_are_not_repeated(flaky):
    """A call that must not be repeated is made once, and says why it failed."""
    servicer, client = flaky
    with pytest.raises(RpcError) as raised:
        await client.create_catalog("films", event_types=["view"])
    assert servicer.calls == 1
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.reason == "RECORDS_UNAVAILABLE"


@given(VALUES)
def test_value_round_trip(value):
    """Values survive the way out and in."""
    assert types.python_values({"x": types.value_message(value)}) == {"x": value}


def test_time_without_zone():
    """A time without a zone is taken as UTC."""
    message = types.timestamp(datetime(2026, 1, 2))  # noqa: DTZ001 - the point of the test
    assert types.moment(message) == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "string_list"),
        ([1.5, 2], "double_list"),
        (("a",), "string_list"),
    ],
)
def test_lists(values, kind):
    """A list takes the kind of its elements."""
    assert types.value_message(values).WhichOneof("kind") == kind


def test_types_of_fields():
    """Types of fields are read in any case; one that there is not is told with those there are."""
    [field] = requests.fields({"year": "int64"})
    assert field == catalog_pb2.Field(name="year", type=catalog_pb2.Field.TYPE_INT64)
    with pytest.raises(ValueError, match="'text' is no type of a field; there are: STRING, INT64"):
        requests.fields({"title": "text"})


RAW = interaction_pb2.Interaction(user_id="u", item_id="i", value=3)


@pytest.mark.parametrize("event", [Interaction("u", "i", value=3), RAW])
def test_stamped(event):
    """An interaction without id and time gets the time of now, on a copy of the caller's own."""
    [message] = requests.interactions([event])
    assert datetime.now(UTC) - types.moment(message.event_time) < timedelta(minutes=1)
    assert (message.user_id, message.item_id, message.value) == ("u", "i", 3)
    assert not RAW.HasField("event_time")


@pytest.mark.parametrize(
    "event",
    [
        Interaction("u", "i", event_id="e"),
        interaction_pb2.Interaction(user_id="u", item_id="i", event_id="e"),
        Interaction("u", "i", event_time=datetime(1970, 1, 1, tzinfo=UTC)),
        interaction_pb2.Interaction(user_id="u", item_id="i", event_time=Timestamp()),
    ],
)
def test_not_stamped(event):
    """An interaction that an id or a time names already keeps what it has."""
    [message] = requests.interactions([event])
    assert (message.event_id, message.HasField("event_time")) in (("e", False), ("", True))
    assert message.event_time == Timestamp()


def test_exports():
    """The package exports what it says, in order."""
    assert milvine.client.__all__ == sorted(milvine.client.__all__)
    assert all(hasattr(milvine.client, name) for name in milvine.client.__all__)
