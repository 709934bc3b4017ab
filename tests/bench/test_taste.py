"""A taste that turns, on real people: lists follow it in every family, without retraining."""

from __future__ import annotations

import pytest

from milvine.models import families
from tests.bench.taste import FILE, SETTINGS, measure, parted, read, turns

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason="`make test` and `make demo` fetch MovieLens 100K"
)


@pytest.fixture(scope="module")
def world():
    """What is trained on, and the people whose tastes turn."""
    train, people = parted(read(FILE))
    return train, turns(people)


@pytest.mark.parametrize("family", families)
def test_lists_follow_a_taste_that_turns(world, family):
    """Ten likes bring up what goes with them: over 2 % of all pairs, and 5 standard errors."""
    train, people = world
    pairs = measure(family, train, people, SETTINGS.get(family, {}))["pairs"]
    assert pairs["gain"] > 0.02
    assert pairs["gain"] > 5 * pairs["error"]
