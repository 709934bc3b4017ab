"""Models as they serve: what retrieval and releases need of one at request time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog
from milvine.domain.model import Model
from milvine.models import family_of
from milvine.models.base import ITEM_VECTORS, Encoder, Feedback, Tensors
from milvine.models.histories import history_of
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


@dataclass(frozen=True, slots=True)
class ServingModel:
    """A model that encodes users; safe to use from several threads."""

    model: Model
    items: Vocabulary
    item_vectors: NDArray[np.float32]
    """(items, dimension)"""
    popularity: NDArray[np.int64]
    """(items,): how many users of the training data have each item."""
    encoder: Encoder
    feedback: Feedback
    catalog: Catalog
    """Declares the event types that histories are read by."""
    bias_dimensions: int
    """How many of the last dimensions are biases, which say nothing of taste."""
    by_popularity: NDArray[np.int64]
    """(items,): the rows of the items, the most popular first."""

    @property
    def dimension(self) -> int:
        """The dimensions of the vectors."""
        return self.encoder.dimension

    @property
    def taste_dimension(self) -> int:
        """The first dimensions of the vectors, whose direction is the taste."""
        return self.dimension - self.bias_dimensions

    def encode(
        self, events: pa.Table, user_ids: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """The vectors (users, dimension) of users with these interactions, in the order of ids.

        Args:
            events: Columns of `domain.interaction.INTERACTIONS`, in any order of rows; `user_id`
                and `event_id` may be absent where `user_ids` is.
            user_ids: Distinct ids; None: all events are of one user, who may have no id.
        """
        users = None if user_ids is None else Vocabulary(user_ids)
        return self.encoder.encode(
            history_of(events, self.catalog, self.feedback, items=self.items, users=users)
        )


def load_serving_model(artifacts: ModelStore, model: Model, catalog: Catalog) -> ServingModel:
    """Load a model to serve; raises DataLoss where its artifact is missing or damaged."""
    stored = artifacts.load(model.id)
    family = family_of(model.config)
    popularity = stored.tensors[POPULARITY].astype(np.int64, copy=False)
    return ServingModel(
        model=model,
        items=Vocabulary(stored.item_ids),
        item_vectors=stored.tensors[ITEM_VECTORS].astype(np.float32, copy=False),
        popularity=popularity,
        encoder=family.encoder(family.config(model.config.settings), stored.tensors),
        feedback=family.learns_from,
        catalog=catalog,
        bias_dimensions=family.bias_dimensions,
        by_popularity=np.argsort(-popularity, kind="stable"),
    )
