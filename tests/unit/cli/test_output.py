"""What commands print, and how they read their options."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import pytest
from google.longrunning import operations_pb2
from google.protobuf import json_format
from rich.console import Console

from milvine.cli.documents import document
from milvine.cli.output import Column, Output, number, shown, table, to_json
from milvine.cli.pairs import PAIR, numbers_or_texts, parameters
from milvine.cli.subjects import events
from milvine.client.types import HistoryEvent
from milvine.v1 import catalog_pb2, model_pb2, model_service_pb2


@dataclass(frozen=True, slots=True)
class Point:
    at: datetime
    names: tuple[str, ...]


def output(*, is_json: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    """An output with what it printed on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    return Output(is_json, Console(file=out, width=80), Console(file=err, width=80)), out, err


def test_json_is_the_whole_of_stdout():
    """With --json the document alone goes to stdout, without views."""
    printer, out, _ = output(is_json=True)
    printer.show({"a": [1, 2.5, None]}, "a view")
    assert json.loads(out.getvalue()) == {"a": [1, 2.5, None]}


def test_people_get_views():
    """Without --json the views are printed, and the document is not."""
    printer, out, _ = output(is_json=False)
    printer.show({"a": 1}, table([Column("film"), number("score")], [("[Rec]", 0.5)]))
    assert "[Rec]" in out.getvalue()
    assert "0.5000" in out.getvalue()
    assert "{" not in out.getvalue()


def test_complaints_go_to_stderr_whole():
    """A complaint is one line on stderr, markup in it taken as text."""
    printer, out, err = output(is_json=False)
    printer.complain("no field '[bold]x' " + "y" * 100)
    assert err.getvalue() == "Error: no field '[bold]x' " + "y" * 100 + "\n"
    assert out.getvalue() == ""


def test_dataclasses_become_objects():
    """Dataclasses and times are JSON objects and ISO 8601."""
    point = Point(datetime(2026, 1, 2, tzinfo=UTC), ("a", "b"))
    assert json.loads(to_json(point)) == {"at": "2026-01-02T00:00:00+00:00", "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (1234, "1234"), (["a", "b"], "a, b"), (0.123456, "0.1235")],
)
def test_values_are_shown_for_people(value, text):
    """Tables show values without Python's notation."""
    assert shown(value) == text


def test_messages_keep_numbers():
    """64-bit numbers of messages are JSON numbers, absent fields are left out, enums are named."""
    model = model_pb2.Model(user_count=943, config=model_pb2.ModelConfig(als={"epochs": 3}))
    made = document(model)
    assert made["user_count"] == 943
    assert made["config"] == {"als": {"epochs": 3}}
    assert "evaluation" not in made


def test_a_shown_catalog_can_be_read_again():
    """What `catalogs show --json` prints is the JSON of the message."""
    catalog = catalog_pb2.Catalog(
        catalog_id="films",
        item_fields=[catalog_pb2.Field(name="year", type=catalog_pb2.Field.TYPE_INT64)],
        event_types=[catalog_pb2.EventType(name="view", weight=2.0)],
    )
    again = json_format.Parse(to_json(document(catalog)), catalog_pb2.Catalog())
    assert again == catalog


def test_packed_messages_are_opened():
    """The metadata of an operation is shown as what it is."""
    operation = operations_pb2.Operation(name="operations/o1")
    operation.metadata.Pack(model_service_pb2.TrainModelMetadata(catalog_id="films", stage=4))
    assert document(operation)["metadata"]["stage"] == "STAGE_FITTING"


def test_pairs_divide_at_the_first_sign():
    """The first `=` divides a pair, so that values and columns of files may have some."""
    assert PAIR.convert("id=item_id:token=x", None, None) == ("id", "item_id:token=x")


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_pairs_need_a_name_and_a_sign(text):
    """A pair without `=` or name is a usage error."""
    with pytest.raises(click.BadParameter):
        PAIR.convert(text, None, None)


def test_settings_are_numbers_where_they_look_like_it():
    """Settings are read as JSON, else as texts."""
    pairs = [("epochs", "20"), ("scale", "0.5"), ("device", "cpu"), ("fast", "true")]
    assert numbers_or_texts(pairs) == {"epochs": 20, "scale": 0.5, "device": "cpu", "fast": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1990", 1990), ('"Sci-Fi"', "Sci-Fi"), ('["a", "b"]', ["a", "b"]), ("[1, 2.5]", [1, 2.5])],
)
def test_parameters_are_json(text, value):
    """Filter parameters are values or lists in JSON."""
    assert parameters([("p", text)]) == {"p": value}


@pytest.mark.parametrize("text", ["Sci-Fi", "null", "{}", '["a", 1]', "[true]"])
def test_other_parameters_are_usage_errors(text):
    """What is no value of a field is refused with the rule."""
    with pytest.raises(click.BadParameter):
        parameters([("p", text)])


def test_a_history_may_have_values():
    """A number behind the last `=` of an item is the value of the event."""
    assert events("50=4.5, 181,a=b,x=y=3") == [
        HistoryEvent("50", value=4.5),
        HistoryEvent("181"),
        HistoryEvent("a=b"),
        HistoryEvent("x=y", value=3.0),
    ]
