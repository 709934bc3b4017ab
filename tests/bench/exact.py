"""Ranking without an index: every score is computed from the model's artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from milvine.artifacts import Artifacts
from milvine.models.base import Feedback, Histories
from milvine.models.histories import history_of
from milvine.models.serving import ServingModel, load_serving_model
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.settings import Settings
from milvine.text import same_encoder

_SCORES = 2**25
"""How many scores are held at once: 128 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class ExactRanking:
    """A model and the histories of the users to rank for."""

    served: ServingModel
    histories: Histories
    """What the model knows of them, a user each."""
    seen: Histories
    """What they have had to do with, liked or not."""

    @classmethod
    def of(cls, settings: Settings, model_id: str, users: Sequence[str]) -> Self:
        """Read a model, and the users' interactions as the service recorded them."""
        records = Records.open(settings.records)
        try:
            model = records.models.get(model_id)
            catalog = records.catalogs.get(model.catalog_id)
            events = records.interactions.scan(catalog.id)
        finally:
            records.close()
        served = load_serving_model(Artifacts(settings.artifacts), model, same_encoder)
        asked = Vocabulary(pa.array(users, pa.string()))
        every = replace(
            catalog, event_types=tuple(replace(t, liked_from=None) for t in catalog.event_types)
        )
        return cls(
            served,
            history_of(events, catalog, served.feedback, items=served.items, users=asked),
            history_of(events, every, Feedback.IMPLICIT, items=served.items, users=asked),
        )

    def take(self, users: NDArray[np.integer]) -> Self:
        """The ranking for some of the users, by their places."""
        return replace(self, histories=self.histories.take(users), seen=self.seen.take(users))

    def by_score(self, count: int) -> Iterator[list[list[str]]]:
        """Yield the best items of some users at a time, best first, without those they have.

        Users without a history get popular items, as from the service.
        """
        vectors = torch.from_numpy(np.array(self.served.item_vectors))
        popularity = self._popularity()
        for users in self._batches():
            histories = self.histories.take(users)
            scores = torch.from_numpy(self.served.encoder.encode(histories)) @ vectors.mT
            scores[torch.from_numpy(histories.lengths == 0)] = popularity
            yield self._top(scores, self.seen.take(users), count)

    def by_popularity(self, count: int) -> Iterator[list[list[str]]]:
        """Yield the items that most users have, in the same way."""
        popularity = self._popularity()
        for users in self._batches():
            yield self._top(popularity.repeat(len(users), 1), self.seen.take(users), count)

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        size = max(1, _SCORES // len(self.served.items))
        for start in range(0, len(self.histories), size):
            stop = min(start + size, len(self.histories))
            yield np.arange(start, stop)

    def _popularity(self) -> torch.Tensor:
        return torch.from_numpy(self.served.popularity.astype(np.float32))

    def _top(self, scores: torch.Tensor, seen: Histories, count: int) -> list[list[str]]:
        """The best items of each row of scores (users, items), which are changed."""
        scores[torch.from_numpy(seen.users), torch.from_numpy(seen.items).long()] = -torch.inf
        best = scores.topk(min(count, scores.shape[1]))
        rows: NDArray[np.int64] = best.indices.numpy()
        ids = self.served.items.take(rows.ravel())
        width = rows.shape[1]
        lists = [ids[at : at + width] for at in range(0, len(ids), width)]
        finite = best.values.isfinite().sum(1).tolist()
        return [found[:length] for found, length in zip(lists, finite, strict=True)]
