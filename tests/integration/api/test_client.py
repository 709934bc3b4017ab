"""The client against the real servicers over SQLite."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import grpc
import pytest

from milvine.client import Client, Interaction, Item, RpcError, User
from milvine.domain.catalog import EventType
from milvine.domain.model import EpochReport, ModelConfig
from milvine.domain.operation import Failure, OperationState
from milvine.domain.progress import TrainProgress, TrainStage, TuneProgress, TuneStage
from milvine.domain.tuning import Trial
from milvine.jobs.payloads import EraseUserResult, TuneResult, to_json
from milvine.models import families
from milvine.v1 import (
    catalog_pb2,
    interaction_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)

NUMBERS = count()
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
EMPTY = model_pb2.ModelConfig()
FIELDS = {
    "title": "STRING",
    "year": "INT64",
    "score": "DOUBLE",
    "free": "BOOL",
    "added": "TIMESTAMP",
    "genres": "STRING_LIST",
    "tags": "INT64_LIST",
}
VALUES = {
    "title": "Amélie",
    "year": 2001,
    "score": 8.3,
    "free": False,
    "added": NOW,
    "genres": ["Comedy", "Romance"],
    "tags": [1, -(2**63)],
}


@pytest.fixture
async def catalog_id(api):
    """A catalog of its own for each test."""
    name = f"films{next(NUMBERS)}"
    rating = catalog_pb2.EventType(
        name="rating", value_meaning=catalog_pb2.EventType.VALUE_MEANING_RATING
    )
    await api.client.create_catalog(
        name, event_types=["view", rating], item_fields=FIELDS, user_fields={"age": "INT64"}
    )
    return name


async def failed(call):
    """The error of a call."""
    with pytest.raises(RpcError) as raised:
        await call
    return raised.value


async def test_catalogs(api, catalog_id):
    """A catalog is created once, got, changed, and listed."""
    client = api.client
    catalog = await client.get_catalog(catalog_id)
    assert [f.name for f in catalog.item_fields] == list(FIELDS)
    error = await failed(client.create_catalog(catalog_id, event_types=["view"]))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    catalog.display_name = "Films"
    assert (await client.update_catalog(catalog, ["display_name"])).display_name == "Films"
    assert catalog_id in [c.catalog_id async for c in client.catalogs()]


async def test_update_that_loses_a_field(api, catalog_id):
    """A change that loses a declared field is refused, and nothing changes."""
    catalog = await api.client.get_catalog(catalog_id)
    del catalog.item_fields[0]
    error = await failed(api.client.update_catalog(catalog))
    assert (error.code, error.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "INCOMPATIBLE_DECLARATION",
    )
    assert len((await api.client.get_catalog(catalog_id)).item_fields) == len(FIELDS)


async def test_items(api, catalog_id):
    """Items are written in any number, got, listed by id and deleted."""
    client = api.client
    items = [Item("full", VALUES), *(Item(f"{i:05}") for i in range(1_200))]
    assert await client.upsert_items(catalog_id, items) == 1_201
    full = await client.get_item(catalog_id, "full")
    assert full.fields == VALUES
    assert full.create_time == full.update_time
    listed = [item.id async for item in client.items(catalog_id)]
    assert listed == [*(f"{i:05}" for i in range(1_200)), "full"]
    found = await client.get_items(catalog_id, ["full", "nope", "00001"])
    assert [item.id for item in found] == ["full", "00001"]
    assert await client.delete_items(catalog_id, ["full", "nope"]) == 1
    error = await failed(client.get_item(catalog_id, "full"))
    assert (error.reason, error.metadata) == ("ITEM_NOT_FOUND", {"item_id": "full"})


async def test_users(api, catalog_id):
    """Users are written from an asynchronous source, got and listed."""

    async def source():
        yield User("Ünal \n1", {"age": 30})
        yield User("2")

    client = api.client
    assert await client.upsert_users(catalog_id, source()) == 2
    assert (await client.get_user(catalog_id, "Ünal \n1")).fields == {"age": 30}
    assert [user.id async for user in client.users(catalog_id)] == ["2", "Ünal \n1"]
    assert [user.id for user in await client.get_users(catalog_id, ["2"])] == ["2"]
    assert await client.delete_users(catalog_id, ["2"]) == 1


async def test_record(api, catalog_id):
    """Interactions are written once, and listed latest first over pages."""
    events = [
        Interaction("u", f"i{n}", "view", event_time=NOW + timedelta(seconds=n), event_id=f"e{n}")
        for n in range(1_500)
    ]
    first = await api.client.record(catalog_id, events)
    again = await api.client.record(catalog_id, events)
    assert (first.written, first.duplicates) == (1_500, 0)
    assert (again.written, again.duplicates) == (0, 1_500)
    listed = [event async for event in api.client.interactions(catalog_id, "u")]
    assert listed == events[::-1]


async def test_record_fills_the_time(api, catalog_id):
    """An interaction without id and time gets one of the client, which may repeat the call."""
    await api.client.record(catalog_id, [Interaction("u", "i", "rating", 4.5)])
    [event] = [event async for event in api.client.interactions(catalog_id, "u")]
    assert event.value == 4.5
    assert abs(event.event_time - datetime.now(UTC)) < timedelta(minutes=1)


async def test_stream(api, catalog_id):
    """A stream acknowledges each batch in order."""
    events = (
        interaction_pb2.Interaction(user_id="u", item_id=str(n), event_type="view")
        for n in range(25)
    )
    acks = [
        ack.written
        async for ack in api.client.stream_interactions(catalog_id, events, batch_size=10)
    ]
    assert acks == [10, 10, 5]


async def test_stream_with_a_bad_batch(api, catalog_id):
    """A bad batch ends the stream with its fault; what was acknowledged stays."""
    events = [Interaction("u", str(n), "view") for n in range(20)] + [Interaction("u", "")]
    acks = []

    async def stream():
        async for ack in api.client.stream_interactions(catalog_id, events, batch_size=10):
            acks.append(ack)  # noqa: PERF401 - an error keeps those before it

    error = await failed(stream())
    assert [ack.written for ack in acks] == [10, 10]
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [
        "interactions[0].item_id",
        "interactions[0].event_type",
    ]
    assert len([e async for e in api.client.interactions(catalog_id, "u")]) == 20


async def test_stream_answers_before_the_next_batch(api, catalog_id):
    """A client that waits for each acknowledgement gets it."""
    acknowledged = asyncio.Queue()

    async def source():
        for n in range(3):
            yield Interaction("u", str(n), "view")
            await asyncio.wait_for(acknowledged.get(), 10)

    stream = api.client.stream_interactions(catalog_id, source(), batch_size=1)
    acks = []
    async for ack in stream:
        acks.append(ack.written)
        acknowledged.put_nowait(ack)
    assert acks == [1, 1, 1]


async def test_declared_elsewhere(api, catalog_id):
    """An event type that another process declares is taken at once."""
    events = [Interaction("u", "i", "view")]
    assert (await api.client.record(catalog_id, events)).written == 1
    api.records.catalogs.update(
        catalog_id, lambda old: replace(old, event_types=(*old.event_types, EventType("skip")))
    )
    later = [Interaction("u", "i", "skip")]
    assert (await api.client.record(catalog_id, later)).written == 1


async def test_deleted_elsewhere(api, catalog_id):
    """A catalog that another process deleted takes nothing more."""
    assert (await api.client.record(catalog_id, [Interaction("u", "i", "view")])).written == 1
    api.records.catalogs.delete(catalog_id, force=True)
    error = await failed(api.client.record(catalog_id, [Interaction("u", "j", "view")]))
    assert error.reason == "CATALOG_NOT_FOUND"


async def test_train(api, catalog_id):
    """A training is queued once a catalog; its progress and its end are told."""
    client, operations = api.client, api.records.operations
    training = await client.train(catalog_id, als={"epochs": 3, "regularization": 0}, holdout={})
    error = await failed(client.train(catalog_id, als={}))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "OPERATION_IN_PROGRESS")
    row = operations.get(training.name.removeprefix("operations/"))
    assert row.request["config"]["settings"]["epochs"] == 3
    assert operations.claim("w", lease_s=60).id == row.id
    news = training.watch()
    assert (await anext(news)).stage == ""
    progress = TrainProgress(TrainStage.FITTING, 0.5)
    operations.heartbeat(row.id, "w", lease_s=60, progress=to_json(progress))
    assert [(p.stage, p.progress) for p in [await anext(news)]] == [("FITTING", 0.5)]
    await training.cancel()
    operations.finish(row.id, "w", state=OperationState.CANCELLED)
    assert [p async for p in news] == []
    error = await failed(training.result())
    assert (error.code, error.reason) == (grpc.StatusCode.CANCELLED, "OPERATION_CANCELLED")


async def test_tune(api, catalog_id):
    """A search is queued once a catalog; its progress and what it found are told."""
    client, operations = api.client, api.records.operations
    searching = await client.tune(
        catalog_id, {"als": {"epochs": 3}}, {"embedding_size": (8, 64, "log")}, trial_count=2
    )
    error = await failed(client.tune(catalog_id, {"als": {}}, {"embedding_size": [8, 16]}))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "OPERATION_IN_PROGRESS")
    name = searching.name.removeprefix("operations/")
    assert operations.claim("w", lease_s=60).id == name
    trials = (Trial(1, {"embedding_size": 64}, 1.0, 0.5), Trial(2, {"embedding_size": 8}, 1.0, 0.4))
    progress = to_json(TuneProgress(TuneStage.TRYING, 0.5, trials[:1]))
    operations.heartbeat(name, "w", lease_s=60, progress=progress)
    news = await anext(searching.watch())
    assert (news.stage, [trial.value for trial in news.trials]) == ("TRYING", [0.5])
    best = ModelConfig("als", {"embedding_size": 64, "epochs": 3})
    result = to_json(TuneResult(trials, best))
    operations.finish(name, "w", state=OperationState.SUCCEEDED, result=result)
    found = await searching.result()
    assert (found.best_trial.number, found.best_config.als.embedding_size) == (1, 64)
    assert [trial.settings["embedding_size"] for trial in found.trials] == [64, 8]
    with pytest.raises(ValueError, match="no metric"):
        await client.tune(catalog_id, {"als": {}}, {"epochs": (1, 9)}, metric="loss")
    with pytest.raises(ValueError, match="is looked for in"):
        await client.tune(catalog_id, {"als": {}}, {"epochs": (1, 9, "cube")})


@pytest.mark.parametrize("family", families)
async def test_train_each_family(api, catalog_id, family):
    """A family is asked for by its name, with its settings or as a message; the rest defaults."""
    kind = model_pb2.ModelConfig.DESCRIPTOR.fields_by_name[family].message_type._concrete_class
    config = model_pb2.ModelConfig(**{family: kind(epochs=3)})
    for given in ({family: {"epochs": 3}}, {family: kind(epochs=3)}, {"config": config}):
        training = await api.client.train(catalog_id, **given)
        row = api.records.operations.get(training.name.removeprefix("operations/"))
        settings = families[family].config({"epochs": 3})
        assert row.request["config"] == {"family": family, "settings": asdict(settings)}
        await training.cancel()


async def test_train_in_several_processes(api, catalog_id):
    """A training asks for as many as it says, one by default, and errors name who can have more."""
    for given, asked in (({}, 1), ({"process_count": 0}, 1), ({"process_count": 64}, 64)):
        training = await api.client.train(catalog_id, bpr={}, **given)
        row = api.records.operations.get(training.name.removeprefix("operations/"))
        assert row.request["process_count"] == asked
        await training.cancel()
    error = await failed(api.client.train(catalog_id, als={}, process_count=2))
    assert "must be 1 for als, is 2; several processes can train bpr, softmax_mf" in error.message


@pytest.mark.parametrize("given", [{}, {"als": {}, "bpr": {}}, {"als": {}, "config": EMPTY}])
async def test_one_family(api, given):
    """A training is of exactly one family."""
    with pytest.raises(ValueError, match="only one"):
        await api.client.train("films", **given)


async def test_watch_training(api, catalog_id):
    """A watcher is told every epoch, past ones at once, also when the training has ended."""
    training = await api.client.train(catalog_id, als={})
    row = api.records.operations.claim("w", lease_s=60)
    fits = [tuple(EpochReport(n + 1, count, 0.5, 0.1) for n in range(count)) for count in (2, 3)]
    progress = to_json(TrainProgress(TrainStage.SAVING, 0.9, *fits))
    api.records.operations.heartbeat(row.id, "w", lease_s=60, progress=progress)
    api.records.operations.finish(row.id, "w", state=OperationState.CANCELLED)
    stub = model_service_pb2_grpc.ModelServiceStub(api.channel)
    request = model_service_pb2.WatchTrainingRequest(operation_name=training.name)
    epochs = [news.epoch.epoch async for news in stub.WatchTraining(request)]
    assert epochs == [1, 2, 1, 2, 3, 0]


async def test_failed_operation(api, catalog_id):
    """An operation that failed raises what it failed with."""
    training = await api.client.train(catalog_id, ratings_mf={})
    operation_id = training.name.removeprefix("operations/")
    assert api.records.operations.claim("w", lease_s=60).id == operation_id
    failure = Failure("FAILED_PRECONDITION", "NO_TRAINING_DATA", "no ratings", {"catalog_id": "x"})
    api.records.operations.finish(operation_id, "w", state=OperationState.FAILED, failure=failure)
    error = await failed(training.result(timeout_s=10))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (error.reason, error.message) == ("NO_TRAINING_DATA", "no ratings")
    assert error.metadata == {"catalog_id": "x"}


async def test_erase_user(api, catalog_id):
    """Erasures of one catalog don't exclude each other, and end in a receipt."""
    one = await api.client.erase_user(catalog_id, "1")
    other = await api.client.erase_user(catalog_id, "2")
    waiting = asyncio.create_task(one.result(timeout_s=10))
    for _ in range(2):
        row = api.records.operations.claim("w", lease_s=60)
        result = to_json(EraseUserResult(had_metadata=True, interaction_count=2, erase_time=NOW))
        api.records.operations.finish(row.id, "w", state=OperationState.SUCCEEDED, result=result)
    assert (await waiting).interaction_count == 2
    assert (await other.result()).had_metadata


