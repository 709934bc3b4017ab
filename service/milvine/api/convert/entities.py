"""Items and users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from milvine.api.convert.values import (
    check_count,
    field_value,
    raise_all,
    timestamp,
    value_messages,
)
from milvine.domain.catalog import Catalog
from milvine.domain.entity import Entity, Side, entity_faults
from milvine.domain.errors import Violation
from milvine.v1 import item_pb2, user_pb2

MAX_BATCH = 1_000

Message: TypeAlias = item_pb2.Item | user_pb2.User


def entities(messages: Sequence[Message], side: Side, catalog: Catalog) -> list[Entity]:
    """The entities of a batch, checked against the catalog; the error names every fault."""
    path = f"{side}s"
    check_count(len(messages), path, least=1, most=MAX_BATCH)
    batch = [_entity(message, f"{path}[{i}]") for i, message in enumerate(messages)]
    declared = {field.name: field for field in side.fields(catalog)}
    raise_all(
        fault
        for i, entity in enumerate(batch)
        for fault in entity_faults(entity, side, declared, f"{path}[{i}]")
    )
    raise_all(_repeated(batch, side))
    return batch


def item_message(entity: Entity) -> item_pb2.Item:
    """The message of an item."""
    return item_pb2.Item(
        item_id=entity.id,
        fields=value_messages(entity.fields),
        create_time=timestamp(entity.create_time),
        update_time=timestamp(entity.update_time),
    )


def user_message(entity: Entity) -> user_pb2.User:
    """The message of a user."""
    return user_pb2.User(
        user_id=entity.id,
        fields=value_messages(entity.fields),
        create_time=timestamp(entity.create_time),
        update_time=timestamp(entity.update_time),
    )


def _entity(message: Message, path: str) -> Entity:
    identifier = message.item_id if isinstance(message, item_pb2.Item) else message.user_id
    values = {
        name: field_value(value, f"{path}.fields.{name}") for name, value in message.fields.items()
    }
    return Entity(identifier, values)


def _repeated(batch: Iterable[Entity], side: Side) -> Iterator[Violation]:
    first: dict[str, int] = {}
    for i, entity in enumerate(batch):
        if first.setdefault(entity.id, i) != i:
            rule = f"must be given once, is that of {side}s[{first[entity.id]}] too"
            yield Violation(f"{side}s[{i}].{side}_id", rule)
