"""Messages as JSON documents: proto names, numbers as numbers, times in ISO 8601."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from milvine.client.types import moment


def document(message: Message) -> object:
    """The message as what JSON knows; 64-bit numbers are numbers, not texts as protobuf has it."""
    if isinstance(message, Timestamp):
        return moment(message)
    if isinstance(message, Packed):
        return document(unpacked(message))
    return {
        field.name: _value(
            getattr(message, field.name),
            {n: v.name for n, v in field.enum_type.values_by_number.items()}
            if field.enum_type
            else {},
        )
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def unpacked(packed: Packed) -> Message:
    """The message that was packed, of any type that this version knows."""
    kind = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    return message_factory.GetMessageClass(kind).FromString(packed.value)


def _value(value: object, names: Mapping[int, str]) -> object:
    """The value of a field; `names` are those of its numbers, if it is an enum."""
    match value:
        case Message():
            return document(value)
        case str() | bytes():
            return value
        case Mapping():
            return {str(key): _value(element, names) for key, element in value.items()}
        case Iterable():
            return [_value(element, names) for element in value]
        case int() if names:
            return names.get(value, value)
        case _:
            return value
