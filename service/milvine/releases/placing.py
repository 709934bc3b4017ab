"""Placing items that a model did not learn by what they say, as it learned to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import FieldValue, text_of
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import ContentSource
from milvine.models.content import ContentMap
from milvine.models.serving import ServingModel
from milvine.text import TextEncoder, text_encoder

_BATCH = 256
"""Texts that are encoded at a time; between them the work can be stopped."""

Fields: TypeAlias = Mapping[str, FieldValue]


@dataclass(frozen=True, slots=True)
class Placer:
    """Places items by what they say."""

    map: ContentMap
    source: ContentSource
    encoder: TextEncoder

    @classmethod
    def of(cls, served: ServingModel) -> Placer | None:
        """What places items for a model; None where it learned no map.

        Raises:
            InvalidArgument: The encoder of the map is not installed here.
            FailedPrecondition: The encoder makes other vectors now than when the map was learned.
        """
        source = served.model.content
        if served.content is None or source is None:
            return None
        encoder = text_encoder(source.text_encoder)
        if encoder.fingerprint != source.fingerprint:
            raise FailedPrecondition(
                f"model {served.model.id!r} learned where items belong from the vectors of "
                f"{source.fingerprint}, this version makes those of {encoder.fingerprint}; "
                "train again",
                Reason.WRONG_STATE,
                {"model_id": served.model.id},
            )
        return cls(served.content, source, encoder)

    async def place(self, items: Mapping[str, Fields]) -> dict[str, NDArray[np.float32]]:
        """The vectors, (dimension,), of those of some items that say something, by id."""
        texts = {i: text_of(fields, self.source.text_fields) for i, fields in items.items()}
        told = [(id_, text) for id_, text in texts.items() if text]
        placed: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(told), _BATCH):
            ids, some = zip(*told[start : start + _BATCH], strict=True)
            content = await asyncio.to_thread(self.encoder.encode, some)
            placed.update(zip(ids, self.map.vectors(content), strict=True))
        return placed


async def with_new_items(served: ServingModel, items: Mapping[str, Fields]) -> ServingModel:
    """The model with those of some items that it did not learn, placed by what they say.

    Raises:
        InvalidArgument: The encoder of the model's map is not installed here.
        FailedPrecondition: The encoder makes other vectors now than when the map was learned.
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
