"""Models as they serve: what retrieval and releases need of one at request time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.model import Model
from milvine.models.base import (
    ITEM_VECTORS,
    Encoder,
    EncodesItems,
    Feedback,
    ItemEncoder,
    RanksAnew,
    ReadsFields,
    Scorer,
    Tensors,
)
from milvine.models.families import family_of
from milvine.models.fields import Encoding
from milvine.models.vocabulary import Vocabulary

POPULARITY = "item_popularity"


class StoredModel(Protocol):
    """What an artifact holds."""

    @property
    def item_ids(self) -> pa.StringArray:
        """The ids of the items, a row each."""

    @property
    def tensors(self) -> Tensors:
        """The arrays by name."""


class ModelStore(Protocol):
    """Where artifacts are kept."""

    def load(self, model_id: str) -> StoredModel:
        """The artifact of a model."""


@dataclass(frozen=True, slots=True, eq=False)
class ServingModel:
    """A model that encodes users; safe to use from several threads."""

    model: Model
    learned: Vocabulary
    """The items that histories are read by: those of the training data."""
    items: Vocabulary
    """The items that have a vector: those that it learned, then new ones."""
    item_vectors: NDArray[np.float32]
    """(items, dimension)"""
    popularity: NDArray[np.int64]
    """(items,): how many users of the training data have each item."""
    by_popularity: NDArray[np.int64]
    """(items,): the rows of items, most popular first."""
    encoder: Encoder
    feedback: Feedback
    """What histories are made of for the encoder."""
    item_encoder: ItemEncoder | None = None
    """How items that it did not learn get vectors; None: they get none."""
    user_encoding: Encoding | None = None
    """How the fields of users become features for the encoder; None: it reads none."""
    scorer: Scorer | None = None
    """How retrieved items are ranked anew; None: scores are inner products."""

    @property
    def dimension(self) -> int:
        """The dimensions of the vectors."""
        return self.encoder.dimension

    @property
    def taste_dimension(self) -> int:
        """The leading dimensions, which hold the taste; biases follow them."""
        return self.encoder.taste_dimension

    def with_items(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> ServingModel:
        """The same model with more items that it did not learn, and their vectors (n, dimension).

        Nobody of the training data has them.
        """
        rows = np.arange(len(self.items), len(self.items) + len(ids))
        return replace(
            self,
            items=self.items.and_more(ids),
            item_vectors=np.concatenate([self.item_vectors, vectors]),
            popularity=np.concatenate([self.popularity, np.zeros(len(ids), np.int64)]),
            by_popularity=np.concatenate([self.by_popularity, rows]),
        )


def load_serving_model(artifacts: ModelStore, model: Model) -> ServingModel:
    """Load a model to serve.

    Raises:
        DataLoss: When its artifact is missing or damaged.
        Unavailable: When the artifacts do not answer.
    """
    stored = artifacts.load(model.id)
    family = family_of(model.config)
    config = family.config(model.config.settings)
    counts = stored.tensors[POPULARITY].astype(np.int64, copy=False)
    items = Vocabulary(stored.item_ids)
    encodings = family.encodings(stored.tensors) if isinstance(family, ReadsFields) else {}
    item_encoder = None
    if isinstance(family, EncodesItems):
        item_encoder = family.item_encoder(config, stored.tensors)
    return ServingModel(
        model=model,
        learned=items,
        items=items,
        item_vectors=stored.tensors[ITEM_VECTORS].astype(np.float32, copy=False),
        popularity=counts,
        by_popularity=np.argsort(-counts, kind="stable"),
        encoder=family.encoder(config, stored.tensors),
        feedback=family.learns_from,
        item_encoder=item_encoder,
        user_encoding=encodings.get(Side.USER),
        scorer=family.scorer(config, stored.tensors) if isinstance(family, RanksAnew) else None,
    )
