"""Small worlds whose right answers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from milvine.domain.catalog import Catalog, EventType, ValueMeaning
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import EpochReport, Setting
from milvine.models import Dataset, Encoder, Fitted, Run, families, history_of
from milvine.training.dataset import build

CATALOG = Catalog(
    "world",
    (
        EventType("view"),
        EventType("rate", 2.0, ValueMeaning.RATING, 3.0),
        EventType("watch", 0.5, ValueMeaning.SECONDS),
        EventType("buy", 3.0, ValueMeaning.QUANTITY),
        EventType("hide", 0.0),
    ),
)

LEARNT = {
    "mult_vae": {"epochs": 60, "learning_rate": 0.01},
    "sasrec": {"epochs": 60, "learning_rate": 0.01, "dropout": 0.0},
}
"""What small worlds need where the defaults suit large ones."""

Row = tuple[str, str, str, float | None, int]
"""User, item, event type, value and time."""


def table(rows: Iterable[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * 5
    names = ("user_id", "item_id", "event_type", "value", "event_time")
    arrays = dict(zip(names, columns, strict=True))
    return pa.table({"event_id": [None] * len(columns[0]), **arrays}, schema=INTERACTIONS)


def checkerboard(size: int = 50) -> list[Row]:
    """User u likes the items of u's colour; u's own item is withheld, and is the answer.

    Half of the other colour's items are rated low, for families that learn from ratings. Each user
    goes through the items in an order of their own, which says nothing.
    """
    rows: list[Row] = []
    times = np.random.default_rng(0).permuted(np.tile(np.arange(size), (size, 1)), axis=1).tolist()
    for user in range(size):
        for item in range(size):
            same, time = (user + item) % 2 == 0, times[user][item]
            if same and user != item:
                rows += [(f"u{user:02}", f"i{item:02}", "rate", 5.0, time)]
            elif not same and (user + item) % 4 == 1:
                rows += [(f"u{user:02}", f"i{item:02}", "rate", 1.0, time)]
    return rows


def low_rank(users: int, items: int, share: float, seed: int = 0) -> list[Row]:
    """Ratings of rank 2 with biases and a little noise, in the order of the items."""
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(users, 2)) @ rng.normal(size=(2, items))
    ratings = 3 + 0.3 * rng.normal(size=(users, 1)) + 0.3 * rng.normal(size=items) + tastes
    ratings += 0.1 * rng.normal(size=ratings.shape)
    pairs = np.argwhere(rng.random(ratings.shape) < share)
    return [(f"u{u}", f"i{i}", "rate", float(ratings[u, i]), int(i)) for u, i in pairs]


def dataset_of(family: str, rows: Iterable[Row], catalog: Catalog = CATALOG) -> Dataset:
    return build(table(rows), catalog, families[family].learns_from)


def fit(
    family: str,
    dataset: Dataset,
    on_epoch: Callable[[EpochReport], None] = lambda _: None,
    **settings: Setting,
) -> tuple[Fitted, Encoder]:
    kind = families[family]
    config = kind.config(settings)
    fitted = kind.fit(dataset, config, Run(on_epoch=on_epoch))
    return fitted, kind.encoder(config, fitted.tensors)


def encode(family: str, encoder: Encoder, dataset: Dataset, rows: Iterable[Row]) -> np.ndarray:
    """The vector (dimension,) of one user with these events."""
    feedback = families[family].learns_from
    return encoder.encode(history_of(table(rows), CATALOG, feedback, items=dataset.items))[0]
