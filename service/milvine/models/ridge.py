"""Ridge regression of many users at once, exactly: how histories become vectors.

For a user with features X (n, d) of the items, weights c (n,), targets t (n,) and a diagonal
penalty D (d,), the solution is `(D + X' C X)^-1 X' C t`. Where the history is shorter than the
vectors, the dual form `D^-1 X' (C^-1 + X D^-1 X')^-1 t` gives the same at the cost of the history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK_NUMBERS = 2**22
"""How many numbers one batch of padded features may hold: 32 MB."""
_SMALLEST_PENALTY = 1e-6
"""Keeps the systems solvable where nothing is penalised."""


@dataclass(frozen=True, slots=True)
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
    table = torch.from_numpy(np.require(features, requirements="W"))
    for users in _batches(lengths, dimension):
        x, weights, targets = _padded(table, seen, users, int(lengths[users[-1]]))
        diagonal = torch.from_numpy(penalty[users]).clamp_min(_SMALLEST_PENALTY)
        form = _dual if x.shape[1] < dimension else _primal
        solutions[users] = form(x, weights, targets, diagonal).numpy()
    return solutions


def _batches(lengths: NDArray[np.int64], dimension: int) -> Iterator[NDArray[np.int64]]:
    """Users with events in batches, shortest first, whose padded features fit the bound."""
    order = np.argsort(lengths, kind="stable")
    start = int(np.searchsorted(lengths[order], 0, side="right"))
    while start < len(order):
        # Padding at most doubles the work.
        longest = 2 * int(lengths[order[start]])
        alike = int(np.searchsorted(lengths[order], longest, side="right"))
        stop = min(alike, start + max(1, _CHUNK_NUMBERS // (longest * dimension)))
        yield order[start:stop]
        start = stop


def _padded(
    table: Tensor, seen: Observations, users: NDArray[np.int64], width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (b, n, d), weights (b, n) and targets (b, n); padding is 0 with weight 1."""
    places = seen.offsets[users, None] + np.arange(width)
    padding = torch.from_numpy(places >= seen.offsets[users + 1, None])
    places = np.minimum(places, len(seen.items) - 1)
    x = table[torch.from_numpy(seen.items[places]).long()].double()
    x.masked_fill_(padding[:, :, None], 0.0)
    weights = torch.from_numpy(seen.weights[places]).masked_fill_(padding, 1.0)
    targets = torch.from_numpy(seen.targets[places]).masked_fill_(padding, 0.0)
    return x, weights, targets


def _dual(x: Tensor, weights: Tensor, targets: Tensor, diagonal: Tensor) -> Tensor:
    scaled = x / diagonal[:, None, :]
    kernel = scaled @ x.mT + torch.diag_embed(1.0 / weights)
    return (_positive_solve(kernel, targets)[:, None, :] @ scaled)[:, 0]


def _primal(x: Tensor, weights: Tensor, targets: Tensor, diagonal: Tensor) -> Tensor:
    weighted = x * weights[:, :, None]
    normal = weighted.mT @ x + torch.diag_embed(diagonal)
    return _positive_solve(normal, (targets[:, None, :] @ weighted)[:, 0])


def _positive_solve(matrices: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(matrices))[:, :, 0]
