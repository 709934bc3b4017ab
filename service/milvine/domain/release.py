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
class TextIndex:
    """How a release has what its items say: a collection of text vectors."""

    fields: tuple[str, ...]
    """The names of the fields that the texts are made of."""
    encoder: str
    """The name of the encoder of texts."""
    fingerprint: str
    """What tells that encoder's vectors from others."""
    dimension: int


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
    operation_id: str = ""
    """The operation that builds it."""
    attempt: int = 1
    """The operation's attempt that builds it. Each has collections of its own, so that a worker
    that was given up can't touch what the next one builds."""
    text: TextIndex | None = None
    """None where the catalog declared no text to embed when it was built."""

    def collection(self, side: Side) -> str:
        """The name of the physical collection of that side."""
        return f"{self.catalog_id}_{side}s_{self._build}"

    def neighbour_collection(self, side: Side) -> str:
        """The name of the collection of that side's directions, for similarity by cosine."""
        return f"{self.catalog_id}_{side}_neighbours_{self._build}"

    @property
    def text_collection(self) -> str:
        """The name of the collection of what items say."""
        return f"{self.catalog_id}_item_texts_{self._build}"

    def collections(self, *sides: Side) -> list[str]:
        """The names of the collections of both sides, or of those that are named."""
        names = [
            name
            for side in sides or Side
            for name in (self.collection(side), self.neighbour_collection(side))
        ]
        if self.text and Side.ITEM in (sides or Side):
            names.append(self.text_collection)
        return names

    @property
    def _build(self) -> str:
        return self.id if self.attempt == 1 else f"{self.id}_{self.attempt}"

    def fields(self, side: Side) -> tuple[Field, ...]:
        """The fields that the collection of that side has."""
        return self.item_fields if side is Side.ITEM else self.user_fields


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Asks for a release of a model."""

    catalog_id: str
    model_id: str
    release_id: str
    """The id that the release will have: a publication that is taken up again keeps it."""
    hold: bool = False
    """Whether it is left to someone to activate the release."""
    min_index_recall: float = 0.95
    keep_releases: int = 1
    """How many releases that served before stay READY beside the new one."""
