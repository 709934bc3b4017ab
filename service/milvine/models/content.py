"""A learned map from content to the space of a model: how an item without interactions is placed.

Ridge regression from content vectors of items to what a model learned of them, as Gantner et al.
2010, "Learning attribute-to-feature mappings for cold-start recommendations", section 4.2. The
penalty is the one of the least leave-one-out error, which a ridge has in closed form (Allen 1974,
the PRESS statistic).

A ridge shrinks: what it predicts is shorter than what a model learns, so mapped items would hardly
ever be among the best. So predictions are scaled until those that left an item out are, in the
mean square, as long as the item's own vector. A new item is then recommended about as often as a
known one: where a tenth of goodbooks' items were new, 6 % of the hits of all lists were new ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.errors import Cancelled
from milvine.models.base import IsCancelled, Tensors

MIN_ITEMS = 10
"""Fewer items with content teach nothing."""
MOST_ITEMS = 30_000
"""Of more items so many are drawn: the map hardly changes, and their content fits in memory."""
_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""By the mean of the content's eigenvalues."""
_WEIGHTS, _OFFSET = "content_map.weights", "content_map.offset"
_LARGEST_LEVERAGE = 0.999
"""An item that is alone with its content would be predicted by nothing."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ContentMap:
    """A linear map from content vectors to item vectors."""

    weights: NDArray[np.float32]
    """(content dimension, dimension)"""
    offset: NDArray[np.float32]
    """(dimension,)"""

    def vectors(self, content: NDArray[np.float32]) -> NDArray[np.float32]:
        """The item vectors (n, dimension) of content vectors (n, content dimension)."""
        return content @ self.weights + self.offset

    @property
    def tensors(self) -> Tensors:
        """What an artifact keeps."""
        return {_WEIGHTS: self.weights, _OFFSET: self.offset}

    @classmethod
    def of(cls, tensors: Tensors) -> ContentMap | None:
        """The map that an artifact has; None where it has none."""
        if _WEIGHTS not in tensors:
            return None
        return cls(*(tensors[name].astype(np.float32, copy=False) for name in (_WEIGHTS, _OFFSET)))


@dataclass(frozen=True, slots=True, eq=False)
class FittedMap:
    """A map, and how well it tells of items that it was not fitted on."""

    map: ContentMap
    explained: float
    """The share of the variance of item vectors that content explains, at most 1; leave-one-out."""
    foretold: NDArray[np.float32]
    """(n, dimension): what it tells of each item when it is fitted without it."""


def fit_content_map(
    content: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    *,
    taste_dimension: int,
    cancelled: IsCancelled = lambda: False,
) -> FittedMap:
    """Fit the map; the biases after the tastes are predicted and not scaled.

    Args:
        content: (n, content dimension), n of at least MIN_ITEMS.
        item_vectors: (n, dimension): what the model learned of the same items.
        taste_dimension: The leading dimensions of item vectors that hold the taste.
        cancelled: Asked between the steps.

    Raises:
        Cancelled: When `cancelled` says so.
    """
    mean, centre = content.mean(axis=0), item_vectors.mean(axis=0)
    rotated, axes, spectrum = _principal(content - mean, cancelled)
    targets = (item_vectors - centre).astype(np.float64)
    products = rotated.T @ targets
    unit = float(spectrum.mean()) if len(spectrum) else 1.0  # items may all say the same
    fits = [
        _Ridge.of(rotated, spectrum, products, targets, penalty * unit) for penalty in _PENALTIES
    ]
    best = min(fits, key=lambda fit: fit.squared_error)
    unscaled = axes @ best.coefficients
    scale = np.ones(len(centre))
    foretold = item_vectors - best.residuals
    scale[:taste_dimension] = _lengthening(
        item_vectors[:, :taste_dimension], foretold[:, :taste_dimension]
    )
    weights = unscaled * scale
    offset = centre * scale - mean @ weights
    variance = float(np.square(targets).sum()) or 1.0
    return FittedMap(
        ContentMap(weights.astype(np.float32), offset.astype(np.float32)),
        1.0 - best.squared_error / variance,
        (foretold * scale).astype(np.float32),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Ridge:
    """A ridge regression in the axes of its features."""

    coefficients: _Floats
    residuals: _Floats
    """(n, dimension): of each item, by the regression without it."""

    @property
    def squared_error(self) -> float:
        return float(np.square(self.residuals).sum())

    @classmethod
    def of(
        cls,
        rotated: _Floats,
        spectrum: _Floats,
        products: _Floats,
        targets: _Floats,
        penalty: float,
    ) -> _Ridge:
        shrunk = 1.0 / (spectrum + penalty)
        coefficients = products * shrunk[:, None]
        leverage = np.square(rotated) @ shrunk + 1.0 / len(rotated)
        left = 1.0 - np.minimum(leverage, _LARGEST_LEVERAGE)
        return cls(coefficients, (targets - rotated @ coefficients) / left[:, None])


def _principal(
    centred: NDArray[np.float32], cancelled: IsCancelled
) -> tuple[_Floats, _Floats, _Floats]:
    """Features (n, r) in their principal axes, the axes (d, r), and the squared lengths (r,).

    By the smaller of both Gram matrices, in float64.
    """
    exact = centred.astype(np.float64)
    is_wide = exact.shape[1] > len(exact)
    gram = exact @ exact.T if is_wide else exact.T @ exact
    if cancelled():
        raise Cancelled
    spectrum, axes = np.linalg.eigh(gram)
    kept = spectrum > max(spectrum[-1], 1e-12) * 1e-9
    spectrum, axes = spectrum[kept], axes[:, kept]
    if cancelled():
        raise Cancelled
    if is_wide:
        lengths = np.sqrt(spectrum)
        return axes * lengths, exact.T @ (axes / lengths), spectrum
    return exact @ axes, axes, spectrum


def _lengthening(own: NDArray[np.float32], predicted: _Floats) -> float:
    """By how much predictions are to be longer to be as long as the items' own vectors."""
    wanted, found = np.square(own, dtype=np.float64).sum(), np.square(predicted).sum()
    return float(np.sqrt(wanted / found)) if found > 0 else 1.0
