"""Releases: models made ready to serve."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from milvine.domain.catalog import Field, VectorIndex
from milvine.domain.entity import Side


class ReleaseState(StrEnum):
    """Where a release is in its life; which one is active, the catalog says."""

    BUILDING = "BUILDING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Gate:
    """What the checks before activation measured."""

    index_recall: float
    sample_size: int
    min_index_recall: float


@dataclass(frozen=True, slots=True)
class Release:
    """A model made ready to serve, in collections of its own."""

    id: str
    catalog_id: str
    model_id: str
    state: ReleaseState
    item_fields: tuple[Field, ...]
    user_fields: tuple[Field, ...]
    vector_index: VectorIndex
    item_count: int = 0
    user_count: int = 0
    gate: Gate | None = None
    failure: str = ""
    create_time: datetime | None = None
    activate_time: datetime | None = None

    def collection(self, side: Side) -> str:
        """The name of the physical collection of that side."""
        return f"{self.catalog_id}_{side}s_{self.id}"

    def neighbour_collection(self, side: Side) -> str:
        """The name of the collection of that side's directions, for similarity by cosine."""
        return f"{self.catalog_id}_{side}_neighbours_{self.id}"

    def fields(self, side: Side) -> tuple[Field, ...]:
        """The fields that the collection of that side has."""
        return self.item_fields if side is Side.ITEM else self.user_fields
