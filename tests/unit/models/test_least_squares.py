"""Block conjugate gradient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from milvine.domain.errors import Cancelled
from milvine.models import Histories, least_squares


def _histories(rng, rows, columns):
    lengths = rng.integers(0, columns, rows)
    items = [np.sort(rng.choice(columns, n, replace=False)) for n in lengths]
    flat = np.concatenate(items).astype(np.int32)
    return Histories(
        np.cumsum([0, *lengths]),
        flat,
        rng.uniform(1, 5, len(flat)).astype(np.float32),
        np.zeros(len(flat), np.int64),
    )


def _side(histories, columns, dimension):
    penalty = torch.full((len(histories), dimension), 0.5)
    return least_squares.Side.of(histories, columns, histories.strengths, penalty)


def test_sweeps_reach_the_exact_solution():
    """Repeated sweeps reach the dense solution of each row, and the loss is that of its result."""
    rng = np.random.default_rng(0)
    histories = _histories(rng, 20, 15)
    fixed = torch.from_numpy(rng.normal(size=(15, 6)).astype(np.float32))
    targets = torch.from_numpy(rng.normal(size=len(histories.items)).astype(np.float32))
    side = _side(histories, 15, 6)
    vectors, errors = torch.zeros(20, 6), targets.clone()
    for _ in range(20):
        sweep = least_squares.improve(
            side, vectors, fixed, errors, unobserved_weight=0.7, cancelled=lambda: False
        )
        vectors, fixed = sweep.vectors, sweep.fixed
    y, loss = fixed.double(), 0.0
    for row in range(20):
        events = slice(histories.offsets[row], histories.offsets[row + 1])
        x = y[histories.items[events]]
        c, t = side.weights[events].double(), targets[events].double()
        normal = 0.7 * y.mT @ y + (x.mT * c) @ x + 0.5 * torch.eye(6, dtype=torch.float64)
        expected = torch.linalg.solve(normal, (x.mT * c) @ t)
        np.testing.assert_allclose(vectors[row], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(errors[events], t - x @ expected, rtol=1e-3, atol=1e-4)
        loss += float((c * (t - x @ expected) ** 2).sum() + 0.7 * (y @ expected).square().sum())
        loss += 0.5 * float(expected.square().sum())
    assert sweep.loss == pytest.approx(loss, rel=1e-4)


def test_turning_changes_no_product():
    """Sweeps turn both sides to the axes of the fixed one, and its own products stay."""
    rng = np.random.default_rng(4)
    histories = _histories(rng, 20, 15)
    fixed = torch.from_numpy(rng.normal(size=(15, 6)).astype(np.float32))
    turned = least_squares.improve(
        _side(histories, 15, 6),
        torch.zeros(20, 6),
        fixed,
        torch.ones(len(histories.items)),
        unobserved_weight=1.0,
        cancelled=lambda: False,
    ).fixed
    gram = turned.mT @ turned
    np.testing.assert_allclose(gram, torch.diag(gram.diag()), atol=1e-4)
    np.testing.assert_allclose(turned @ turned.mT, fixed @ fixed.mT, atol=1e-4)


def _sweep(histories, fixed):
    """A sweep over rows that start at 0, and how many blocks it had."""
    side = _side(histories, *fixed.shape)
    errors = torch.ones(len(histories.items))
    start = torch.zeros(len(histories), fixed.shape[1])
    sweep = least_squares.improve(
        side, start, fixed, errors, unobserved_weight=0.1, cancelled=lambda: False
    )
    return sweep, errors, len(side.blocks)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Many small blocks, with rows longer than a block, give what one block gives."""
    rng = np.random.default_rng(1)
    histories = _histories(rng, 40, 30)
    fixed = torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32))
    at_once, errors_at_once, count = _sweep(histories, fixed)
    assert count == 1
    monkeypatch.setattr(least_squares, "_BLOCK_NUMBERS", 40)
    in_blocks, errors, count = _sweep(histories, fixed)
    assert count > 20
    np.testing.assert_allclose(in_blocks.vectors, at_once.vectors, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(errors, errors_at_once, rtol=1e-4, atol=1e-6)
    assert in_blocks.loss == pytest.approx(at_once.loss, rel=1e-5)


def test_cancel_is_asked_before_each_block(monkeypatch: pytest.MonkeyPatch):
    """No block is begun after a cancel."""
    monkeypatch.setattr(least_squares, "_BLOCK_NUMBERS", 40)
    histories = _histories(np.random.default_rng(1), 40, 30)
    side = _side(histories, 30, 4)
    asked = itertools.count()
    begun = []

    def cancelled():
        is_late = next(asked) >= 2
        begun.append(not is_late)
        return is_late

    with pytest.raises(Cancelled):
        least_squares.improve(
            side,
            torch.zeros(40, 4),
            torch.ones(30, 4),
            torch.ones(len(histories.items)),
            cancelled=cancelled,
        )
    assert len(side.blocks) > 20
    assert sum(begun) == 2


def test_cores_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Sweeps give the same bytes on one core and on several, and leave torch its cores."""
    monkeypatch.setattr(least_squares, "_BLOCK_NUMBERS", 40)
    monkeypatch.setattr(least_squares, "_CHUNK_NUMBERS", 16)
    histories = _histories(np.random.default_rng(3), 40, 30)
    fixed = torch.linspace(-1, 1, 120).reshape(30, 4)
    before = torch.get_num_threads()

    def sweep(cores):
        torch.set_num_threads(cores)
        try:
            return _sweep(histories, fixed)
        finally:
            assert torch.get_num_threads() == cores
            torch.set_num_threads(before)

    (alone, errors_alone, _), (together, errors, _) = sweep(1), sweep(2)
    assert torch.equal(alone.vectors, together.vectors)
    assert torch.equal(errors_alone, errors)
    assert alone.loss == together.loss


def test_transposed_twice_is_the_same():
    """Pairs by item, turned again, are the pairs by user, and their places are told."""
    histories = _histories(np.random.default_rng(2), 25, 10)
    by_item, places = least_squares.transposed(histories, 10)
    again, _ = least_squares.transposed(by_item, 25)
    assert all(
        np.array_equal(getattr(again, name), getattr(histories, name))
        for name in ("offsets", "items", "strengths", "times")
    )
    assert np.array_equal(by_item.strengths, histories.strengths[places])
