"""Hits: what a search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from milvine.domain.entity import FieldValue


@dataclass(frozen=True, slots=True)
class Hit:
    """An item or user that was found, with the fields that were asked for."""

    id: str
    score: float
    fields: Mapping[str, FieldValue] = field(default_factory=dict)


class Source(StrEnum):
    """How recommendations were found."""

    PERSONAL = "PERSONAL"
    POPULAR = "POPULAR"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A ranked list for one subject, best first."""

    hits: tuple[Hit, ...]
    release_id: str
    source: Source
    is_short: bool
    """Whether fewer items match than were asked for."""
