"""Catalogs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from milvine.api.convert.values import timestamp
from milvine.domain.catalog import (
    Catalog,
    EventType,
    Field,
    FieldType,
    IndexKind,
    ValueMeaning,
    VectorIndex,
    check,
    check_change,
)
from milvine.domain.errors import InvalidArgument
from milvine.v1 import catalog_pb2, catalog_service_pb2

_FIELD_TYPES = {catalog_pb2.Field.Type.Value(f"TYPE_{t}"): t for t in FieldType}
_FIELD_NUMBERS = {t: n for n, t in _FIELD_TYPES.items()}
_MEANINGS = {
    catalog_pb2.EventType.ValueMeaning.Value(f"VALUE_MEANING_{m}"): m for m in ValueMeaning
}
_MEANING_NUMBERS = {m: n for n, m in _MEANINGS.items()}
_KINDS = {
    catalog_pb2.VectorIndex.Kind.Value(f"KIND_{'UNSPECIFIED' if k is IndexKind.AUTO else k}"): k
    for k in IndexKind
}
_KIND_NUMBERS = {k: n for n, k in _KINDS.items()}
_INDEX_SETTINGS = (
    "hnsw_links",
    "hnsw_build_candidates",
    "hnsw_search_candidates",
    "ivf_clusters",
    "ivf_search_clusters",
)
_MUTABLE = ("display_name", "item_fields", "user_fields", "event_types", "vector_index")


def new_catalog(request: catalog_service_pb2.CreateCatalogRequest) -> Catalog:
    """The catalog to create, checked."""
    catalog = _catalog(_given(request))
    check(catalog)
    return catalog


def change(
    request: catalog_service_pb2.UpdateCatalogRequest,
) -> Callable[[Catalog], Catalog]:
    """The change of a catalog that an update asks for; it checks what it makes."""
    message = _given(request)
    new = _catalog(message)
    paths = _update_paths(request, message)

    def changed(old: Catalog) -> Catalog:
        made = replace(old, **{path: getattr(new, path) for path in paths})
        check_change(old, made)
        return made

    return changed


def catalog_message(catalog: Catalog) -> catalog_pb2.Catalog:
    """The message of a catalog."""
    return catalog_pb2.Catalog(
        catalog_id=catalog.id,
        display_name=catalog.display_name,
        item_fields=field_messages(catalog.item_fields),
        user_fields=field_messages(catalog.user_fields),
        event_types=[_event_message(event) for event in catalog.event_types],
        vector_index=_index_message(catalog.vector_index),
        active_release_id=catalog.active_release_id or "",
        create_time=timestamp(catalog.create_time),
        update_time=timestamp(catalog.update_time),
    )


def field_messages(fields: Iterable[Field]) -> list[catalog_pb2.Field]:
    """The messages of declared fields."""
    return [
        catalog_pb2.Field(name=f.name, type=_FIELD_NUMBERS[f.type], embed_text=f.embed_text)
        for f in fields
    ]


def _given(
    request: catalog_service_pb2.CreateCatalogRequest | catalog_service_pb2.UpdateCatalogRequest,
) -> catalog_pb2.Catalog:
    if not request.HasField("catalog"):
        raise InvalidArgument.at("catalog", "must be given")
    return request.catalog


def _catalog(message: catalog_pb2.Catalog) -> Catalog:
    return Catalog(
        id=message.catalog_id,
        display_name=message.display_name,
        item_fields=_fields(message.item_fields, "catalog.item_fields"),
        user_fields=_fields(message.user_fields, "catalog.user_fields"),
        event_types=tuple(_event(e, i) for i, e in enumerate(message.event_types)),
        vector_index=_index(message.vector_index),
    )


def _fields(messages: Sequence[catalog_pb2.Field], path: str) -> tuple[Field, ...]:
    return tuple(_field(message, f"{path}[{i}]") for i, message in enumerate(messages))


def _field(message: catalog_pb2.Field, path: str) -> Field:
    if message.type not in _FIELD_TYPES:
        raise InvalidArgument.at(f"{path}.type", f"must be one of {', '.join(FieldType)}")
    return Field(message.name, _FIELD_TYPES[message.type], message.embed_text)


def _event(message: catalog_pb2.EventType, place: int) -> EventType:
    meaning = message.value_meaning or catalog_pb2.EventType.VALUE_MEANING_NONE
    if meaning not in _MEANINGS:
        path = f"catalog.event_types[{place}].value_meaning"
        raise InvalidArgument.at(path, f"must be one of {', '.join(ValueMeaning)}")
    return EventType(
        name=message.name,
        weight=message.weight if message.HasField("weight") else 1.0,
        value_meaning=_MEANINGS[meaning],
        liked_from=message.liked_from if message.HasField("liked_from") else None,
    )


def _event_message(event: EventType) -> catalog_pb2.EventType:
    return catalog_pb2.EventType(
        name=event.name,
        weight=event.weight,
        value_meaning=_MEANING_NUMBERS[event.value_meaning],
        liked_from=event.liked_from,
    )


def _index(message: catalog_pb2.VectorIndex) -> VectorIndex:
    if message.kind not in _KINDS:
        raise InvalidArgument.at(
            "catalog.vector_index.kind", f"must be one of {', '.join(_KINDS.values())}"
        )
    given = {name: value for name in _INDEX_SETTINGS if (value := getattr(message, name))}
    return VectorIndex(_KINDS[message.kind], **given)


def _index_message(index: VectorIndex) -> catalog_pb2.VectorIndex:
    settings = {name: getattr(index, name) for name in _INDEX_SETTINGS}
    return catalog_pb2.VectorIndex(kind=_KIND_NUMBERS[index.kind], **settings)


def _update_paths(
    request: catalog_service_pb2.UpdateCatalogRequest, message: catalog_pb2.Catalog
) -> Iterable[str]:
    if not request.update_mask.paths:
        return [f.name for f, _ in message.ListFields() if f.name in _MUTABLE]
    paths = list(request.update_mask.paths)
    if paths == ["*"]:
        return _MUTABLE
    for i, path in enumerate(paths):
        if path not in _MUTABLE:
            rule = f"must be `*` alone or one of {', '.join(_MUTABLE)}"
            raise InvalidArgument.at(f"update_mask.paths[{i}]", rule)
    return paths
