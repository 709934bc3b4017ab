"""Alternating least squares by block conjugate gradient, on the processor or an accelerator.

One side is fixed, and every row of the other solves its own regularised least squares. All rows of
a block take their conjugate-gradient steps together (Takács, Pilászy and Tikk 2011 solve them row
by row), so that a step is two sparse products: inner products at the observed pairs, and their sum
of fixed vectors. Three things keep the steps few and cheap:

- Each sweep starts from the last one's solution, and what the pairs are short of their targets is
  carried from sweep to sweep.
- What all pairs add to every row's matrix is diagonal in the axes that each sweep turns to, so the
  steps can be preconditioned by about the whole diagonal (Golub and Van Loan 2013, section 11.5).
- On the processor each core takes blocks of its own, small enough for its cache: no core waits for
  another after each of many short operations, which costs most beside other work.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

from milvine.domain.errors import Cancelled
from milvine.models.base import Histories, IsCancelled

_STEPS = 2
_INITIAL_SCALE = 0.1
_TINY = 1e-30
"""Rows that are solved already take steps of 0."""
_SMALLEST_CURVATURE = 1e-6
"""Keeps directions finite where nothing is observed and nothing penalised."""
_BLOCK_NUMBERS = 2**22
"""How many numbers of fixed vectors a block touches: some 10 ms of work between cancel checks."""
_DEVICE_BLOCK_NUMBERS = 2**25
"""The same on an accelerator, which wants more at once."""
_CHUNK_NUMBERS = 2**18
"""How many numbers of vectors a core turns at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Successive rows of the matrix of observed pairs, in compressed rows."""

    rows: slice
    events: slice
    pairs: slice | Tensor
    """Where the data set has its events."""
    offsets: Tensor
    columns: Tensor
    places: Tensor
    """(events,): the place of each event's row in the block."""
    shape: tuple[int, int]

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """(events,): the inner product of both vectors of each pair."""
        zeros = left.new_zeros(len(self.columns))
        sampled = torch.sparse_csr_tensor(
            self.offsets, self.columns, zeros, self.shape, check_invariants=False
        )
        torch.sparse.sampled_addmm(sampled, left, right.mT, beta=0.0, out=sampled)
        return sampled.values()

    def sums(self, values: Tensor, right: Tensor) -> Tensor:
        """(rows, d): the sum of the vectors of each row's pairs, times their values (events,)."""
        return F.embedding_bag(
            self.columns, right, self.offsets[:-1], mode="sum", per_sample_weights=values
        )


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The regressions of all rows of one side."""

    blocks: tuple[Block, ...]
    weights: Tensor
    """(events,): over 0."""
    penalty: Tensor
    """(rows, d): the diagonal L2 penalty of each row."""
    totals: Tensor
    """(rows, 1): the sum of the weights of each row."""
    column_shares: Tensor
    """(columns, 1): the share of each column in the sum of all weights."""

    @classmethod
    def of(
        cls,
        rows: Histories,
        column_count: int,
        weights: NDArray[np.floating],
        penalty: Tensor,
        pairs: NDArray[np.int64] | None = None,
    ) -> Side:
        """The regressions of the rows of histories, on the device of the penalty.

        Args:
            rows: Their items are columns.
            column_count: How many columns there are.
            weights: (events,)
            penalty: (rows, d)
            pairs: (events,): where the data set has the events; None where it has the same order.
        """
        totals = np.bincount(rows.users, weights=weights, minlength=len(rows))
        of_columns = np.bincount(rows.items, weights=weights, minlength=column_count)
        shares = of_columns / max(of_columns.sum(), _TINY)
        return cls(
            tuple(_blocks(rows, column_count, penalty, pairs)),
            torch.from_numpy(weights).float().to(penalty.device),
            penalty,
            torch.from_numpy(totals).float().to(penalty.device)[:, None],
            torch.from_numpy(shares).float().to(penalty.device)[:, None],
        )


def _blocks(
    rows: Histories, column_count: int, penalty: Tensor, pairs: NDArray[np.int64] | None
) -> Iterator[Block]:
    """The rows of histories in blocks of bounded work."""
    quiet_sparse()
    device, offsets = penalty.device, rows.offsets
    columns = torch.from_numpy(rows.items).to(device)
    placed = None if pairs is None else torch.from_numpy(pairs).to(device)
    numbers = _BLOCK_NUMBERS if device.type == "cpu" else _DEVICE_BLOCK_NUMBERS
    budget = numbers // penalty.shape[1]
    start = 0
    while start < len(rows):
        reach = int(np.searchsorted(offsets, offsets[start] + budget, side="right")) - 1
        stop = min(max(reach, start + 1), len(rows))
        events = slice(int(offsets[start]), int(offsets[stop]))
        own = (offsets[start : stop + 1] - offsets[start]).astype(np.int32)
        yield Block(
            slice(start, stop),
            events,
            events if placed is None else placed[events],
            torch.from_numpy(own).to(device),
            columns[events],
            torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(own))).to(device),
            (stop - start, column_count),
        )
        start = stop


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What a sweep over one side gives."""

    vectors: Tensor
    fixed: Tensor
    """The fixed vectors, in the axes of the others."""
    loss: float
    """The weighted squared errors plus what the penalties of the vectors come to."""


