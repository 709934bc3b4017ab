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
    ReadsFields,
    Scorer,
    Tensors,
    scorer_of,
)
from milvine.models.content import ContentMap
from milvine.models.families import family_of
from milvine.models.fields import Encoding
from milvine.models.texts import FindReader
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
    items: Vocabulary
    """Those that the model learned, and after these the ones that are placed by their content."""
    item_vectors: NDArray[np.float32]
    """(items, dimension)"""
    popularity: NDArray[np.int64]
    """(items,): how many users of the training data have each item."""
    by_popularity: NDArray[np.int64]
    """(items,): the rows of items, most popular first."""
    encoder: Encoder
    feedback: Feedback
    """What histories are made of for the encoder."""
    content: ContentMap | None = None
    """Places items by their content; None where the model learned none."""
    item_encoder: ItemEncoder | None = None
    """Places items by their fields; None where the family does not."""
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

    @property
    def places_items(self) -> bool:
        """Whether items that it did not learn may have vectors."""
        return self.content is not None or self.item_encoder is not None

    def with_items(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> ServingModel:
        """The model with items that it did not learn, (n, dimension); known ones move."""
        rows = self.items.rows(ids)
        added = np.flatnonzero(rows < 0)
        known = np.flatnonzero(rows >= self.items.fixed)
        kept = self.item_vectors
        if len(known):
            kept = kept.copy()
            kept[rows[known]] = vectors[known]
        count = len(self.items)
        return replace(
            self,
            items=self.items.extended([ids[place] for place in added.tolist()]),
            item_vectors=np.concatenate([kept, vectors[added]]),
            popularity=np.append(self.popularity, np.zeros(len(added), np.int64)),
            by_popularity=np.append(self.by_popularity, np.arange(count, count + len(added))),
        )


def load_serving_model(artifacts: ModelStore, model: Model, find: FindReader) -> ServingModel:
    """Load a model to serve.

    `find` finds what reads the texts of its items and users, once one is to be read.

    Raises:
        DataLoss: When its artifact is missing or damaged.
        Unavailable: When the artifacts do not answer.
    """
    stored = artifacts.load(model.id)
    family = family_of(model.config)
    config = family.config(model.config.settings)
    encodings = family.encodings(stored.tensors, find) if isinstance(family, ReadsFields) else {}
    item_encoder = None
    if isinstance(family, EncodesItems):
        item_encoder = family.item_encoder(config, stored.tensors, find)
    counts = stored.tensors[POPULARITY].astype(np.int64, copy=False)
    return ServingModel(
        model=model,
        items=Vocabulary(stored.item_ids),
        item_vectors=stored.tensors[ITEM_VECTORS].astype(np.float32, copy=False),
        popularity=counts,
        by_popularity=np.argsort(-counts, kind="stable"),
        encoder=family.encoder(config, stored.tensors),
        feedback=family.learns_from,
        content=ContentMap.of(stored.tensors),
        item_encoder=item_encoder,
        user_encoding=encodings.get(Side.USER),
        scorer=scorer_of(family, config, stored.tensors),
    )
