"""Items and users on their way in and out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import entities as convert
from milvine.domain.catalog import Catalog, EventType, Field, FieldType
from milvine.domain.entity import Entity, Side
from milvine.v1 import item_pb2, user_pb2, value_pb2
from tests.unit.api.test_values import FIELD_VALUES, INT64, MOMENTS, TEXTS, fault

STRATEGIES = {
    FieldType.STRING: TEXTS.filter(lambda text: "\0" not in text),
    FieldType.INT64: INT64,
    FieldType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    FieldType.BOOL: st.booleans(),
    FieldType.TIMESTAMP: MOMENTS,
    FieldType.STRING_LIST: st.lists(st.sampled_from(["a", "é"])).map(tuple),
    FieldType.INT64_LIST: st.lists(INT64).map(tuple),
}
FIELDS = tuple(Field(f"f_{kind.lower()}", kind) for kind in FieldType)
CATALOG = Catalog("films", (EventType("view"),), item_fields=FIELDS, user_fields=FIELDS)
IDS = TEXTS.filter(lambda text: 1 <= len(text.encode()) <= 256 and "\0" not in text)
VALUES = st.fixed_dictionaries(
    {}, optional={field.name: STRATEGIES[field.type] for field in FIELDS}
)
ENTITIES = st.lists(
    st.builds(Entity, IDS, VALUES), min_size=1, max_size=4, unique_by=lambda e: e.id
)


def item(item_id="1", **fields):
    """The message of an item."""
    return item_pb2.Item(item_id=item_id, fields=fields)


@given(ENTITIES)
def test_items_round_trip(batch):
    """Items survive the way out and in."""
    messages = [convert.item_message(entity) for entity in batch]
    assert convert.entities(messages, Side.ITEM, CATALOG) == batch


@given(ENTITIES)
def test_users_round_trip(batch):
    """Users survive the way out and in."""
    messages = [convert.user_message(entity) for entity in batch]
    assert convert.entities(messages, Side.USER, CATALOG) == batch


@given(FIELD_VALUES, st.sampled_from(FIELDS))
def test_type_must_fit(value, field):
    """A value is taken by a field of its type and refused by one of another."""
    messages = [convert.item_message(Entity("1", {field.name: value}))]
    kinds = {str: "STRING", int: "INT64", float: "DOUBLE", bool: "BOOL"}
    kind = kinds.get(type(value)) or (
        "TIMESTAMP"
        if not isinstance(value, tuple)
        else "INT64_LIST"
        if value and isinstance(value[0], int)
        else "STRING_LIST"
    )
    fits = kind == field.type or (value == () and field.type.is_list)
    has_zero = (
        "\0" in str(value)
        if isinstance(value, str)
        else "\0" in "".join(map(str, value))
        if isinstance(value, tuple)
        else False
    )
    if fits and not has_zero:
        assert convert.entities(messages, Side.ITEM, CATALOG)[0].fields == {field.name: value}
    else:
        assert fault(convert.entities, messages, Side.ITEM, CATALOG)[0][0] == (
            f"items[0].fields.{field.name}"
        )


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "items"),
        ([item(str(i)) for i in range(1_001)], "items"),
        ([item("")], "items[0].item_id"),
        ([item("1"), item("x" * 257)], "items[1].item_id"),
        ([item("a\0")], "items[0].item_id"),
        ([item("1"), item("2"), item("1")], "items[2].item_id"),
        ([item(nope=value_pb2.Value(int64_value=1))], "items[0].fields.nope"),
        ([item(f_int64=value_pb2.Value())], "items[0].fields.f_int64"),
        ([item(f_double=value_pb2.Value(int64_value=1))], "items[0].fields.f_double"),
        ([item(f_double=value_pb2.Value(double_value=math.nan))], "items[0].fields.f_double"),
        ([item(f_double=value_pb2.Value(double_value=math.inf))], "items[0].fields.f_double"),
        ([item(f_string=value_pb2.Value(string_value="x" * 65_536))], "items[0].fields.f_string"),
        ([item(f_string=value_pb2.Value(string_value="a\0"))], "items[0].fields.f_string"),
        (
            [
                item(
                    f_int64_list=value_pb2.Value(int64_list=value_pb2.Int64List(values=[0] * 1_025))
                )
            ],
            "items[0].fields.f_int64_list",
        ),
    ],
)
def test_refused(messages, field):
    """An entity that breaks a rule is refused by the path of the field."""
    assert fault(convert.entities, messages, Side.ITEM, CATALOG)[0][0] == field


def test_every_fault_is_told():
    """All that is wrong in a batch is told at once."""
    messages = [item(""), item("ok"), item("2", nope=value_pb2.Value(bool_value=True))]
    found = fault(convert.entities, messages, Side.ITEM, CATALOG)
    assert [field for field, _ in found] == ["items[0].item_id", "items[2].fields.nope"]


def test_users_have_their_own_paths():
    """Faults of users are told in the words of users."""
    found = fault(convert.entities, [user_pb2.User()], Side.USER, CATALOG)
    assert found[0][0] == "users[0].user_id"
