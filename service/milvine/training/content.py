"""Fitting the map from what items say to where a model has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog
from milvine.domain.entity import Side, text_of
from milvine.domain.errors import Cancelled
from milvine.domain.model import ContentSource
from milvine.models.base import IsCancelled, Tensors
from milvine.models.content import MIN_ITEMS, MOST_ITEMS, fit_content_map
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.text import TextEncoder

_BATCH = 64
"""Texts between two looks whether to stop: a slow encoder takes a second for so many."""
_ENCODED_SHARE = 0.9
"""Of the work, the rest being the regression."""


@dataclass(frozen=True, slots=True, eq=False)
class ItemTexts:
    """What the items of a catalog say, and who reads it."""

    fields: tuple[str, ...]
    """The names of the fields that the texts are made of."""
    ids: Sequence[str]
    texts: Sequence[str]
    """A text an id, none of them blank."""
    encoder: TextEncoder


def read_texts(records: Records, catalog: Catalog, encoder: TextEncoder) -> ItemTexts | None:
    """Read what the items of a catalog say; None where it declares no text. Blocks."""
    names = tuple(field.name for field in catalog.text_fields)
    if not names:
        return None
    told: dict[str, str] = {}
    for page in records.entities.values(catalog.id, Side.ITEM, names):
        for id_, *values in zip(page.ids, *page.values.values(), strict=True):
            given = {n: v for n, v in zip(names, values, strict=True) if v is not None}
            if text := text_of(given, names):
                told[id_] = text
    return ItemTexts(names, list(told), list(told.values()), encoder)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedContent:
    """A fitted map for the artifact, and what to tell of it."""

    tensors: Tensors
    source: ContentSource


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What a model learned of items."""

    items: Vocabulary
    vectors: NDArray[np.float32]
    """(items, dimension)"""
    taste_dimension: int


def learn_content(
    told: ItemTexts,
    learned: Learned,
    *,
    report: Callable[[float], None],
    cancelled: IsCancelled,
) -> LearnedContent | None:
    """Fit a model's map from text vectors to item vectors.

    Args:
        told: What items say; of more than MOST_ITEMS so many are drawn.
        learned: What the model has of them.
        report: Told the share that is done.
        cancelled: Asked about each second.

    Returns:
        None where fewer than MIN_ITEMS that the model knows say something.

    Raises:
        Cancelled: When `cancelled` says so.
        InvalidArgument: When the encoder's package is not installed.
    """
    rows = learned.items.rows(told.ids)
    places = np.flatnonzero(rows >= 0)
    if len(places) < MIN_ITEMS:
        return None
    if len(places) > MOST_ITEMS:
        places = np.sort(np.random.default_rng(0).choice(places, MOST_ITEMS, replace=False))
    texts = [told.texts[place] for place in places.tolist()]
    content = _encoded(told.encoder, texts, report, cancelled)
    fitted = fit_content_map(
        content,
        learned.vectors[rows[places]],
        taste_dimension=learned.taste_dimension,
        cancelled=cancelled,
    )
    source = ContentSource(
        text_fields=told.fields,
        text_encoder=told.encoder.name,
        fingerprint=told.encoder.fingerprint,
        item_count=len(places),
        explained=fitted.explained,
    )
    return LearnedContent(fitted.map.tensors, source)


def _encoded(
    encoder: TextEncoder,
    texts: Sequence[str],
    report: Callable[[float], None],
    cancelled: IsCancelled,
) -> NDArray[np.float32]:
    content = np.empty((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), _BATCH):
        if cancelled():
            raise Cancelled
        content[start : start + _BATCH] = encoder.encode(texts[start : start + _BATCH])
        report(_ENCODED_SHARE * start / len(texts))
    return content
