"""Tastes from examples."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.query import ExamplesSubject
from milvine.models import families
from milvine.retrieval.examples import Taste, seen_in, taste_of
from tests.unit.retrieval.served import served_checkerboard

EVEN = [f"i{n:02}" for n in range(0, 30, 2)]
ODD = [f"i{n:02}" for n in range(1, 30, 2)]

every_family = pytest.mark.parametrize("family", sorted(families))


def scores(served, positives, negatives=()):
    """What a taste of equal weights makes of each item."""
    subject = ExamplesSubject(dict.fromkeys(positives, 1.0), dict.fromkeys(negatives, 1.0))
    ids = served.items.ids.to_pylist()
    return dict(zip(ids, served.item_vectors @ taste_of(served, subject).vector(), strict=True))


@every_family
@pytest.mark.parametrize(("liked", "other"), [(EVEN, ODD), (ODD, EVEN)])
def test_what_fits_finds_its_like(family, liked, other):
    """Most items like the examples score above all others."""
    found = scores(served_checkerboard(family), liked[:3])
    assert median(found[i] for i in liked[3:]) > max(found[i] for i in other)


@every_family
@pytest.mark.parametrize(("disliked", "other"), [(EVEN, ODD), (ODD, EVEN)])
def test_what_doesnt_fit_keeps_its_like_away(family, disliked, other):
    """With negatives alone, most items like them score below all others."""
    found = scores(served_checkerboard(family), (), disliked[:3])
    assert median(found[i] for i in disliked[3:]) < min(found[i] for i in other)


@every_family
def test_negatives_lower_their_like(family):
    """A negative lowers items like itself, beside the same positives."""
    served = served_checkerboard(family)
    before, after = scores(served, EVEN[:3] + ODD[:1]), scores(served, EVEN[:3] + ODD[:1], ODD[1:3])
    assert all(after[i] < before[i] for i in ODD[3:])


@every_family
def test_weights_count_by_their_shares(family):
    """All weights times a number is the same taste; the heavier example pulls more."""
    served = served_checkerboard(family)
    both = {EVEN[0]: 1.0, ODD[0]: 1.0}
    scaled = ExamplesSubject(dict.fromkeys(both, 1e6), {EVEN[1]: 5e5})
    one = taste_of(served, ExamplesSubject(both, {EVEN[1]: 0.5})).vector()
    same = taste_of(served, scaled).vector()
    heavy = taste_of(served, ExamplesSubject(both | {ODD[0]: 9.0}, {EVEN[1]: 0.5})).vector()
    assert one == pytest.approx(same, abs=1e-6)
    odd = served.item_vectors[served.items.rows(ODD)]
    assert (odd @ heavy).mean() > (odd @ one).mean()


@every_family
def test_one_positive_is_who_liked_it(family):
    """A single example is a person with a history of this item, whatever its weight."""
    served = served_checkerboard(family)
    taste = taste_of(served, ExamplesSubject({EVEN[0]: 7.0}, {}))
    assert taste.vector() == pytest.approx(taste.vectors[0], abs=1e-6)


def test_biases_are_those_of_what_fits():
    """Negatives move tastes only: the biases of a rating stay what the positives make them."""
    served = served_checkerboard("ratings_mf")
    alone = taste_of(served, ExamplesSubject({EVEN[0]: 1.0}, {})).vector()
    beside = taste_of(served, ExamplesSubject({EVEN[0]: 1.0}, {ODD[0]: 1.0})).vector()
    negative = taste_of(served, ExamplesSubject({}, {ODD[0]: 1.0}))
    taste = served.taste_dimension
    assert beside[taste:].tolist() == alone[taste:].tolist()
    assert negative.vector()[taste:] == pytest.approx(negative.nobody[taste:], abs=1e-6)
    assert not np.allclose(beside[:taste], alone[:taste])


def test_unknown_examples_are_passed_over():
    """Examples that the model does not know change nothing; none known is no taste, but seen."""
    served = served_checkerboard("als")
    known = ExamplesSubject({EVEN[0]: 1.0}, {ODD[0]: 1.0})
    more = ExamplesSubject({"?": 9.0, **known.positives}, {"??": 9.0, **known.negatives})
    assert taste_of(served, more).vector().tolist() == taste_of(served, known).vector().tolist()
    assert taste_of(served, ExamplesSubject({"?": 1.0}, {"??": 1.0})) is None
    assert seen_in(more) == ("?", EVEN[0], "??", ODD[0])


weights = st.floats(1e-3, 1e3)


@given(fits=st.lists(weights, max_size=5), doesnt=st.lists(weights, max_size=5), data=st.randoms())
def test_the_formula(fits, doesnt, data):
    """The mean of what fits, less the mean of what doesn't by its share, never over the whole."""
    if not fits and not doesnt:
        return
    rng = np.random.default_rng(data.randrange(2**32))
    count = len(fits) + len(doesnt)
    vectors, nobody = rng.normal(size=(count, 4)), rng.normal(size=4)
    signed = np.array([*fits, *(-w for w in doesnt)])
    items = tuple(map(str, range(count)))
    taste = Taste(items, signed, vectors, nobody, taste_dimension=3)

    liked = np.average(vectors[: len(fits)], axis=0, weights=fits) if fits else nobody
    disliked = np.average(vectors[len(fits) :], axis=0, weights=doesnt) if doesnt else np.zeros(4)
    share = min(1.0, sum(doesnt) / sum(fits)) if fits else 1.0
    expected = liked - share * disliked * [1, 1, 1, 0]

    assert taste.vector() == pytest.approx(expected, abs=1e-4)
    places = np.arange(count)
    for place, without in zip(places, taste.without_each(places), strict=True):
        kept = places != place
        if kept.any():
            rest = Taste(
                tuple(items[i] for i in places[kept]), signed[kept], vectors[kept], nobody, 3
            )
            assert without == pytest.approx(rest.vector(), abs=1e-4)
        else:
            assert without == pytest.approx(nobody, abs=1e-5)
