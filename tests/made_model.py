"""Models with vectors that a test chooses, without training."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milvine.artifacts import Artifacts
from milvine.domain.model import Model, ModelConfig
from milvine.models.base import ITEM_VECTORS
from milvine.models.families import filled
from milvine.models.serving import POPULARITY
from milvine.records import Records


def store_model(
    records: Records,
    artifacts: Artifacts,
    catalog_id: str,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
) -> Model:
    """Store a model whose items have these vectors, (n, dimension), a row an id.

    It is of the family `als`, so that histories are encoded; the vectors are not in its axes, so
    that what comes of a history means little. Earlier items are more popular.
    """
    count, dimension = vectors.shape
    model = Model(
        id=uuid.uuid4().hex,
        catalog_id=catalog_id,
        config=filled(ModelConfig("als", {"embedding_size": dimension})),
        user_count=0,
        item_count=count,
        pair_count=0,
        dimension=dimension,
        data_fingerprint="made",
        train_seconds=0.0,
    )
    gram = np.square(vectors, dtype=np.float64).sum(axis=0)
    tensors = {ITEM_VECTORS: vectors, "gram_diagonal": gram, POPULARITY: np.arange(count, 0, -1)}
    artifacts.save(model.id, tensors, ids, {})
    records.models.create(model)
    return model
