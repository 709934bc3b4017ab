"""Texts as towers read them: where the start of a factorisation has those who are so described.

A text vector has hundreds of dimensions and more, too many to learn by gradients from all items in
every step. So a ridge regression (`models/content.py`) first brings texts to the dimensions of the
model: to where the spectral start has those who are so described. The towers then learn from that
as from any numbers. While training, each row has what the regression foretells without it (Wolpert
1992, "Stacked generalization"), so what the towers learn to make of it holds for what is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from milvine.domain.errors import Cancelled
from milvine.models.base import IsCancelled, Tensors
from milvine.models.content import MIN_ITEMS, MOST_ITEMS, ContentMap, fit_content_map
from milvine.models.features import Features
from milvine.models.texts import Texts

_BATCH = 64
"""Texts between two looks whether to stop: a slow reader takes a second for so many."""


@dataclass(frozen=True, slots=True, eq=False)
class TextMap:
    """A linear map from text vectors to numbers of about 1."""

    map: ContentMap

    @classmethod
    def learned(
        cls, features: Features, vectors: NDArray[np.float32], cancelled: IsCancelled
    ) -> tuple[TextMap | None, Features]:
        """Learn the map.

        Args:
            features: Those of the rows to learn from; of more than MOST_ITEMS texts so many teach.
            vectors: Where the rows are, (rows, d).
            cancelled: Asked about each second.

        Returns:
            The map, None where fewer than MIN_ITEMS rows say something; and the features with
            numbers in place of texts.

        Raises:
            Cancelled: When `cancelled` says so.
        """
        texts = features.texts
        if texts is None or np.count_nonzero(texts.is_known) < MIN_ITEMS:
            return None, replace(features, texts=None)
        told = np.flatnonzero(texts.is_known)
        drawn = told
        if len(told) > MOST_ITEMS:
            drawn = np.sort(np.random.default_rng(0).choice(told, MOST_ITEMS, replace=False))
        content = np.concatenate(list(_read(texts, drawn, cancelled)))
        wanted = vectors[drawn] - vectors[drawn].mean(axis=0)
        fitted = fit_content_map(
            content, wanted, taste_dimension=wanted.shape[1], cancelled=cancelled
        )
        scale = np.float32(1.0 / (np.sqrt(np.square(fitted.foretold).mean()) or 1.0))
        found = cls(ContentMap(fitted.map.weights * scale, fitted.map.offset * scale))
        numbers = found._numbers(texts, np.setdiff1d(told, drawn), cancelled)
        numbers[drawn] = _marked(fitted.foretold * scale)
        return found, _with_numbers(features, numbers)

    def read(self, features: Features, cancelled: IsCancelled = lambda: False) -> Features:
        """The features with numbers in place of texts, if they have any.

        Raises:
            FailedPrecondition: The reader of texts is not installed here, or makes other vectors.
        """
        texts = features.texts
        if texts is None:
            return features
        numbers = self._numbers(texts, np.flatnonzero(texts.is_known), cancelled)
        return _with_numbers(features, numbers)

    def _numbers(
        self, texts: Texts, rows: NDArray[np.integer], cancelled: IsCancelled
    ) -> NDArray[np.float32]:
        """(all rows, 1 + d): a mark and the numbers of some rows; 0 for all others."""
        numbers = np.zeros((len(texts.said), 1 + len(self.map.offset)), np.float32)
        done = 0
        for content in _read(texts, rows, cancelled):
            some = rows[done : done + len(content)]
            numbers[some] = _marked(self.map.vectors(content))
            done += len(some)
        return numbers

    def tensors(self, name: str) -> Tensors:
        """What an artifact keeps under a name."""
        return {f"{name}.weights": self.map.weights, f"{name}.offset": self.map.offset}

    @classmethod
    def of(cls, tensors: Tensors, name: str) -> TextMap | None:
        """The map that an artifact has under a name; None where it has none."""
        if f"{name}.weights" not in tensors:
            return None
        parts = (tensors[f"{name}.{part}"] for part in ("weights", "offset"))
        return cls(ContentMap(*(part.astype(np.float32, copy=False) for part in parts)))


def _read(
    texts: Texts, rows: NDArray[np.integer], cancelled: IsCancelled
) -> Iterator[NDArray[np.float32]]:
    """The text vectors of some rows, some at a time."""
    for start in range(0, len(rows), _BATCH):
        if cancelled():
            raise Cancelled
        yield texts.vectors(rows[start : start + _BATCH])


def _marked(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers after a 1, by which what all have in common is learned."""
    return np.pad(numbers, ((0, 0), (1, 0)), constant_values=1.0)


def _with_numbers(features: Features, numbers: NDArray[np.float32]) -> Features:
    joined = np.concatenate((features.numbers, numbers), axis=1)
    return replace(features, numbers=joined, texts=None)