def improve(
    side: Side,
    vectors: Tensor,
    fixed: Tensor,
    errors: Tensor,
    *,
    unobserved_weight: float = 0.0,
    cancelled: IsCancelled,
) -> Sweep:
    """Take the vectors of one side nearer to their least squares against the fixed side.

    Each row x minimises `sum over its pairs of weight (target - <x, y>)^2 + unobserved_weight *
    sum over all columns of <x, y>^2 + x' penalty x`.

    Args:
        side: The regressions.
        vectors: (rows, d): where they start.
        fixed: (columns, d)
        errors: (events,): `target - <x, y>` in the order of the data set; follows the vectors.
        unobserved_weight: Where it is over 0, both sides are turned to the axes in which the Gram
            matrix of the fixed one is diagonal; penalties must be the same in all dimensions then.
        cancelled: Asked before each block.

    Raises:
        Cancelled: When `cancelled` says so.
    """
    improved = torch.empty_like(vectors)
    with _cores(fixed.device) as spread:
        turn = _Turn.of(fixed, unobserved_weight, spread)
        fixed = turn.all_of(fixed, spread)
        squares = _mean_squares(side, fixed, spread)

        def solve(block: Block) -> Tensor:
            if cancelled():
                raise Cancelled
            penalty = side.penalty[block.rows] + turn.shared
            curvature = torch.addcmul(penalty, side.totals[block.rows], squares)
            system = _System(
                block,
                fixed,
                side.weights[block.events],
                penalty,
                curvature.clamp_min_(_SMALLEST_CURVATURE),
            )
            x, short = turn.of_rows(vectors[block.rows]), errors[block.pairs].clone()
            system.take_steps(x, short)
            improved[block.rows], errors[block.pairs] = x, short
            return system.loss(x, short)

        losses = spread(solve, side.blocks)
    return Sweep(improved, fixed, float(torch.stack(losses).sum()))


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A turn to other axes."""

    axes: Tensor | None
    """(d, d): orthogonal; None to stay."""
    shared: Tensor
    """(d,): what all pairs add to the diagonal of every row's matrix."""

    @classmethod
    def of(cls, fixed: Tensor, unobserved_weight: float, spread: _Spread) -> _Turn:
        """The turn to the axes in which the Gram matrix of fixed vectors is diagonal."""
        if not unobserved_weight:
            return cls(None, fixed.new_zeros(fixed.shape[1]))
        parts = spread(lambda part: part.mT @ part, _chunks(fixed, fixed.shape[1]))
        gram = torch.stack(parts).sum(dim=0).double()
        if not gram.isfinite().all():  # the loss will tell that the training diverged
            return cls(None, fixed.new_zeros(fixed.shape[1]))
        energies, axes = torch.linalg.eigh(gram)
        shared = unobserved_weight * energies.clamp_min(0.0)
        return cls(axes.float(), shared.float())

    def of_rows(self, vectors: Tensor) -> Tensor:
        """A copy of vectors in the new axes."""
        return vectors.clone() if self.axes is None else vectors @ self.axes

    def all_of(self, vectors: Tensor, spread: _Spread) -> Tensor:
        """All vectors of a side in the new axes."""
        if self.axes is None:
            return vectors
        return torch.cat(spread(self.of_rows, _chunks(vectors, vectors.shape[1])))