async def test_result_times_out(api, catalog_id):
    """A wait for an operation ends when it should, and the operation goes on."""
    training = await api.client.train(catalog_id, als={})
    with pytest.raises(TimeoutError):
        await training.result(timeout_s=0.2)
    assert not (await training.get()).done
    await training.cancel()


async def test_operations_are_listed(api, catalog_id):
    """Operations are listed, newest first."""
    first = await api.client.erase_user(catalog_id, "1")
    second = await api.client.erase_user(catalog_id, "2")
    names = [operation.name async for operation in api.client.operations()]
    assert names.index(second.name) < names.index(first.name)
    for operation in (first, second):
        await operation.cancel()


async def test_request_id(api):
    """An error knows the id under which the service logged it."""
    error = await failed(api.client.get_catalog("nope"))
    assert error.reason == "CATALOG_NOT_FOUND"
    assert error.request_id
    assert "CATALOG_NOT_FOUND" in str(error)


async def test_unreachable():
    """A service that is not there raises UNAVAILABLE without a reason, at the latest in time."""
    async with Client("127.0.0.1:1", timeout_s=2) as client:
        error = await failed(client.get_catalog("films"))
    assert error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert error.reason == ""


def test_one_subject(api):
    """A recommendation is for exactly one subject."""
    for given in ({}, {"user": "1", "history": ["a"]}):
        call = api.client.recommend("films", **given)
        with pytest.raises(ValueError, match="only one"):
            call.send(None)
