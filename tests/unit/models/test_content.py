"""The map from content to the space of a model."""

import numpy as np
import pytest

from milvine.domain.errors import Cancelled
from milvine.models.content import ContentMap, fit_content_map


def _world(count=400, content_dimension=20, *, noise=0.1, seed=0):
    """Content vectors, and item vectors (count, 6) that they tell of, the last two biases."""
    rng = np.random.default_rng(seed)
    content = rng.normal(size=(count, content_dimension)).astype(np.float32)
    truth = rng.normal(size=(content_dimension, 6)) / np.sqrt(content_dimension)
    vectors = content @ truth + noise * rng.normal(size=(count, 6))
    vectors[:, 4] = 1.0  # as the families with biases have it
    return content, (vectors + 0.5).astype(np.float32)


def _fitted(content, vectors, **options):
    return fit_content_map(content, vectors, taste_dimension=4, **options)


@pytest.mark.parametrize("content_dimension", [20, 500])
def test_new_items_are_placed_near_where_they_belong(content_dimension):
    """Vectors of items that were left out are foretold, also with more features than items."""
    content, vectors = _world(content_dimension=content_dimension)
    fitted = _fitted(content[:300], vectors[:300])
    found = fitted.map.vectors(content[300:])[:, :4] - vectors[:300, :4].mean(axis=0)
    wanted = vectors[300:, :4] - vectors[:300, :4].mean(axis=0)
    cosines = (found * wanted).sum(axis=1) / (
        np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    )
    assert cosines.mean() > (0.95 if content_dimension == 20 else 0.4)


def test_leave_one_out_is_what_leaving_out_gives():
    """The closed form of the explained variance is that of fitting without each item."""
    content, vectors = _world(30, 5)
    fitted = _fitted(content, vectors)
    residuals = []
    for row in range(30):
        rest = np.arange(30) != row
        mean, centre = content[rest].mean(axis=0), vectors[rest].mean(axis=0)
        left, right = content[rest] - mean, vectors[rest] - centre
        weights = np.linalg.lstsq(left, right, rcond=None)[0]
        residuals.append(vectors[row] - centre - (content[row] - mean) @ weights)
    explained = 1 - np.square(residuals).sum() / np.square(vectors - vectors.mean(axis=0)).sum()
    # The fit chooses a small penalty, least squares has none.
    assert fitted.explained == pytest.approx(explained, abs=0.02)


def test_mapped_vectors_are_as_long_as_learned_ones():
    """However little content says, new items have the length of known ones; biases keep theirs."""
    for noise in (0.1, 3.0):
        content, vectors = _world(noise=noise)
        found = _fitted(content[:300], vectors[:300]).map.vectors(content[300:])
        lengths = [np.sqrt(np.square(x[:, :4]).sum(axis=1).mean()) for x in (found, vectors)]
        assert lengths[0] == pytest.approx(lengths[1], rel=0.25)
        np.testing.assert_allclose(found[:, 4], 1.5, atol=1e-5)


def test_content_that_says_nothing_explains_nothing():
    """Without a relation the share is about 0, and every item is placed about the mean."""
    content, vectors = _world()
    shuffled = np.random.default_rng(1).permutation(vectors)
    fitted = _fitted(content, shuffled)
    assert -0.1 < fitted.explained < 0.1
    found = fitted.map.vectors(content)[:, :4]
    mean = vectors[:, :4].mean(axis=0)
    directions = found @ mean / (np.linalg.norm(found, axis=1) * np.linalg.norm(mean))
    assert directions.mean() > 0.9


def test_items_that_all_say_the_same_are_placed_together():
    """Content without any difference gives every item the mean, and no NaN."""
    _, vectors = _world(50)
    found = _fitted(np.ones((50, 8), np.float32), vectors).map.vectors(np.ones((2, 8), np.float32))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1])


def test_a_map_survives_its_tensors():
    """What an artifact keeps gives the same map back; without it there is none."""
    content, vectors = _world(50)
    kept = _fitted(content, vectors).map
    restored = ContentMap.of(kept.tensors)
    np.testing.assert_array_equal(restored.vectors(content), kept.vectors(content))
    assert ContentMap.of({}) is None


def test_a_cancel_ends_the_fit():
    """A fit that is cancelled gives no map."""
    content, vectors = _world(50)
    with pytest.raises(Cancelled):
        _fitted(content, vectors, cancelled=lambda: True)
