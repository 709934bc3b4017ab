"""Catalogs on their way in and out."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import catalogs as convert
from milvine.domain.catalog import (
    RESERVED_NAMES,
    Catalog,
    EventType,
    Field,
    FieldType,
    IndexKind,
    ValueMeaning,
    VectorIndex,
)
from milvine.domain.errors import FailedPrecondition
from milvine.v1 import catalog_pb2, catalog_service_pb2
from tests.unit.api.test_values import fault

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,47}", fullmatch=True).filter(
    lambda name: name.lower() not in RESERVED_NAMES
)
FIELDS = st.lists(
    st.builds(Field, NAMES, st.sampled_from(FieldType)), max_size=5, unique_by=lambda f: f.name
).map(tuple)
EVENTS = st.lists(
    st.builds(
        EventType,
        NAMES,
        st.floats(0, 1e6),
        st.sampled_from([ValueMeaning.RATING, ValueMeaning.SECONDS, ValueMeaning.QUANTITY]),
        st.none() | st.floats(-1e9, 1e9),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda e: e.name,
).map(tuple)
CATALOGS = st.builds(
    Catalog,
    id=st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True),
    event_types=EVENTS,
    display_name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
    item_fields=FIELDS,
    user_fields=FIELDS,
    vector_index=st.builds(VectorIndex, st.sampled_from(IndexKind), st.integers(4, 64)),
)
FILMS = catalog_pb2.Catalog(
    catalog_id="films",
    display_name="Films",
    item_fields=[catalog_pb2.Field(name="year", type=catalog_pb2.Field.TYPE_INT64)],
    event_types=[catalog_pb2.EventType(name="view")],
)


def created(**changes):
    """The request to create the films with those changes."""
    message = catalog_pb2.Catalog()
    message.CopyFrom(FILMS)
    for name, value in changes.items():
        message.ClearField(name)
        message.MergeFrom(catalog_pb2.Catalog(**{name: value}))
    return catalog_service_pb2.CreateCatalogRequest(catalog=message)


def updated(catalog, *paths):
    """What an update makes of the films."""
    request = catalog_service_pb2.UpdateCatalogRequest(catalog=catalog)
    if paths:
        request.update_mask.CopyFrom(FieldMask(paths=paths))
    return convert.change(request)(convert.new_catalog(created()))


@given(CATALOGS)
def test_round_trip(catalog):
    """A declaration survives the way out and in."""
    message = convert.catalog_message(catalog)
    request = catalog_service_pb2.CreateCatalogRequest(catalog=message)
    assert convert.new_catalog(request) == catalog


def test_output_fields():
    """What the service knows is told, and not read."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    catalog = Catalog(
        "a", (EventType("view"),), active_release_id="r1", create_time=moment, update_time=moment
    )
    message = convert.catalog_message(catalog)
    assert message.active_release_id == "r1"
    assert message.create_time.ToDatetime(tzinfo=UTC) == moment
    request = catalog_service_pb2.CreateCatalogRequest(catalog=message)
    assert convert.new_catalog(request).active_release_id is None


def test_defaults():
    """An event weighs 1 and has no value, and zeros of the index take the defaults."""
    catalog = convert.new_catalog(created())
    assert catalog.event_types == (EventType("view", 1.0, ValueMeaning.NONE, None),)
    assert catalog.vector_index == VectorIndex()


