"""What a fit holds out for itself."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.models.validation import part
from milvine.training import ranking_metrics
from tests.unit.models.worlds import checkerboard, dataset_of, fit, low_rank


@pytest.fixture
def dataset():
    return dataset_of("bpr", low_rank(60, 40, 0.4))


def _pairs(histories) -> set[tuple[int, int]]:
    return set(zip(histories.users.tolist(), histories.items.tolist(), strict=True))


@pytest.mark.parametrize("latest", [False, True])
def test_what_is_held_out_is_not_trained_on(dataset, latest):
    """Each event is trained on or held out; users keep four fifths."""
    histories = dataset.histories
    kept, validation = part(histories, 3, 0, latest=latest)
    held = len(validation.held.items)
    assert len(kept.items) + held == len(histories.items)
    assert held == pytest.approx(len(histories.items) / 5, rel=0.1)
    assert not _pairs(validation.seen) & _pairs(validation.held)


def test_latest_events_are_held_out(dataset):
    """With `latest`, everything that is held out of a history comes after what is kept."""
    _, validation = part(dataset.histories, 3, 0, latest=True)
    for user in range(len(validation.seen)):
        one = np.array([user])
        kept, held = validation.seen.take(one), validation.held.take(one)
        assert kept.times.max() <= held.times.min()


def test_nothing_is_held_out_without_patience_or_of_short_histories(dataset):
    """A config without patience trains on everything, and so does one on short histories."""
    assert part(dataset.histories, 0, 0) == (dataset.histories, None)
    short = dataset.histories.take(np.flatnonzero(dataset.histories.lengths < 5))
    assert part(short, 3, 0)[1] is None


def test_metric_is_the_ndcg_of_the_evaluation():
    """NDCG@20 is what the evaluation of models gives for the same lists."""
    dataset = dataset_of("bpr", checkerboard(50))
    fitted, encoder = fit("bpr", dataset, embedding_size=4, epochs=1)
    _, validation = part(dataset.histories, 3, 0)
    scores = encoder.encode(validation.seen) @ fitted.item_vectors.T
    scores[validation.seen.users, validation.seen.items] = -np.inf
    lists = [[str(i) for i in row] for row in np.argsort(-scores, axis=1)[:, :20]]
    held = [[str(i) for i in validation.held.take(np.array([u])).items] for u in range(len(lists))]
    (expected,) = ranking_metrics(lists, held, cutoffs=[20], item_count=50)
    found = validation.ndcg(encoder, fitted.item_vectors)
    assert found == pytest.approx(expected.ndcg, rel=1e-6)
