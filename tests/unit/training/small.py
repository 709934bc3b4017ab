"""Small data sets, the ways to part them, and a model of them that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from milvine.domain.model import Holdout, HoldoutMethod
from milvine.models import Dataset, Histories, Vocabulary
from milvine.training import evaluate
from milvine.training.recommender import Recommender

ITEMS = 9


def dataset_of(histories: list[dict[int, int]]) -> Dataset:
    """A data set of items and their times for each user."""
    ordered = [sorted(h.items(), key=lambda pair: (pair[1], pair[0])) for h in histories]
    flat = [pair for h in ordered for pair in h]
    return Dataset(
        Vocabulary([f"u{n}" for n in range(len(histories))]),
        Vocabulary([f"i{n}" for n in range(ITEMS)]),
        Histories(
            np.cumsum([0, *map(len, ordered)]),
            np.array([item for item, _ in flat], np.int32),
            np.ones(len(flat), np.float32),
            np.array([time for _, time in flat], np.int64),
        ),
    )


def pairs(histories: Histories) -> set[tuple[int, int]]:
    return set(zip(histories.users.tolist(), histories.items.tolist(), strict=True))


datasets = st.lists(
    st.dictionaries(st.integers(0, ITEMS - 1), st.integers(0, 4), min_size=1),
    min_size=1,
    max_size=8,
).map(dataset_of)
holdouts = st.builds(
    Holdout,
    method=st.sampled_from([HoldoutMethod.LATEST, HoldoutMethod.RANDOM]),
    fraction=st.none() | st.floats(0.01, 0.99),
    seed=st.integers(-3, 3),
)


@dataclass(frozen=True)
class KnownByLength:
    """An encoder that knows each user's vector by how many events the user has."""

    vectors: np.ndarray

    @property
    def dimension(self):
        return self.vectors.shape[1]

    taste_dimension = dimension

    def encode(self, histories):
        return self.vectors[histories.lengths].astype(np.float32)


@dataclass(frozen=True, eq=False)
class AddsByLength:
    """A scorer that adds to each item what the length of a history makes of it."""

    added: np.ndarray
    """(lengths, items)"""

    def read(self, histories):
        return self.added[histories.lengths].astype(np.float32)

    def gains(self, readers, candidates):
        """NaN for an item that it did not learn."""
        return np.take_along_axis(readers, candidates, axis=1)


def measure(train, held, user_vectors, item_vectors, holdout, scorer=None, **options):
    return evaluate(
        train,
        held,
        Recommender(KnownByLength(user_vectors), item_vectors.astype(np.float32), scorer),
        holdout=holdout,
        **options,
    )
