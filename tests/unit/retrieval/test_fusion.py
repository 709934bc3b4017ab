"""Two orders of the same items as one."""

import numpy as np
import pytest

from milvine.domain.query import ReciprocalRank, Weights
from milvine.retrieval.fusion import fused

TEXT = np.array([0.9, 0.5, 0.1])


def test_reciprocal_rank_adds_what_places_are_worth():
    """The first by text and third for the person has 1/(k+1) + 1/(k+3)."""
    scores = fused(TEXT, np.array([-3.0, 7.0, 5.0]), ReciprocalRank(60.0))
    np.testing.assert_allclose(scores, [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62])


def test_what_has_no_personal_score_has_the_text_alone():
    """By ranks and by weights, in any place; NaN spoils nothing."""
    personal = np.array([np.nan, 1.0, 2.0])
    scores = fused(TEXT, personal, ReciprocalRank(1.0))
    np.testing.assert_allclose(scores, [1 / 2, 1 / 3 + 1 / 3, 1 / 4 + 1 / 2])
    np.testing.assert_allclose(fused(TEXT, personal, Weights(1.0, 1.0)), [1.0, 0.5, 1.0])
    np.testing.assert_allclose(fused(TEXT, np.full(3, np.nan), Weights(0, 1)), 0.0)


def test_weights_count_scores_that_are_scaled_alike():
    """Cosines and inner products of any size both go from 0 to 1."""
    scores = fused(TEXT, np.array([100.0, 300.0, 200.0]), Weights(2.0, 1.0))
    np.testing.assert_allclose(scores, [2.0, 2.0, 0.5])


@pytest.mark.parametrize("fusion", [ReciprocalRank(), Weights(1.0, 1.0)])
def test_nothing_and_equals(fusion):
    """No items give no scores, and equal scores no NaN."""
    assert fused(np.empty(0), np.empty(0), fusion).shape == (0,)
    assert np.isfinite(fused(np.ones(2), np.ones(2), fusion)).all()
