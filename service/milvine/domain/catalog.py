"""Catalogs: what items, users and interactions of one business look like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from milvine.domain.errors import FailedPrecondition, InvalidArgument, Reason, Violation

CATALOG_ID = re.compile(r"[a-z][a-z0-9_]{0,47}")
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
EVENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,47}")
RESERVED_NAMES = frozenset(
    (
        *("and", "or", "not", "in", "like", "is", "null", "true", "false", "exists"),
        *("array_contains", "array_contains_any", "array_contains_all", "array_length"),
        *("json_contains", "json_contains_any", "json_contains_all"),
        *("id", "vector"),
    )
)
"""Words of the filter language and of the collections, which no field may be named after."""
MAX_FIELDS = 31
"""A field has two columns beside the id and the vector, and Milvus takes 64 in a collection."""
MAX_EVENT_TYPES = 64
MAX_NAME_BYTES = 256


_MILVUS_WORDS = frozenset(
    (
        *("RowID", "Timestamp"),
        *("interval", "INTERVAL", "iso", "ISO", "threshold", "THRESHOLD"),
        *("text_match", "TEXT_MATCH", "phrase_match", "PHRASE_MATCH"),
        *("random_sample", "RANDOM_SAMPLE", "max_edit_distance", "MAX_EDIT_DISTANCE"),
        *("minimum_should_match", "MINIMUM_SHOULD_MATCH"),
    )
)
"""Columns that every collection has, and words of filters in one version of Milvus or another."""


class FieldType(StrEnum):
    """The type of a field's values."""

    STRING = "STRING"
    INT64 = "INT64"
    DOUBLE = "DOUBLE"
    BOOL = "BOOL"
    TIMESTAMP = "TIMESTAMP"
    STRING_LIST = "STRING_LIST"
    INT64_LIST = "INT64_LIST"

    @property
    def is_list(self) -> bool:
        """Whether values are lists."""
        return self in (FieldType.STRING_LIST, FieldType.INT64_LIST)


@dataclass(frozen=True, slots=True)
class Field:
    """The declaration of a metadata field."""

    name: str
    type: FieldType
    embed_text: bool = False
    """Whether the text describes the item for content models; STRING only."""

    @property
    def column(self) -> str:
        """The column of its values in a collection: its name, but for what Milvus needs itself."""
        return f"_{self.name}" if self.name in _MILVUS_WORDS else self.name


class ValueMeaning(StrEnum):
    """What the value of an interaction means."""

    NONE = "NONE"
    RATING = "RATING"
    SECONDS = "SECONDS"
    QUANTITY = "QUANTITY"


@dataclass(frozen=True, slots=True)
class EventType:
    """The declaration of a kind of interaction."""

    name: str
    weight: float = 1.0
    """How much one interaction counts in training; 0 marks as seen and teaches nothing."""
    value_meaning: ValueMeaning = ValueMeaning.NONE
    liked_from: float | None = None
    """The value from which it counts as liking, for implicit feedback; None: always."""