def _mean_squares(side: Side, fixed: Tensor, spread: _Spread) -> Tensor:
    """(d,): the weighted mean of the squares of the fixed vectors of all pairs."""
    dimension = fixed.shape[1]
    shares, vectors = _chunks(side.column_shares, dimension), _chunks(fixed, dimension)
    sums = spread(lambda i: (shares[i].mT @ vectors[i].square())[0], range(len(vectors)))
    return torch.stack(sums).sum(dim=0)


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """The normal equations of a block's rows."""

    block: Block
    fixed: Tensor
    weights: Tensor
    penalty: Tensor
    curvature: Tensor
    """(rows, d): about the diagonals of the rows' matrices."""

    def take_steps(self, x: Tensor, errors: Tensor) -> None:
        """Take some steps of all rows at once; x and the errors of their pairs follow."""
        residual = self._sums(errors).addcmul_(self.penalty, x, value=-1)
        scaled = residual / self.curvature
        direction, norm = scaled.clone(), _dots(residual, scaled)
        for step in range(1, _STEPS + 1):
            products = self.block.products(direction, self.fixed)
            image = self._sums(products).addcmul_(self.penalty, direction)
            length = norm / _dots(direction, image).clamp_min_(_TINY)
            x.addcmul_(direction, length)
            errors.addcmul_(products, length[self.block.places, 0], value=-1)
            if step < _STEPS:
                residual.addcmul_(image, length, value=-1)
                torch.div(residual, self.curvature, out=scaled)
                smaller = _dots(residual, scaled)
                direction.mul_(smaller / norm.clamp_min_(_TINY)).add_(scaled)
                norm = smaller

    def loss(self, x: Tensor, errors: Tensor) -> Tensor:
        """The loss of the rows, a scalar in float64."""
        loss = torch.dot(errors * self.weights, errors).double()
        return loss + torch.dot((x * self.penalty).flatten(), x.flatten()).double()

    def _sums(self, values: Tensor) -> Tensor:
        return self.block.sums(values * self.weights, self.fixed)


def _dots(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=1, keepdim=True)


class _Spread(Protocol):
    """How work on parts is spread over what there is to do it."""

    def __call__(self, function: Callable[[T], Tensor], parts: Iterable[T], /) -> list[Tensor]:
        """What the function gives for each part, in their order."""


@contextmanager
def _cores(device: torch.device) -> Iterator[_Spread]:
    """Each core takes parts of its own; an accelerator takes one after the other."""
    if device.type != "cpu":
        yield lambda function, parts: [function(part) for part in parts]
        return
    with _one_core_a_thread() as cores, ThreadPoolExecutor(cores) as pool:
        yield lambda function, parts: list(pool.map(function, parts))


@contextmanager
def _one_core_a_thread() -> Iterator[int]:
    """Have torch use one core in each thread that begins here; gives how many cores there are."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield cores
    finally:
        torch.set_num_threads(cores)


def _chunks(rows: Tensor, dimension: int) -> tuple[Tensor, ...]:
    """Rows of vectors of that dimension in parts for a core's cache."""
    if rows.device.type != "cpu":
        return (rows,)
    return torch.split(rows, max(1, _CHUNK_NUMBERS // dimension))


def transposed(histories: Histories, item_count: int) -> tuple[Histories, NDArray[np.int64]]:
    """The same pairs with a row for each item, and where each of them was (events,)."""
    order = np.argsort(histories.items, kind="stable")
    offsets = np.zeros(item_count + 1, np.int64)
    np.cumsum(np.bincount(histories.items, minlength=item_count), out=offsets[1:])
    users = histories.users[order].astype(np.int32)
    by_item = Histories(offsets, users, histories.strengths[order], histories.times[order])
    return by_item, order


def initial(rows: Histories, dimension: int, seed: int) -> Tensor:
    """Small random vectors (rows, dimension); 0 for rows without pairs, which they keep."""
    vectors = torch.randn(len(rows), dimension, generator=torch.Generator().manual_seed(seed))
    vectors *= _INITIAL_SCALE / dimension**0.5
    return vectors.masked_fill_(torch.from_numpy(rows.lengths == 0)[:, None], 0.0)


def quiet_sparse() -> None:
    """Have torch say once, unheard, that its compressed rows are in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*CSR tensor support is in beta.*")
        nothing = (
            torch.zeros(2, dtype=torch.int32),
            torch.zeros(0, dtype=torch.int32),
            torch.zeros(0),
        )
        torch.sparse_csr_tensor(*nothing, (1, 1), check_invariants=False)
