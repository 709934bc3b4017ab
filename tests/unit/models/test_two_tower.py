"""Two towers with features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from milvine.models import Run, families
from milvine.models.features import Features
from tests.unit.models.worlds import checkerboard, dataset_of, encode, fit

SETTINGS = {"embedding_size": 8, "epochs": 60, "learning_rate": 0.02}


def _colours(count: int, shift: int = 0) -> Features:
    """Items whose one token is their colour, and whose number says the same."""
    colour = (np.arange(count) + shift) % 2
    numbers = (colour * 2 - 1).astype(np.float32)[:, None]
    return Features(np.arange(count + 1), colour.astype(np.int32), 2, numbers)


def test_a_new_item_is_recommended_by_its_features():
    """Items that no one has had are ranked by what they are known by."""
    kind = families["two_tower"]
    dataset = replace(dataset_of("two_tower", checkerboard(20)), item_features=_colours(20))
    config = kind.config(SETTINGS)
    fitted = kind.fit(dataset, config, Run())
    users = kind.encoder(config, fitted.tensors).encode(dataset.histories)
    scores = users @ kind.vectors_of(fitted.tensors, _colours(2)).T
    even_users = np.arange(20) % 2 == 0
    assert (scores[even_users, 0] > scores[even_users, 1]).all()
    assert (scores[~even_users, 1] > scores[~even_users, 0]).all()


@pytest.mark.parametrize("count", [1, 5, 1_000])
def test_hard_negatives_still_find_the_answer(count):
    """With hard negatives, also more of them than there are, items of one's colour stay first."""
    dataset = dataset_of("two_tower", checkerboard(20))
    fitted, encoder = fit("two_tower", dataset, hard_negative_count=count, **SETTINGS)
    scores = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    same = (np.arange(20)[:, None] + np.arange(20)) % 2 == 0
    assert np.where(same, scores, np.inf).min() > np.where(same, -np.inf, scores).max() - 2.0
    assert (np.where(same, scores, 0).sum(1) > np.where(same, 0, scores).sum(1)).all()


def test_strong_events_weigh_more_where_asked():
    """With strength_scale, what a user had most to do with pulls the vector harder."""
    dataset = dataset_of("two_tower", checkerboard(20))
    fitted, encoder = fit("two_tower", dataset, strength_scale=2.0, **SETTINGS)
    even, odd = (fitted.item_vectors[place::2].mean(axis=0) for place in (0, 1))

    def lead(strength: float) -> float:
        events = [("x", "i02", "watch", strength, 0), ("x", "i03", "watch", 1.0, 1)]
        vector = encode("two_tower", encoder, dataset, events)
        return float(vector @ (even - odd))

    assert lead(1.0) < lead(100.0) < lead(100_000.0)
