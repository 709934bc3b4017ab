"""Made-up catalogs with the skew of real ones, the same in each run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, ValueMeaning
from milvine.domain.entity import Entity
from milvine.domain.interaction import INTERACTIONS

SHOP = Catalog(
    id="shop",
    event_types=(
        EventType("view"),
        EventType("purchase", weight=5.0, value_meaning=ValueMeaning.QUANTITY),
    ),
    item_fields=(
        Field("title", FieldType.STRING),
        Field("year", FieldType.INT64),
        Field("genres", FieldType.STRING_LIST),
    ),
)
_START = 1_500_000_000
_GENRES = ("drama", "comedy", "thriller", "romance", "documentary", "animation", "horror", "war")


@dataclass(frozen=True, slots=True)
class Size:
    """How many of what."""

    users: int
    items: int
    interactions: int


def interactions(size: Size, *, seed: int = 0) -> pa.Table:
    """Events in order of time: few users and few items have most of them, each item has some.

    One in ten is a purchase, of a quantity; the others are views. Times are whole seconds.
    """
    rng = np.random.default_rng(seed)
    count = size.interactions
    items = _skewed(rng, size.items, count)
    items[: size.items] = rng.permutation(size.items)[:count]
    is_purchase = rng.random(count) < 0.1
    columns = {
        "event_id": pa.nulls(count, pa.string()),
        "user_id": _ids("user", _skewed(rng, size.users, count)),
        "item_id": _ids("item", items),
        "event_type": pa.array(np.where(is_purchase, "purchase", "view")),
        "value": pa.array(rng.integers(1, 5, count).astype(float), mask=~is_purchase),
        "event_time": pa.array((_START + np.cumsum(rng.integers(1, 60, count))) * 1_000_000),
    }
    return pa.table(columns, schema=INTERACTIONS)


def items(count: int, *, seed: int = 0) -> list[Entity]:
    """Items with a title of some words, a year and one to three genres."""
    rng = np.random.default_rng(seed)
    years, genre_counts = rng.integers(1950, 2027, count), rng.integers(1, 4, count)
    return [
        Entity(
            f"item-{row:07}",
            {
                "title": f"The {_GENRES[row % len(_GENRES)]} of number {row}",
                "year": int(years[row]),
                "genres": tuple(rng.choice(_GENRES, genre_counts[row], replace=False).tolist()),
            },
        )
        for row in range(count)
    ]


def _skewed(rng: np.random.Generator, kinds: int, count: int) -> NDArray[np.int64]:
    """Draw rows whose frequencies fall with a power of their rank, as those of real users do."""
    shares = 1 / np.arange(10, kinds + 10) ** 0.8
    return rng.choice(kinds, count, p=shares / shares.sum())


def _ids(prefix: str, rows: NDArray[np.int64]) -> pa.Array:
    texts = pa.array([f"{prefix}-{row:07}" for row in range(int(rows.max()) + 1)])
    return texts.take(pa.array(rows))
