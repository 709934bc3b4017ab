"""What callers ask of retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from milvine.domain.catalog import EventType
from milvine.domain.filter import Scalar
from milvine.domain.hit import Hit, SearchMethod, Source
from milvine.domain.ranking import BY_SCORE, Ranking

DEFAULT_PAGE_SIZE = 10


@dataclass(frozen=True, slots=True)
class UserSubject:
    """A user whose history the service recorded."""

    user_id: str


@dataclass(frozen=True, slots=True)
class HistorySubject:
    """A person without an id: the events as a table of INTERACTIONS columns, oldest first."""

    events: pa.Table


@dataclass(frozen=True, slots=True, eq=False)
class VectorSubject:
    """A point of the embedding space, (dimension,) float32."""

    vector: np.ndarray
    field: str = "vector"
    """What the caller calls it, for errors."""


@dataclass(frozen=True, slots=True)
class ExamplesSubject:
    """A taste, by items that fit it and items that don't, with the weight of each."""

    positives: Mapping[str, float]
    negatives: Mapping[str, float]


Subject: TypeAlias = UserSubject | HistorySubject | VectorSubject | ExamplesSubject


@dataclass(frozen=True, slots=True)
class ReciprocalRank:
    """Two orders become one by the places in both."""

    k: float = 60.0
    """How little the first places stand out, over 0."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Two orders become one by both scores, scaled alike."""

    text: float
    personal: float


Fusion: TypeAlias = ReciprocalRank | Weights


@dataclass(frozen=True, slots=True)
class TextQuery:
    """What to search for, and for whom."""

    text: str
    subject: Subject | None = None
    """None: for anyone."""
    fusion: Fusion = ReciprocalRank()


class Consistency(StrEnum):
    """Which writes an answer reflects."""

    BOUNDED = "BOUNDED"
    """This process's at once, others' after a bound."""
    STRONG = "STRONG"
    """Every acknowledged one."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which hits, how many of them, and what of them to return."""

    page_size: int = DEFAULT_PAGE_SIZE
    filter: str = ""
    filter_params: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict)
    return_fields: tuple[str, ...] = ()
    """Names of fields; `*` alone for all."""
    exclude_ids: frozenset[str] = frozenset()
    include_seen: bool = False
    consistency: Consistency = Consistency.BOUNDED
    ranking: Ranking = BY_SCORE
    explain: bool = False
    release_id: str = ""
    """The release to ask; empty for the active one."""
    page_token: str = ""
    fingerprint: bytes = field(default=b"", compare=False)
    """What a page token is bound to: the request without its token and page size. None are made
    without it."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Items like an item or users like a user, most similar first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_short: bool
    """Whether fewer match than were asked for."""
    method: SearchMethod = SearchMethod.INDEX
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class Counting:
    """Which interactions count for popularity, each by the weight of its event type."""

    half_life: timedelta | None = None
    """After how long one counts half; None: all count the same."""
    event_types: tuple[EventType, ...] = ()
    """Empty: those of the catalog."""


@dataclass(frozen=True, slots=True)
class PopularItems:
    """Items with their counts, the most popular first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_short: bool
    """Whether fewer match, and were interacted with, than were asked for."""
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class FoundItems:
    """Items by what they say, best first."""

    hits: tuple[Hit, ...]
    release_id: str
    source: Source
    is_short: bool
    """Whether fewer match than were asked for."""


@dataclass(frozen=True, slots=True)
class RankedItems:
    """Items that a caller named, best first."""

    hits: tuple[Hit, ...]
    release_id: str
    source: Source
    missing_ids: tuple[str, ...]
    """Those that the release does not have, in the order asked for."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Stored vectors by id, (dimension,) float32 each; ids without a vector are not there."""

    items: Mapping[str, np.ndarray]
    users: Mapping[str, np.ndarray]
    release_id: str
