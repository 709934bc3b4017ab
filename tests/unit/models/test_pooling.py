"""Users as pools of their items, and the losses over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from milvine.models.batches import Negatives, Users, batch_of, item_counts
from milvine.models.pooling import SOURCES, Pooled, PooledEncoder, softmax_loss
from tests.unit.models.worlds import dataset_of, low_rank

SHRINKAGE = 3.0


@pytest.fixture
def dataset():
    return dataset_of("bpr", low_rank(20, 15, 0.4))


@pytest.fixture
def tables():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(15, 4, generator=rng), torch.randn(15, 4, generator=rng)


def test_encoder_gives_what_training_pools(dataset, tables):
    """The vector of an unchanged history is the one that training had, bit for bit or nearly."""
    sources, _ = tables
    trained = Pooled.of(batch_of(dataset.histories), sources, SHRINKAGE).users
    encoder = PooledEncoder.of({SOURCES: sources.numpy()}, SHRINKAGE)
    np.testing.assert_allclose(encoder.encode(dataset.histories), trained, rtol=1e-6, atol=1e-7)


def test_an_event_is_scored_without_itself(dataset, tables):
    """The score of an event's item is that of the same history without the event."""
    sources, targets = tables
    batch = batch_of(dataset.histories)
    scores = Pooled.of(batch, sources, SHRINKAGE).positives(batch, targets)
    encoder = PooledEncoder.of({SOURCES: sources.numpy()}, SHRINKAGE)
    for event in range(0, len(dataset.histories.items), 7):
        kept = np.arange(len(dataset.histories.items)) != event
        user = dataset.histories.users[event]
        vector = encoder.encode(dataset.histories.keep(kept))[user]
        expected = vector @ targets[dataset.histories.items[event]].numpy()
        assert scores[event].item() == pytest.approx(expected, abs=1e-5)


def test_with_all_items_drawn_the_softmax_is_the_whole_one(dataset, tables):
    """When every item is a negative, the loss is the softmax over what the user has not."""
    sources, targets = tables
    batch = batch_of(dataset.histories)
    pooled = Pooled.of(batch, sources, SHRINKAGE)
    negatives = Negatives.by_count(item_counts(dataset.histories, 15, "cpu"), 0.0, 15)
    drawn = negatives.draw(batch, torch.Generator().manual_seed(0))
    scores = (pooled.users @ targets.mT).double()
    scores[batch.rows, batch.items] = -torch.inf
    others = scores.exp().sum(dim=1)[batch.rows]
    own = pooled.positives(batch, targets).double().exp()
    expected = -(own / (own + others)).log().mean()
    assert softmax_loss(pooled, batch, targets, drawn).item() == pytest.approx(
        expected.item(), 1e-5
    )


def test_drawn_negatives_estimate_the_whole_sum():
    """Over many draws, the sum over negatives comes to the sum over all that the user has not."""
    histories = dataset_of("bpr", low_rank(8, 200, 0.2)).histories
    batch, count = batch_of(histories), int(histories.items.max()) + 1
    negatives = Negatives.by_count(item_counts(histories, count, "cpu"), 0.5, 20)
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(8, count, generator=rng)
    exact = scores.exp()
    exact[batch.rows, batch.items] = 0.0
    sums = []
    for _ in range(2_000):
        drawn = negatives.draw(batch, rng)
        sums.append(drawn.logits(scores[:, drawn.items]).exp().sum(dim=1))
    np.testing.assert_allclose(torch.stack(sums).mean(dim=0), exact.sum(dim=1), rtol=0.1)


@pytest.mark.parametrize("size", [1, 30, 10_000])
def test_a_pass_has_every_event_once(dataset, size):
    """Batches of any size part the users who have two events and more."""
    users, histories = Users(dataset.histories, "cpu"), dataset.histories
    rng = torch.Generator().manual_seed(0)
    able = histories.lengths[histories.users] > 1
    expected = np.sort(histories.items[able])
    for batches in (users.batches(size, rng), users.alike(size, rng, longest=5)):
        passed = list(batches)
        assert np.array_equal(np.sort(torch.cat([b.items for b in passed])), expected)
        assert all(len(b.items) == b.offsets[-1] == len(b.rows) for b in passed)
