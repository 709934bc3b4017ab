"""What two towers learn from beside events: declared fields and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.models.base import Dataset, Histories, IsCancelled, Run, Tensors
from milvine.models.features import Features
from milvine.models.fields import Encoding
from milvine.models.spectral import Start
from milvine.models.text_map import TextMap
from milvine.models.validation import Validation

FIELDS = {Side.ITEM: "item_fields", Side.USER: "user_fields"}
"""The tensors that hold how fields become features, and the settings that name them."""
TEXTS = {Side.ITEM: "item_text", Side.USER: "user_text"}
"""The tensors that hold the maps of texts."""


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """What is known of items and users beside their events, texts as numbers."""

    items: Features
    users: Features
    maps: Mapping[Side, TextMap | None]
    """How the texts of each side became numbers; None where none are read."""

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        histories: Histories,
        begin: Start,
        run: Run,
        *,
        reads_texts: bool,
    ) -> Described:
        """Read the features of a data set; texts by where a start has those whom they describe.

        Raises:
            Cancelled: When `run.cancelled` says so.
            InvalidArgument: The package of what reads texts is not installed.
        """
        items = dataset.item_features or Features.none(len(dataset.items))
        users = histories.features or Features.none(len(histories))
        if not reads_texts:
            items, users = replace(items, texts=None), replace(users, texts=None)
        item_map, items = TextMap.learned(items, begin.targets.cpu().numpy(), run.cancelled)
        user_map, users = TextMap.learned(users, _means(histories, begin), run.cancelled)
        return cls(items, users, {Side.ITEM: item_map, Side.USER: user_map})

    def reread(self, validation: Validation | None, cancelled: IsCancelled) -> Validation | None:
        """The validation with texts read once, not after each pass, nor in every process.

        Raises:
            Cancelled: When `cancelled` says so.
        """
        features = validation.seen.features if validation else None
        if validation is None or features is None or features.texts is None:
            return validation
        found = self.maps[Side.USER]
        read = found.read(features, cancelled) if found else replace(features, texts=None)
        return Validation(
            replace(validation.seen, features=read), replace(validation.held, features=None)
        )

    def tensors(self, encodings: Mapping[Side, Encoding]) -> Tensors:
        """What an artifact keeps of how features are made."""
        kept: dict[str, NDArray[np.generic]] = {}
        for side, encoding in encodings.items():
            if (found := self.maps[side]) is not None:
                kept |= {FIELDS[side]: encoding.packed(), **found.tensors(TEXTS[side])}
            elif encoding.codes:
                kept[FIELDS[side]] = replace(encoding, text=None).packed()
        return kept


def _means(histories: Histories, begin: Start) -> NDArray[np.float32]:
    """(users, d): the mean of what the items of each history add to it."""
    offsets = torch.from_numpy(histories.offsets[:-1])
    items = torch.from_numpy(histories.items.astype(np.int64))
    means: NDArray[np.float32] = F.embedding_bag(
        items, begin.sources.cpu(), offsets, mode="mean"
    ).numpy()
    return means
