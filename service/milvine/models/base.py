"""What every family of models has in common.

A family turns histories into item vectors and an encoder of users; the score of an item for a user
is the inner product of their vectors, so that one search serves every family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog, Field
from milvine.domain.entity import FieldValue, Side
from milvine.domain.errors import FailedPrecondition
from milvine.domain.model import EpochReport, Setting
from milvine.models.features import Features
from milvine.models.fields import Encoding
from milvine.models.texts import FindReader
from milvine.models.vocabulary import Vocabulary

Tensors: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Arrays by name."""
Fields: TypeAlias = Mapping[str, FieldValue]
"""Metadata of an item or a user."""
OnEpoch: TypeAlias = Callable[[EpochReport], None]
IsCancelled: TypeAlias = Callable[[], bool]
ITEM_VECTORS = "item_vectors"


class Feedback(StrEnum):
    """What a family learns from."""

    IMPLICIT = "IMPLICIT"
    """The items that users liked, and how much they had to do with them."""
    ORDERED = "ORDERED"
    """The same, in the order of their times."""
    EXPLICIT = "EXPLICIT"
    """The ratings that users gave."""


@dataclass(frozen=True, slots=True)
class Histories:
    """What users did: a ragged batch, oldest first within a user, in compressed rows."""

    offsets: NDArray[np.int64]
    """(users + 1,): the events of user u are `offsets[u]` to `offsets[u + 1]`."""
    items: NDArray[np.int32]
    """(events,): rows of items."""
    strengths: NDArray[np.float32]
    """(events,): the rating, or what weights and values of the events come to."""
    times: NDArray[np.int64]
    """(events,): microseconds since 1970."""
    features: Features | None = None
    """A row for each user, for families that can read them."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(users,): how many events each user has."""
        return np.diff(self.offsets)

    @property
    def users(self) -> NDArray[np.int64]:
        """(events,): the row of the user of each event."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def keep(self, mask: NDArray[np.bool_]) -> Histories:
        """The same users with the events of a mask (events,) only."""
        kept = np.concatenate(([0], np.cumsum(mask)))
        return Histories(
            kept[self.offsets],
            self.items[mask],
            self.strengths[mask],
            self.times[mask],
            self.features,
        )

    def take(self, users: NDArray[np.int64]) -> Histories:
        """The histories of some users, in their order."""
        lengths = self.lengths[users]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], lengths)
        return Histories(
            offsets,
            self.items[events],
            self.strengths[events],
            self.times[events],
            None if self.features is None else self.features.take(users),
        )

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(users,): of which users anything is known: an event, or a field."""
        has_events = self.lengths > 0
        return has_events if self.features is None else has_events | self.features.is_known


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a family learns from: each pair of user and item once."""

    users: Vocabulary
    items: Vocabulary
    histories: Histories
    item_features: Features | None = None
    """A row for each item, for families that can read them."""
    encodings: Mapping[Side, Encoding] = field(default_factory=dict)
    """How the features of items and users are made, where they have any."""


class Checkpoints(Protocol):
    """Where one fit keeps what it takes to go on after a stop.

    A checkpoint goes with the data, the config and the device that it was made with.
    """

    def load(self) -> Tensors | None:
        """What was saved last; None before the first."""

    def save(self, state: Tensors) -> None:
        """Keep a state in place of the last."""


def _unheard(_: EpochReport) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Run:
    """Where a fit runs, who hears of it and who may stop it."""

    device: str = "cpu"
    on_epoch: OnEpoch = _unheard
    """Told of each pass over the data as it ends; of those before a stop, as the fit goes on."""
    cancelled: IsCancelled = _never
    """Asked often enough that a cancel takes effect within a second."""
    checkpoints: Checkpoints | None = None
    """Kept after each pass by the models that learn by gradients, and resumed from."""
    process_count: int = 1
    """The processes that a family which `is_parallel` trains in."""


class Encoder(Protocol):
    """How a history becomes a vector; safe to call from several threads."""

    @property
    def dimension(self) -> int:
        """The dimensions of its vectors."""

    @property
    def taste_dimension(self) -> int:
        """The leading dimensions, which hold the taste; biases follow them."""

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        """The vectors (users, dimension); an empty history gives the vector of an unknown user."""


MOST_RERANKED = 200
"""How many of the best by inner product a scorer ranks anew."""


class Scorer(Protocol):
    """How retrieved items are ranked anew; safe to call from several threads."""

    def __hash__(self) -> int:
        """By identity: what is asked of one scorer travels together."""

    def read(self, histories: Histories) -> NDArray[np.float32]:
        """What it has to know of users, (users, size)."""

    def gains(
        self, readers: NDArray[np.float32], candidates: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """What it adds to the inner products of users and items, (users, n).

        Args:
            readers: What `read` gave for the users.
            candidates: Rows of items, (users, n); those that it did not learn gain NaN.
        """


def whole_gains(
    scorer: Scorer,
    readers: NDArray[np.float32],
    candidates: NDArray[np.integer],
    is_item: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """What a scorer adds, (users, n); items that it did not learn gain what others of the user do.

    Args:
        scorer: The model's.
        readers: What it knows of the users.
        candidates: Rows of items, (users, n), any row where there is none.
        is_item: Where there is one, (users, n).
    """
    gains = scorer.gains(readers, candidates)
    is_known = is_item & np.isfinite(gains)
    sums = np.where(is_known, gains, 0.0).sum(axis=1, keepdims=True, dtype=np.float64)
    usual = sums / np.maximum(is_known.sum(axis=1, keepdims=True), 1)
    return np.where(is_known, gains, usual)


class ItemEncoder(Protocol):
    """How items that a model did not learn get vectors; safe to call from several threads."""

    def encode(self, items: Sequence[Fields]) -> NDArray[np.float32]:
        """The vectors (items, dimension) of items by their fields; NaN where these say nothing.

        Raises:
            FailedPrecondition: The reader of their texts is not installed here, or has changed.
        """


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a fit gives."""

    tensors: Tensors
    """By name; `item_vectors` is (items, dimension) float32."""
    epochs: tuple[EpochReport, ...]
    divergence: FailedPrecondition | None = None
    """How the fit diverged, where it did; then the tensors are the best until there."""

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The vectors of items (items, dimension)."""
        return self.tensors[ITEM_VECTORS].astype(np.float32, copy=False)


C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class Family(Protocol[C]):
    """A kind of model."""

    @property
    def name(self) -> str:
        """The name in the API."""

    @property
    def learns_from(self) -> Feedback:
        """The interactions it can use."""

    @property
    def is_parallel(self) -> bool:
        """Whether several processes can fit it together."""

    def config(self, settings: Mapping[str, Setting]) -> C:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""

    def fit(self, dataset: Dataset, config: C, run: Run) -> Fitted:
        """Learn from a data set; raises Cancelled within a second of `run.cancelled`."""

    def encoder(self, config: C, tensors: Tensors) -> Encoder:
        """The encoder of users that goes with fitted tensors."""


@runtime_checkable
class EncodesItems(Protocol[C_contra]):
    """A family that can give vectors to items that it did not learn."""

    def item_encoder(
        self, config: C_contra, tensors: Tensors, find: FindReader
    ) -> ItemEncoder | None:
        """The encoder of items that goes with fitted tensors; None where they hold none.

        `find` finds what reads texts, once one is to be read.
        """


@runtime_checkable
class RanksAnew(Protocol[C_contra]):
    """A family whose scores are more than inner products."""

    def scorer(self, config: C_contra, tensors: Tensors) -> Scorer:
        """The scorer of retrieved items that goes with fitted tensors."""


def scorer_of(family: Family[C], config: C, tensors: Tensors) -> Scorer | None:
    """What ranks a family's retrieved items anew; None where scores are inner products."""
    return family.scorer(config, tensors) if isinstance(family, RanksAnew) else None


@runtime_checkable
class ReadsFields(Protocol[C_contra]):
    """A family that learns from declared fields."""

    def fields(self, config: C_contra, catalog: Catalog) -> Mapping[Side, tuple[Field, ...]]:
        """The fields that it is to learn from.

        Raises:
            InvalidArgument: The catalog does not declare one that the config names.
        """

    def encodings(self, tensors: Tensors, find: FindReader) -> Mapping[Side, Encoding]:
        """How the fields become features, by the tensors of an artifact.

        `find` finds what reads texts, once one is to be read.
        """
