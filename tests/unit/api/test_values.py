"""Values, timestamps and ids on their way in and out."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import values
from milvine.domain.errors import InvalidArgument
from milvine.v1 import value_pb2

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"))
MOMENTS = st.datetimes(timezones=st.just(UTC))
FIELD_VALUES = st.one_of(
    TEXTS,
    INT64,
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    MOMENTS,
    st.lists(TEXTS).map(tuple),
    st.lists(INT64).map(tuple),
)


def fault(call, *args, **kwargs):
    """The violations that a conversion raises, as (field, description)."""
    with pytest.raises(InvalidArgument) as raised:
        call(*args, **kwargs)
    return [(v.field, v.description) for v in raised.value.violations]


@given(FIELD_VALUES)
def test_value_round_trip(value):
    """A field value survives the way out and in with its type, to the microsecond."""
    back = values.field_value(values.value_message(value), "x")
    assert back == value
    assert type(back) is type(value)


@given(MOMENTS)
def test_timestamp_round_trip(moment):
    """Every moment of the years 1 to 9999 survives, and is a valid Timestamp."""
    message = values.timestamp(moment)
    assert values.moment(message, "t") == moment
    assert message.ToDatetime(tzinfo=UTC) == moment


def test_timestamp_is_cut_to_micros():
    """Nanoseconds are cut, not rounded."""
    assert values.moment(Timestamp(seconds=-1, nanos=999_999_999), "t") == datetime(
        1969, 12, 31, 23, 59, 59, 999_999, UTC
    )


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (values.MIN_SECONDS - 1, 0),
        (values.MAX_SECONDS + 1, 0),
        (2**63 - 1, 0),
        (-(2**63), 0),
        (0, -1),
        (0, 1_000_000_000),
    ],
)
def test_timestamp_out_of_range(seconds, nanos):
    """A timestamp without a meaning is refused by its path."""
    [(field, _)] = fault(values.moment, Timestamp(seconds=seconds, nanos=nanos), "a.b")
    assert field == "a.b"


def test_value_without_kind():
    """A value without a kind is refused."""
    assert fault(values.field_value, value_pb2.Value(), "items[0].fields.x")[0][0] == (
        "items[0].fields.x"
    )


def test_field_value_double_list():
    """No field takes a list of doubles."""
    message = value_pb2.Value(double_list=value_pb2.DoubleList(values=[1.0]))
    assert fault(values.field_value, message, "f")[0][0] == "f"


def test_parameters_of_every_kind():
    """Filter parameters take every kind, lists of doubles too."""
    messages = {
        "s": value_pb2.Value(string_value="a"),
        "d": value_pb2.Value(double_list=value_pb2.DoubleList(values=[1.5, 2])),
        "i": value_pb2.Value(int64_list=value_pb2.Int64List(values=[3])),
    }
    assert values.parameters(messages, "p") == {"s": "a", "d": (1.5, 2.0), "i": (3,)}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["double_value", "double_list"])
def test_parameter_not_finite(number, kind):
    """A parameter that is not finite is refused by its path."""
    value = number if kind == "double_value" else value_pb2.DoubleList(values=[1, number])
    message = value_pb2.Value(**{kind: value})
    assert fault(values.parameters, {"x": message}, "filter_params")[0][0] == "filter_params.x"


LISTS = [
    lambda count: value_pb2.Value(double_list=value_pb2.DoubleList(values=[0.5] * count)),
    lambda count: value_pb2.Value(int64_list=value_pb2.Int64List(values=[7] * count)),
    lambda count: value_pb2.Value(string_list=value_pb2.StringList(values=["a"] * count)),
]


@pytest.mark.parametrize("listed", LISTS)
def test_long_parameters(listed):
    """The list of a parameter has at most 10,000 elements, more than that of a field."""
    assert len(values.parameters({"x": listed(10_000)}, "p")["x"]) == 10_000
    assert fault(values.parameters, {"x": listed(10_001)}, "p")[0][0] == "p.x"


def test_parameter_too_long():
    """The text of a parameter has at most 65,535 bytes."""
    long = value_pb2.Value(string_value="x" * 65_536)
    assert fault(values.parameters, {"x": long}, "p")[0][0] == "p.x"


@pytest.mark.parametrize("identifier", ["", "a" * 257, "é" * 129, "a\x00b"])
def test_ids_refused(identifier):
    """Ids have 1 to 256 bytes and no U+0000."""
    assert fault(values.required_id, identifier, "item_id")[0][0] == "item_id"
    assert fault(values.required_ids, ["ok", identifier], "ids", least=1, most=9)[0][0] == "ids[1]"


@pytest.mark.parametrize("identifier", ["a", "é" * 128, "a b/ü\n\t'\"%", "\U0001f600"])
def test_ids_taken(identifier):
    """Ids take any characters but U+0000."""
    assert values.required_id(identifier, "item_id") == identifier


@pytest.mark.parametrize("count", [0, 4])
def test_id_count(count):
    """The number of ids is bounded on both sides."""
    assert fault(values.required_ids, ["a"] * count, "ids", least=1, most=3)[0][0] == "ids"


@pytest.mark.parametrize("name", ["x" * 257, "a\x00"])
def test_display_name(name):
    """A name for people has at most 256 bytes and no U+0000."""
    assert fault(values.display_name, name, "display_name")[0][0] == "display_name"
