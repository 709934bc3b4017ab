"""Ridge regression of many users at once, exactly: how histories become vectors.

For a user with features X (n, d) of the items, weights c (n,), targets t (n,) and a diagonal
penalty D (d,), the solution is `(D + X' C X)^-1 X' C t`. Where the history is shorter than the
vectors, the dual form `D^-1 X' (C^-1 + X D^-1 X')^-1 t` gives the same at the cost of the history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Array: TypeAlias = NDArray[np.float64]
_CHUNK_NUMBERS = 2**22
"""How many numbers one batch of padded features may hold: 32 MB."""
_SMALLEST_PENALTY = 1e-6
"""Keeps the systems solvable where nothing is penalised."""


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """The regressions of a batch of users, in compressed rows."""

    offsets: NDArray[np.int64]
    """(users + 1,)"""
    items: NDArray[np.int32]
    """(events,): rows of the features."""
    weights: NDArray[np.float64]
    """(events,): over 0."""
    targets: NDArray[np.float64]
    """(events,)"""


def solve(
    features: NDArray[np.float32], seen: Observations, penalty: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The solutions (users, d) for features (items, d) and penalties (users, d), in float64.

    Users are solved in batches of like length, in bounded memory; a user without events is 0.
    """
    dimension = features.shape[1]
    lengths = np.diff(seen.offsets)
    solutions = np.zeros((len(lengths), dimension), np.float32)
    for users in _batches(lengths, dimension):
        x, weights, targets = _padded(features, seen, users, int(lengths[users[-1]]))
        diagonal = np.maximum(penalty[users], _SMALLEST_PENALTY)
        form = _dual if x.shape[1] < dimension else _primal
        solutions[users] = form(x, weights, targets, diagonal)
    return solutions


def _batches(lengths: NDArray[np.int64], dimension: int) -> Iterator[NDArray[np.int64]]:
    """Users with events in batches, shortest first, whose padded features fit the bound."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    start = int(np.searchsorted(ordered, 0, side="right"))
    while start < len(order):
        # Padding lengthens a history by half at most.
        longest = int(ordered[start]) * 3 // 2
        alike = int(np.searchsorted(ordered, longest, side="right"))
        stop = min(alike, start + max(1, _CHUNK_NUMBERS // (longest * dimension)))
        yield order[start:stop]
        start = stop


def _padded(
    features: NDArray[np.float32], seen: Observations, users: NDArray[np.int64], width: int
) -> tuple[_Array, _Array, _Array]:
    """Features (b, n, d), weights (b, n) and targets (b, n); padding is 0 with weight 1."""
    places = seen.offsets[users, None] + np.arange(width)
    padding = places >= seen.offsets[users + 1, None]
    places = np.minimum(places, len(seen.items) - 1)
    x = features[seen.items[places]].astype(np.float64)
    x[padding] = 0.0
    weights = np.where(padding, 1.0, seen.weights[places])
    targets = np.where(padding, 0.0, seen.targets[places])
    return x, weights, targets


def _dual(x: _Array, weights: _Array, targets: _Array, diagonal: _Array) -> _Array:
    scaled = x / diagonal[:, None, :]
    kernel = scaled @ x.transpose(0, 2, 1)
    _diagonal(kernel)[:] += 1.0 / weights
    return _times(_solved(kernel, targets), scaled)


def _primal(x: _Array, weights: _Array, targets: _Array, diagonal: _Array) -> _Array:
    weighted = x * weights[:, :, None]
    normal = weighted.transpose(0, 2, 1) @ x
    _diagonal(normal)[:] += diagonal
    return _solved(normal, _times(targets, weighted))


def _solved(matrices: _Array, right: _Array) -> _Array:
    return np.asarray(np.linalg.solve(matrices, right[:, :, None])[:, :, 0], np.float64)


def _diagonal(matrices: _Array) -> _Array:
    """A writable view (b, n) of the diagonals of matrices (b, n, n)."""
    size = matrices.shape[1]
    return matrices.reshape(len(matrices), -1)[:, :: size + 1]


def _times(rows: _Array, matrices: _Array) -> _Array:
    """The product of each row (b, n) with its matrix (b, n, d)."""
    return (rows[:, None, :] @ matrices)[:, 0]
