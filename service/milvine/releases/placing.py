"""Placing items that a model did not learn by their fields and what they say, as it learned to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import FieldValue, text_of
from milvine.models.base import ItemEncoder
from milvine.models.content import ContentMap
from milvine.models.serving import ServingModel
from milvine.text import TextEncoder, same_encoder

_BATCH = 256
"""Items that are placed at a time; between them the work can be stopped."""

Fields: TypeAlias = Mapping[str, FieldValue]


@dataclass(frozen=True, slots=True)
class Placer:
    """Places items by what they say."""

    by_fields: ItemEncoder | None
    """Places them by declared fields; None where the family does not."""
    by_text: _TextPlacer | None
    """Places those that this leaves; None where the model learned no map."""

    @classmethod
    def of(cls, served: ServingModel) -> Placer | None:
        """What places items for a model; None where it places none.

        Raises:
            FailedPrecondition: The map's encoder is not installed here, or makes other vectors now.
        """
        if not served.places_items:
            return None
        return cls(served.item_encoder, _TextPlacer.of(served))

    async def place(self, items: Mapping[str, Fields]) -> dict[str, NDArray[np.float32]]:
        """The vectors, (dimension,), of those of some items that say something, by id.

        Raises:
            FailedPrecondition: What reads texts for the family is not installed here, or makes
                other vectors now.
        """
        placed: dict[str, NDArray[np.float32]] = {}
        if self.by_fields is not None:
            placed = await _by_fields(self.by_fields, items)
        if self.by_text is not None:
            left = {id_: fields for id_, fields in items.items() if id_ not in placed}
            placed |= await self.by_text.place(left)
        return placed


@dataclass(frozen=True, slots=True)
class _TextPlacer:
    map: ContentMap
    fields: tuple[str, ...]
    """The names of the fields that say it."""
    encoder: TextEncoder

    @classmethod
    def of(cls, served: ServingModel) -> _TextPlacer | None:
        source = served.model.content
        if served.content is None or source is None:
            return None
        encoder = same_encoder(source.text_encoder, source.fingerprint)
        return cls(served.content, source.text_fields, encoder)

    async def place(self, items: Mapping[str, Fields]) -> dict[str, NDArray[np.float32]]:
        placed: dict[str, NDArray[np.float32]] = {}
        async for ids, content in encoded(self.encoder, self.fields, items):
            placed.update(zip(ids, self.map.vectors(content), strict=True))
        return placed


async def _by_fields(
    encoder: ItemEncoder, items: Mapping[str, Fields]
) -> dict[str, NDArray[np.float32]]:
    ids = list(items)
    placed: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(ids), _BATCH):
        some = ids[start : start + _BATCH]
        vectors = await asyncio.to_thread(encoder.encode, [items[id_] for id_ in some])
        known = np.isfinite(vectors).all(axis=1)
        placed |= {some[place]: vectors[place] for place in np.flatnonzero(known).tolist()}
    return placed


async def encoded(
    encoder: TextEncoder, names: Sequence[str], items: Mapping[str, Fields]
) -> AsyncIterator[tuple[list[str], NDArray[np.float32]]]:
    """The ids and text vectors of those of some items that say something, some at a time."""
    texts = {i: text_of(fields, names) for i, fields in items.items()}
    ids = [id_ for id_, text in texts.items() if text]
    for start in range(0, len(ids), _BATCH):
        some = ids[start : start + _BATCH]
        yield some, await asyncio.to_thread(encoder.encode, [texts[id_] for id_ in some])


async def with_new_items(served: ServingModel, items: Mapping[str, Fields]) -> ServingModel:
    """The model with those of some items that it did not learn, placed by what they say.

    Raises:
        FailedPrecondition: The map's encoder is not installed here, or makes other vectors now.
    """
    placer = Placer.of(served)
    if placer is None or not items:
        return served
    ids = list(items)
    rows = await asyncio.to_thread(served.items.rows, ids)
    new = [ids[place] for place in np.flatnonzero(rows < 0).tolist()]
    placed = await placer.place({id_: items[id_] for id_ in new})
    if not placed:
        return served
    return served.with_items(list(placed), np.stack(list(placed.values())))
