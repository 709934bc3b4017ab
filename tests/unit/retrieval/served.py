"""Models that serve, without stores."""

from __future__ import annotations

from functools import cache

import numpy as np

from milvine.models import families
from milvine.models.base import RanksAnew
from milvine.models.serving import ServingModel
from tests.contracts.records.samples import model
from tests.unit.models.worlds import checkerboard, dataset_of, fit


@cache
def served_checkerboard(family: str) -> ServingModel:
    """A family that learned the checkerboard: users like items of one colour, even or odd."""
    dataset, kind = dataset_of(family, checkerboard(30)), families[family]
    fitted, encoder = fit(family, dataset, embedding_size=8)
    config = kind.config({"embedding_size": 8})
    counts = np.bincount(dataset.histories.items, minlength=len(dataset.items))
    return ServingModel(
        model=model("m"),
        items=dataset.items,
        item_vectors=fitted.item_vectors,
        popularity=counts,
        by_popularity=np.argsort(-counts, kind="stable"),
        encoder=encoder,
        feedback=kind.learns_from,
        scorer=kind.scorer(config, fitted.tensors) if isinstance(kind, RanksAnew) else None,
    )