def test_weight_zero_is_not_absent():
    """A weight of 0 is kept: it marks as seen and teaches nothing."""
    event = catalog_pb2.EventType(name="skip", weight=0)
    assert convert.new_catalog(created(event_types=[event])).event_types[0].weight == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"catalog_id": ""}, "catalog.catalog_id"),
        ({"catalog_id": "Films"}, "catalog.catalog_id"),
        ({"catalog_id": "a" * 49}, "catalog.catalog_id"),
        ({"display_name": "x" * 257}, "catalog.display_name"),
        ({"display_name": "\0"}, "catalog.display_name"),
        ({"event_types": []}, "catalog.event_types"),
        ({"event_types": [catalog_pb2.EventType(name="")]}, "catalog.event_types[0].name"),
        (
            {"event_types": [catalog_pb2.EventType(name="a", weight=math.nan)]},
            "catalog.event_types[0].weight",
        ),
        (
            {"event_types": [catalog_pb2.EventType(name="a", weight=-1)]},
            "catalog.event_types[0].weight",
        ),
        (
            {"event_types": [catalog_pb2.EventType(name="a", value_meaning=99)]},
            "catalog.event_types[0].value_meaning",
        ),
        (
            {
                "event_types": [
                    catalog_pb2.EventType(name="a", value_meaning=2, liked_from=math.inf)
                ]
            },
            "catalog.event_types[0].liked_from",
        ),
        ({"item_fields": [catalog_pb2.Field(name="a")]}, "catalog.item_fields[0].type"),
        ({"item_fields": [catalog_pb2.Field(name="a", type=99)]}, "catalog.item_fields[0].type"),
        ({"user_fields": [catalog_pb2.Field(name="in", type=1)]}, "catalog.user_fields[0].name"),
        (
            {"item_fields": [catalog_pb2.Field(name="a", type=2, embed_text=True)]},
            "catalog.item_fields[0].embed_text",
        ),
        (
            {"item_fields": [catalog_pb2.Field(name=f"f{i}", type=1) for i in range(65)]},
            "catalog.item_fields",
        ),
        ({"vector_index": catalog_pb2.VectorIndex(kind=99)}, "catalog.vector_index.kind"),
        (
            {"vector_index": catalog_pb2.VectorIndex(hnsw_links=-1)},
            "catalog.vector_index.hnsw_links",
        ),
        (
            {"vector_index": catalog_pb2.VectorIndex(ivf_clusters=65_537)},
            "catalog.vector_index.ivf_clusters",
        ),
    ],
)
def test_refused(changes, field):
    """A declaration that breaks a rule is refused by the path of the field."""
    assert fault(convert.new_catalog, created(**changes))[0][0] == field


@pytest.mark.parametrize(
    ("call", "request_type"),
    [
        (convert.new_catalog, catalog_service_pb2.CreateCatalogRequest),
        (convert.change, catalog_service_pb2.UpdateCatalogRequest),
    ],
)
def test_missing_catalog(call, request_type):
    """A request without its catalog is refused."""
    assert fault(call, request_type())[0][0] == "catalog"


def test_update_without_mask():
    """Without a mask, what is set is replaced and the rest stays."""
    catalog = updated(catalog_pb2.Catalog(catalog_id="films", display_name="Movies"))
    assert catalog.display_name == "Movies"
    assert catalog.item_fields == (Field("year", FieldType.INT64),)


def test_update_with_mask():
    """With a mask, what it names is replaced, also by nothing."""
    catalog = updated(catalog_pb2.Catalog(catalog_id="films"), "display_name")
    assert catalog.display_name == ""
    assert len(catalog.event_types) == 1


def test_update_star():
    """`*` replaces all, so that what is missing is missed."""
    with pytest.raises(FailedPrecondition):
        updated(catalog_pb2.Catalog(catalog_id="films", event_types=FILMS.event_types), "*")


@pytest.mark.parametrize(
    "path", ["catalog_id", "nope", "item_fields.name", "active_release_id", ""]
)
def test_update_unknown_path(path):
    """A path that can't be replaced is refused by its place in the mask."""
    assert fault(updated, FILMS, "display_name", path)[0][0] == "update_mask.paths[1]"


def test_update_star_is_alone():
    """`*` beside other paths is refused."""
    assert fault(updated, FILMS, "*", "display_name")[0][0] == "update_mask.paths[0]"


def test_update_loses_a_field():
    """A declared field can't vanish."""
    with pytest.raises(FailedPrecondition):
        updated(catalog_pb2.Catalog(catalog_id="films"), "item_fields")


def test_empty_mask_is_no_mask():
    """A mask without paths counts as absent."""
    request = catalog_service_pb2.UpdateCatalogRequest(
        catalog=catalog_pb2.Catalog(catalog_id="films", display_name="M"), update_mask=FieldMask()
    )
    old = convert.new_catalog(created())
    assert convert.change(request)(old).display_name == "M"
