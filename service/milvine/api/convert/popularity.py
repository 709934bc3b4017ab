"""What callers ask of popularity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from milvine.api.convert.ranking import positive_duration
from milvine.api.convert.retrieval import MAX_EXCLUDED, selection
from milvine.api.convert.values import check_count, raise_all, required_ids
from milvine.domain.catalog import MAX_EVENT_TYPES, Catalog, EventType
from milvine.domain.errors import Violation
from milvine.domain.query import Counting, Selection
from milvine.v1 import retrieval_service_pb2 as pb


def popular(request: pb.PopularItemsRequest) -> Selection:
    """Which popular items to find."""
    excluded = required_ids(
        request.exclude_item_ids, "exclude_item_ids", least=0, most=MAX_EXCLUDED
    )
    return replace(selection(request), exclude_ids=frozenset(excluded))


def counting(request: pb.PopularItemsRequest, catalog: Catalog) -> Counting:
    """Which interactions count; an event type that is named twice counts once."""
    names = request.event_types
    check_count(len(names), "event_types", least=0, most=MAX_EVENT_TYPES)
    raise_all(_undeclared(names, catalog))
    half_life = None
    if request.HasField("half_life"):
        half_life = positive_duration(request.half_life, "half_life")
    return Counting(half_life, _event_types(names, catalog))


def _event_types(names: Sequence[str], catalog: Catalog) -> tuple[EventType, ...]:
    return tuple(each for each in catalog.event_types if each.name in names)


def _undeclared(names: Sequence[str], catalog: Catalog) -> Iterable[Violation]:
    declared = [each.name for each in catalog.event_types]
    for i, name in enumerate(names):
        if name not in declared:
            yield Violation(
                f"event_types[{i}]",
                f"must be an event type of the catalog; declared are: {', '.join(declared)}",
            )
