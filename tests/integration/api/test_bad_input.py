"""Bad input at the edge: each gets its code, a reason and the field, and nothing is written."""

from __future__ import annotations

import math

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rpc_status

from milvine.api.convert.catalogs import new_catalog
from milvine.client import User
from milvine.v1 import (
    catalog_pb2,
    catalog_service_pb2,
    interaction_pb2,
    interaction_service_pb2,
    item_pb2,
    item_service_pb2,
    model_pb2,
    model_service_pb2,
    ranking_pb2,
    release_service_pb2,
    retrieval_service_pb2,
    tuning_pb2,
    user_service_pb2,
    value_pb2,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
FILMS = catalog_pb2.Catalog(
    catalog_id="films",
    item_fields=[
        catalog_pb2.Field(name="year", type=catalog_pb2.Field.TYPE_INT64),
        catalog_pb2.Field(name="score", type=catalog_pb2.Field.TYPE_DOUBLE),
    ],
    event_types=[
        catalog_pb2.EventType(name="view"),
        catalog_pb2.EventType(name="rating", value_meaning=2),
    ],
)
_MODULES = {
    "CatalogService": catalog_service_pb2,
    "ItemService": item_service_pb2,
    "UserService": user_service_pb2,
    "InteractionService": interaction_service_pb2,
    "ModelService": model_service_pb2,
    "ReleaseService": release_service_pb2,
    "RetrievalService": retrieval_service_pb2,
}


@pytest.fixture(autouse=True)
def films(api_records):
    """The catalog of these tests, without items or interactions."""
    if not api_records.catalogs.list(limit=1_000, after="film"):
        request = catalog_service_pb2.CreateCatalogRequest(catalog=FILMS)
        api_records.catalogs.create(new_catalog(request))


async def refusal(channel, method, data):
    """Code, reason and fields of the error that bytes get from a method."""
    call = channel.unary_unary(f"/{method}")(data, timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status = await rpc_status.from_call(call)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return raised.value.code(), info.reason, [v.field for v in bad.field_violations]


def item(item_id="1", **fields):
    """A request to write an item."""
    return item_service_pb2.UpsertItemsRequest(
        catalog_id="films", items=[item_pb2.Item(item_id=item_id, fields=fields)]
    )


def event(**changes):
    """A request to record an interaction."""
    given = {"user_id": "u", "item_id": "i", "event_type": "view"} | changes
    return interaction_service_pb2.RecordInteractionsRequest(
        catalog_id="films", interactions=[interaction_pb2.Interaction(**given)]
    )


def recommend(**fields):
    """A request for recommendations to a user."""
    subject = retrieval_service_pb2.Subject(user_id="u")
    return retrieval_service_pb2.RecommendRequest(
        **({"catalog_id": "films", "subject": subject} | fields)
    )


def search(**fields):
    """A request for items by what they say."""
    return {"catalog_id": "films", "query": "a film"} | fields


ANYONE = {"user_id": "u"}
VALUE = value_pb2.Value


def tune(name="embedding_size", low=16, high=64, **fields):
    """A search for a setting of ALS."""
    searched = tuning_pb2.SearchedSetting(
        name=name, range=tuning_pb2.NumberRange(low=low, high=high)
    )
    return {"catalog_id": "films", "config": {"als": {}}, "space": [searched]} | fields


CASES = [
    ("CatalogService/GetCatalog", {"catalog_id": ""}, INVALID, "INVALID_FIELD", ["catalog_id"]),
    (
        "CatalogService/GetCatalog",
        {"catalog_id": "x" * 257},
        INVALID,
        "INVALID_FIELD",
        ["catalog_id"],
    ),
    ("CatalogService/GetCatalog", {"catalog_id": "nope"}, MISSING, "CATALOG_NOT_FOUND", []),
    ("CatalogService/CreateCatalog", {}, INVALID, "INVALID_FIELD", ["catalog"]),
    ("CatalogService/ListCatalogs", {"page_size": -1}, INVALID, "INVALID_FIELD", ["page_size"]),
    (
        "CatalogService/ListCatalogs",
        {"page_token": "x"},
        INVALID,
        "INVALID_PAGE_TOKEN",
        ["page_token"],
    ),
    (
        "CatalogService/DeleteCatalog",
        {"catalog_id": "a\0"},
        INVALID,
        "INVALID_FIELD",
        ["catalog_id"],
    ),
    ("ItemService/UpsertItems", item(""), INVALID, "INVALID_FIELD", ["items[0].item_id"]),
    ("ItemService/UpsertItems", item("x" * 257), INVALID, "INVALID_FIELD", ["items[0].item_id"]),
    ("ItemService/UpsertItems", item("a\0"), INVALID, "INVALID_FIELD", ["items[0].item_id"]),
    (
        "ItemService/UpsertItems",
        item(nope=VALUE(int64_value=1)),
        INVALID,
        "INVALID_FIELD",
        ["items[0].fields.nope"],
    ),
    (
        "ItemService/UpsertItems",
        item(year=VALUE(string_value="1990")),
        INVALID,
        "INVALID_FIELD",
        ["items[0].fields.year"],
    ),
    (
        "ItemService/UpsertItems",
        item(year=VALUE()),
        INVALID,
        "INVALID_FIELD",
        ["items[0].fields.year"],
    ),
    (
        "ItemService/UpsertItems",
        item(score=VALUE(double_value=math.nan)),
        INVALID,
        "INVALID_FIELD",
        ["items[0].fields.score"],
    ),
    (
        "ItemService/UpsertItems",
        item(score=VALUE(double_value=-math.inf)),
        INVALID,
        "INVALID_FIELD",
        ["items[0].fields.score"],
    ),
    (
        "ItemService/UpsertItems",
        {"catalog_id": "nope", "items": [{"item_id": "1"}]},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    ("ItemService/UpsertItems", {"catalog_id": "films"}, INVALID, "INVALID_FIELD", ["items"]),
    (
        "ItemService/UpsertItems",
        {"catalog_id": "films", "items": [{"item_id": str(i)} for i in range(1_001)]},
        INVALID,
        "INVALID_FIELD",
        ["items"],
    ),
    (
        "ItemService/GetItem",
        {"catalog_id": "films", "item_id": "nope"},
        MISSING,
        "ITEM_NOT_FOUND",
        [],
    ),
    (
        "ItemService/GetItem",
        {"catalog_id": "nope", "item_id": "1"},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    ("ItemService/ListItems", {"catalog_id": "nope"}, MISSING, "CATALOG_NOT_FOUND", []),
    (
        "ItemService/BatchGetItems",
        {"catalog_id": "films", "item_ids": ["a", ""]},
        INVALID,
        "INVALID_FIELD",
        ["item_ids[1]"],
    ),
    ("ItemService/DeleteItems", {"catalog_id": "films"}, INVALID, "INVALID_FIELD", ["item_ids"]),
    (
        "UserService/GetUser",
        {"catalog_id": "films", "user_id": "nope"},
        MISSING,
        "USER_NOT_FOUND",
        [],
    ),
    (
        "UserService/EraseUser",
        {"catalog_id": "nope", "user_id": "1"},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    ("UserService/EraseUser", {"catalog_id": "films"}, INVALID, "INVALID_FIELD", ["user_id"]),
    (
        "InteractionService/RecordInteractions",
        event(user_id=""),
        INVALID,
        "INVALID_FIELD",
        ["interactions[0].user_id"],
    ),
    (
        "InteractionService/RecordInteractions",
        event(item_id="é" * 129),
        INVALID,
        "INVALID_FIELD",
        ["interactions[0].item_id"],
    ),
    (
        "InteractionService/RecordInteractions",
        event(event_type="nope"),
        INVALID,
        "INVALID_FIELD",
        ["interactions[0].event_type"],
    ),
    (
        "InteractionService/RecordInteractions",
        event(event_type="rating", value=math.nan),
        INVALID,
        "INVALID_FIELD",
        ["interactions[0].value"],
    ),
    (
        "InteractionService/RecordInteractions",
        event(event_time=Timestamp(seconds=2**62)),
        INVALID,
        "INVALID_FIELD",
        ["interactions[0].event_time"],
    ),
    (
        "InteractionService/RecordInteractions",
        {"catalog_id": "films"},
        INVALID,
        "INVALID_FIELD",
        ["interactions"],
    ),
    (
        "InteractionService/RecordInteractions",
        {"catalog_id": "films", "interactions": [{}] * 10_001},
        INVALID,
        "INVALID_FIELD",
        ["interactions"],
    ),
    (
        "InteractionService/RecordInteractions",
        {"catalog_id": "nope", "interactions": [{}]},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    (
        "InteractionService/ListInteractions",
        {"catalog_id": "nope", "user_id": "1"},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    (
        "ModelService/TrainModel",
        {"catalog_id": "nope", "config": {"als": {}}},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    ("ModelService/TrainModel", {"catalog_id": "films"}, INVALID, "INVALID_FIELD", ["config"]),
    (
        "ModelService/TrainModel",
        {"catalog_id": "films", "config": {"als": model_pb2.AlsConfig(epochs=0)}},
        INVALID,
        "INVALID_FIELD",
        ["config.als.epochs"],
    ),
    (
        "ModelService/TrainModel",
        {
            "catalog_id": "films",
            "config": {"als": {}},
            "holdout": model_pb2.Holdout(method="METHOD_GIVEN", event_types=["nope"]),
        },
        INVALID,
        "INVALID_FIELD",
        ["holdout.event_types[0]"],
    ),
    (
        "ModelService/TrainModel",
        {"catalog_id": "films", "config": {"two_tower": model_pb2.TwoTowerConfig(patience=-1)}},
        INVALID,
        "INVALID_FIELD",
        ["config.two_tower.patience"],
    ),
    (
        "ModelService/TrainModel",
        {"catalog_id": "films", "config": {"two_tower": model_pb2.TwoTowerConfig(item_fields="?")}},
        INVALID,
        "INVALID_FIELD",
        ["config.two_tower.item_fields"],
    ),
    (
        "ModelService/TrainModel",
        {
            "catalog_id": "films",
            "config": {"two_tower": model_pb2.TwoTowerConfig(user_fields="nope,")},
        },
        INVALID,
        "INVALID_FIELD",
        ["config.two_tower.user_fields"],
    ),
    (
        "ModelService/TrainModel",
        {
            "catalog_id": "films",
            "config": {"two_tower": model_pb2.TwoTowerConfig(field_dropout=1.0)},
        },
        INVALID,
        "INVALID_FIELD",
        ["config.two_tower.field_dropout"],
    ),
    (
        "ModelService/TrainModel",
        {"catalog_id": "films", "config": {"sasrec": model_pb2.SasRecConfig(heads=3)}},
        INVALID,
        "INVALID_FIELD",
        ["config.sasrec.heads"],
    ),
    *(
        (
            "ModelService/TrainModel",
            {"catalog_id": "films", "config": {family: {}}, "process_count": count},
            INVALID,
            "INVALID_FIELD",
            ["process_count"],
        )
        for family, count in (("bpr", -1), ("bpr", 65), ("als", 2), ("ratings_mf", 64))
    ),
    (
        "ModelService/TuneModel",
        {"catalog_id": "nope", "config": {"als": {}}},
        MISSING,
        "CATALOG_NOT_FOUND",
        [],
    ),
    ("ModelService/TuneModel", tune(space=[]), INVALID, "INVALID_FIELD", ["space"]),
    ("ModelService/TuneModel", tune(name="nope"), INVALID, "INVALID_FIELD", ["space[0].name"]),
    (
        "ModelService/TuneModel",
        tune(low=32, high=16),
        INVALID,
        "INVALID_FIELD",
        ["space[0].range.high"],
    ),
    (
        "ModelService/TuneModel",
        tune(low=0, high=16),
        INVALID,
        "INVALID_FIELD",
        ["space[0].range.low"],
    ),
    (
        "ModelService/TuneModel",
        tune(trial_count=501),
        INVALID,
        "INVALID_FIELD",
        ["trial_count"],
    ),
    (
        "ModelService/TuneModel",
        tune(holdout=model_pb2.Holdout(method=model_pb2.Holdout.METHOD_NONE)),
        INVALID,
        "INVALID_FIELD",
        ["holdout.method"],
    ),
    ("ModelService/GetModel", {"model_id": "nope"}, MISSING, "MODEL_NOT_FOUND", []),
    ("ModelService/EvaluateModel", {}, INVALID, "INVALID_FIELD", ["model_id"]),
    ("ModelService/EvaluateModel", {"model_id": "nope"}, MISSING, "MODEL_NOT_FOUND", []),
    (
        "ModelService/EvaluateModel",
        {"model_id": "m", "release_id": "a\0"},
        INVALID,
        "INVALID_FIELD",
        ["release_id"],
    ),
    ("ReleaseService/PublishModel", {"model_id": "nope"}, MISSING, "MODEL_NOT_FOUND", []),
    ("ReleaseService/GetRelease", {"release_id": "nope"}, MISSING, "RELEASE_NOT_FOUND", []),
    *(
        ("RetrievalService/SearchItems", search(**given), INVALID, "INVALID_FIELD", [field])
        for given, field in [
            ({"catalog_id": ""}, "catalog_id"),
            ({"query": ""}, "query"),
            ({"query": " \n"}, "query"),
            ({"query": "a\0b"}, "query"),
            ({"query": "ä" * 2_049}, "query"),
            ({"page_size": -1}, "page_size"),
            ({"release_id": "a\0"}, "release_id"),
            ({"consistency": 7}, "consistency"),
            ({"exclude_item_ids": [""]}, "exclude_item_ids[0]"),
            ({"return_fields": ["*", "year"]}, "return_fields"),
            ({"exclude_seen": True}, "exclude_seen"),
            ({"subject": {}}, "subject"),
            ({"reciprocal_rank": {}}, "reciprocal_rank"),
            ({"weights": {"text": 1}}, "weights"),
            ({"subject": ANYONE, "reciprocal_rank": {"k": 0}}, "reciprocal_rank.k"),
            ({"subject": ANYONE, "reciprocal_rank": {"k": math.nan}}, "reciprocal_rank.k"),
            ({"subject": ANYONE, "weights": {}}, "weights"),
            ({"subject": ANYONE, "weights": {"text": -1}}, "weights.text"),
            ({"subject": ANYONE, "weights": {"personal": math.inf}}, "weights.personal"),
        ]
    ),
    ("RetrievalService/Recommend", recommend(subject=None), INVALID, "INVALID_FIELD", ["subject"]),
    (
        "RetrievalService/Recommend",
        recommend(page_size=-1),
        INVALID,
        "INVALID_FIELD",
        ["page_size"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(consistency=7),
        INVALID,
        "INVALID_FIELD",
        ["consistency"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(release_id="x" * 257),
        INVALID,
        "INVALID_FIELD",
        ["release_id"],
    ),
    (
        "RetrievalService/SimilarUsers",
        {"catalog_id": "films", "user_id": "u", "release_id": "a\0"},
        INVALID,
        "INVALID_FIELD",
        ["release_id"],
    ),
    (
        "RetrievalService/PopularItems",
        {"catalog_id": "films", "page_size": -1},
        INVALID,
        "INVALID_FIELD",
        ["page_size"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(ranking=ranking_pb2.Ranking(boosts=[ranking_pb2.Boost(factor=math.nan)])),
        INVALID,
        "INVALID_FIELD",
        ["ranking.boosts[0].factor"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(ranking=ranking_pb2.Ranking(diversity=ranking_pb2.Diversity(relevance=2))),
        INVALID,
        "INVALID_FIELD",
        ["ranking.diversity.relevance"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(exclude_item_ids=[""]),
        INVALID,
        "INVALID_FIELD",
        ["exclude_item_ids[0]"],
    ),
    (
        "RetrievalService/BatchRecommend",
        {"catalog_id": "films"},
        INVALID,
        "INVALID_FIELD",
        ["subjects"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(subject={"examples": {}}),
        INVALID,
        "INVALID_FIELD",
        ["subject.examples.positives"],
    ),
    (
        "RetrievalService/Recommend",
        recommend(subject={"examples": {"positives": [{"item_id": "i", "weight": math.nan}]}}),
        INVALID,
        "INVALID_FIELD",
        ["subject.examples.positives[0].weight"],
    ),
    (
        "RetrievalService/RankItems",
        {"catalog_id": "films", "item_ids": ["i"]},
        INVALID,
        "INVALID_FIELD",
        ["subject"],
    ),
    (
        "RetrievalService/RankItems",
        {"catalog_id": "films", "subject": {"user_id": "u"}},
        INVALID,
        "INVALID_FIELD",
        ["item_ids"],
    ),
    (
        "RetrievalService/RankItems",
        {"catalog_id": "films", "subject": {"user_id": "u"}, "item_ids": ["i"] * 10_001},
        INVALID,
        "INVALID_FIELD",
        ["item_ids"],
    ),
    (
        "RetrievalService/FindAudience",
        {"catalog_id": "films"},
        INVALID,
        "INVALID_FIELD",
        ["item_id"],
    ),
    (
        "RetrievalService/FindAudience",
        {"catalog_id": "films", "item_id": "i", "page_size": -1},
        INVALID,
        "INVALID_FIELD",
        ["page_size"],
    ),
    (
        "RetrievalService/SimilarItems",
        {"catalog_id": "films", "item_id": "1", "page_size": -2},
        INVALID,
        "INVALID_FIELD",
        ["page_size"],
    ),
    (
        "RetrievalService/GetEmbeddings",
        {"catalog_id": "films"},
        INVALID,
        "INVALID_FIELD",
        ["item_ids"],
    ),
]


@pytest.mark.parametrize(
    ("method", "fields", "code", "reason", "paths"),
    CASES,
    ids=[f"{method.partition('/')[2]}-{i}" for i, (method, *_) in enumerate(CASES)],
)
async def test_refused(api, method, fields, code, reason, paths):
    """Bad input gets its canonical code, its reason and the path of the field."""
    service, _, name = method.partition("/")
    kind = getattr(_MODULES[service], f"{name}Request")
    request = kind(**fields) if isinstance(fields, dict) else fields
    found = await refusal(api.channel, f"milvine.v1.{method}", request.SerializeToString())
    assert found == (code, reason, paths)


async def test_nothing_half_written(api):
    """A batch with one bad element leaves nothing behind."""
    items = item_service_pb2.UpsertItemsRequest(
        catalog_id="films", items=[item_pb2.Item(item_id="good"), item_pb2.Item(item_id="")]
    )
    events = event()
    events.interactions.add(user_id="", item_id="i", event_type="view")
    data = (items.SerializeToString(), events.SerializeToString())
    await refusal(api.channel, "milvine.v1.ItemService/UpsertItems", data[0])
    await refusal(api.channel, "milvine.v1.InteractionService/RecordInteractions", data[1])
    assert [i async for i in api.client.items("films")] == []
    assert [e async for e in api.client.interactions("films", "u")] == []


@pytest.mark.parametrize(
    "method",
    [
        "milvine.v1.CatalogService/GetCatalog",
        "milvine.v1.ItemService/GetItem",
        "milvine.v1.RetrievalService/Recommend",
        "google.longrunning.Operations/GetOperation",
    ],
)
async def test_not_utf8(api, method):
    """An id that is not UTF-8 is the caller's fault."""
    found = await refusal(api.channel, method, b"\x0a\x02\xff\xfe")
    assert found == (INVALID, "MALFORMED_REQUEST", ["request"])


@pytest.mark.parametrize(
    ("name", "code", "reason", "paths"),
    [
        ("operations/nope", MISSING, "OPERATION_NOT_FOUND", []),
        ("nope", INVALID, "INVALID_FIELD", ["name"]),
    ],
)
@pytest.mark.parametrize("method", ["Get", "Wait", "Cancel", "Delete"])
async def test_operation_names(api, method, name, code, reason, paths):
    """An operation that is not there is told from a name that can't be one."""
    request = operations_pb2.GetOperationRequest(name=name)
    path = f"google.longrunning.Operations/{method}Operation"
    assert await refusal(api.channel, path, request.SerializeToString()) == (code, reason, paths)


async def test_foreign_page_token(api):
    """A page token is refused for other arguments than those it was given for."""
    for user in "ab":
        await api.client.upsert_users("films", [User(f"{user}{n}") for n in range(3)])
    request = user_service_pb2.ListUsersRequest(catalog_id="films", page_size=1)
    answer = await api.channel.unary_unary(
        "/milvine.v1.UserService/ListUsers",
        request_serializer=user_service_pb2.ListUsersRequest.SerializeToString,
        response_deserializer=user_service_pb2.ListUsersResponse.FromString,
    )(request)
    foreign = item_service_pb2.ListItemsRequest(
        catalog_id="films", page_token=answer.next_page_token
    )
    found = await refusal(
        api.channel, "milvine.v1.ItemService/ListItems", foreign.SerializeToString()
    )
    assert found == (INVALID, "INVALID_PAGE_TOKEN", ["page_token"])


async def test_many_faults(api):
    """A batch in which everything is wrong gets an error that fits through gRPC."""
    name = "é" * 3_000
    items = [
        item_pb2.Item(item_id="\U0001f600" * 70, fields={f"{name}{i}": VALUE(int64_value=1)})
        for i in range(1_000)
    ]
    request = item_service_pb2.UpsertItemsRequest(catalog_id="films", items=items)
    code, reason, paths = await refusal(
        api.channel, "milvine.v1.ItemService/UpsertItems", request.SerializeToString()
    )
    assert (code, reason) == (INVALID, "INVALID_FIELD")
    assert paths[0] == "items[0].item_id"