class IndexKind(StrEnum):
    """The kind of a vector index."""

    AUTO = "AUTO"
    FLAT = "FLAT"
    HNSW = "HNSW"
    IVF_FLAT = "IVF_FLAT"


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How the vectors of a release are indexed; AUTO is HNSW on a server, FLAT on Lite."""

    kind: IndexKind = IndexKind.AUTO
    hnsw_links: int = 16
    hnsw_build_candidates: int = 200
    hnsw_search_candidates: int = 128
    ivf_clusters: int = 128
    ivf_search_clusters: int = 16


@dataclass(frozen=True, slots=True)
class Catalog:
    """A set of items, users and interactions, with the declaration of their metadata."""

    id: str
    event_types: tuple[EventType, ...]
    display_name: str = ""
    item_fields: tuple[Field, ...] = ()
    user_fields: tuple[Field, ...] = ()
    vector_index: VectorIndex = field(default_factory=VectorIndex)
    active_release_id: str | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def text_fields(self) -> tuple[Field, ...]:
        """The fields of items whose text describes them."""
        return tuple(field for field in self.item_fields if field.embed_text)

    def event_type(self, name: str) -> EventType | None:
        """The event type of that name; the only one for an empty name; else None."""
        if not name and len(self.event_types) == 1:
            return self.event_types[0]
        return next((e for e in self.event_types if e.name == name), None)


def display_name_fault(name: str) -> str | None:
    """What is wrong with a name for people, in words; None for a good one."""
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"must be at most {MAX_NAME_BYTES} bytes"
    return "must not have the character U+0000" if "\x00" in name else None


def check(catalog: Catalog) -> None:
    """Raise InvalidArgument naming every declaration that breaks its rule."""
    violations = [*_check_names(catalog), *_check_events(catalog), *_check_index(catalog)]
    if violations:
        raise InvalidArgument(violations)


def check_change(old: Catalog, new: Catalog) -> None:
    """Raise FailedPrecondition where a declared name vanishes or changes its type."""
    check(new)
    lost = [
        f"{what} {name!r}"
        for what, before, after in (
            ("item field", _types(old.item_fields), _types(new.item_fields)),
            ("user field", _types(old.user_fields), _types(new.user_fields)),
            (
                "event type",
                {e.name: str(e.value_meaning) for e in old.event_types},
                {e.name: str(e.value_meaning) for e in new.event_types},
            ),
        )
        for name, type_ in before.items()
        if after.get(name) != type_
    ]
    if lost:
        raise FailedPrecondition(
            f"{', '.join(lost)} can't be removed or change its type; "
            "declare another name, or a new catalog",
            Reason.INCOMPATIBLE_DECLARATION,
            {"catalog_id": old.id},
        )


def _types(fields: Iterable[Field]) -> dict[str, str]:
    return {f.name: str(f.type) for f in fields}


def _check_names(catalog: Catalog) -> Iterable[Violation]:
    if not CATALOG_ID.fullmatch(catalog.id):
        yield Violation(
            "catalog.catalog_id",
            "must be a lower-case letter, "
            "then at most 47 lower-case letters, digits or underscores",
        )
    if fault := display_name_fault(catalog.display_name):
        yield Violation("catalog.display_name", fault)
    for side in ("item_fields", "user_fields"):
        fields: tuple[Field, ...] = getattr(catalog, side)
        if len(fields) > MAX_FIELDS:
            yield Violation(f"catalog.{side}", f"must be at most {MAX_FIELDS} fields")
        seen: set[str] = set()
        for i, declared in enumerate(fields):
            path = f"catalog.{side}[{i}]"
            if not FIELD_NAME.fullmatch(declared.name):
                yield Violation(
                    f"{path}.name",
                    "must be a letter, then at most 47 letters, digits or underscores",
                )
            if declared.name.lower() in RESERVED_NAMES:
                yield Violation(f"{path}.name", f"{declared.name!r} is a word of the service")
            if declared.name in seen:
                yield Violation(f"{path}.name", f"{declared.name!r} is declared twice")
            if declared.embed_text and declared.type is not FieldType.STRING:
                yield Violation(f"{path}.embed_text", "goes with type STRING only")
            seen.add(declared.name)


def _check_events(catalog: Catalog) -> Iterable[Violation]:
    if not 1 <= len(catalog.event_types) <= MAX_EVENT_TYPES:
        yield Violation("catalog.event_types", f"must be 1 to {MAX_EVENT_TYPES} event types")
    seen: set[str] = set()
    for i, event in enumerate(catalog.event_types):
        path = f"catalog.event_types[{i}]"
        if not EVENT_NAME.fullmatch(event.name):
            yield Violation(
                f"{path}.name",
                "must be a letter, then at most 47 letters, digits, underscores or hyphens",
            )
        if event.name in seen:
            yield Violation(f"{path}.name", f"{event.name!r} is declared twice")
        if not 0 <= event.weight <= 1e6:
            yield Violation(f"{path}.weight", "must be a number from 0 to 1,000,000")
        if event.liked_from is not None and not abs(event.liked_from) < float("inf"):
            yield Violation(f"{path}.liked_from", "must be finite")
        if event.liked_from is not None and event.value_meaning is ValueMeaning.NONE:
            yield Violation(f"{path}.liked_from", "goes with a value_meaning only")
        seen.add(event.name)


def _check_index(catalog: Catalog) -> Iterable[Violation]:
    index = catalog.vector_index
    for name, low, high in (
        ("hnsw_links", 4, 64),
        ("hnsw_build_candidates", 8, 512),
        ("hnsw_search_candidates", 1, 4096),
        ("ivf_clusters", 1, 65536),
        ("ivf_search_clusters", 1, 65536),
    ):
        if not low <= getattr(index, name) <= high:
            yield Violation(
                f"catalog.vector_index.{name}", f"must be {low:,} to {high:,}, or 0 for the default"
            )
