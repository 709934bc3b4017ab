"""Fields as features."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import ARROW_TYPES, to_micros
from milvine.models.features import Features
from milvine.models.fields import BUCKETS, Encoding
from milvine.text import same_encoder

FIELDS = tuple(Field(kind.lower(), kind) for kind in FieldType)
START = datetime(2024, 1, 1, tzinfo=UTC)

VALUES = {
    FieldType.STRING: st.sampled_from(["a", "b", "☃\n", ""]),
    FieldType.INT64: st.integers(-(2**63), 2**63 - 1),
    FieldType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    FieldType.BOOL: st.booleans(),
    FieldType.TIMESTAMP: st.datetimes(timezones=st.just(UTC)),
    FieldType.STRING_LIST: st.lists(st.sampled_from(["x", "y", "z"]), max_size=4).map(tuple),
    FieldType.INT64_LIST: st.lists(st.integers(-2, 2), max_size=4).map(tuple),
}
ROWS = st.lists(st.fixed_dictionaries({}, optional={f.name: VALUES[f.type] for f in FIELDS}))


def table(rows, fields=FIELDS):
    """Rows as a scan gives them."""

    def plain(value):
        return to_micros(value) if isinstance(value, datetime) else value

    return pa.table(
        {
            f.name: pa.array([plain(r.get(f.name)) for r in rows], ARROW_TYPES[f.type])
            for f in fields
        }
    )


def same(first: Features, second: Features) -> bool:
    names = ("offsets", "tokens", "weights", "numbers")
    return first.token_count == second.token_count and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in names
    )


@given(ROWS, ROWS)
def test_rows_are_encoded_alike_in_training_and_later(known, asked):
    """A scan, a request and an encoding out of an artifact agree; numbers stay small."""
    encoding = Encoding.learned(FIELDS, table(known))
    kept = Encoding.unpacked(encoding.packed(), same_encoder)

    features = encoding.features(table(asked))

    assert kept == encoding
    assert same(features, kept.of(asked))
    assert len(features) == len(asked)
    assert features.token_count == encoding.token_count
    assert features.numbers.shape == (len(asked), encoding.number_count)
    assert features.numbers.dtype == np.float32
    assert np.abs(features.numbers).max(initial=0) <= 4
    assert ((features.tokens >= 0) & (features.tokens < features.token_count)).all()
    for place, row in enumerate(asked):
        parts = {name: value for name, value in row.items() if value != ()}
        assert features.is_known[place] == bool(parts)
        one = features.take(np.array([place]))
        assert same(one, encoding.of([row]))
        assert one.weights.sum() == pytest.approx(len(parts), abs=1e-5)


@given(ROWS, ROWS)
def test_features_are_joined_row_after_row(first, second):
    """Parts stand one after the other."""
    encoding = Encoding.learned(FIELDS, table(first))
    joined = Features.joined([encoding.of(first), encoding.of(second)])
    assert same(joined, encoding.of([*first, *second]))


def test_rare_values_share_a_token():
    """A value that one row alone has could not stand for others; new ones are like it."""
    field = (Field("author", FieldType.STRING),)
    encoding = Encoding.learned(field, table([{"author": a} for a in "aabbbcd"], field))
    features = encoding.of([{"author": a} for a in "abcdx"])
    assert encoding.codes[0].values == ("b", "a")
    assert features.tokens.tolist() == [1, 0, 2, 2, 2]


def test_numbers_have_buckets_of_like_size():
    """A skewed number is spread over its buckets, and one far off stands at the end."""
    field = (Field("price", FieldType.DOUBLE),)
    prices = np.exp(np.random.default_rng(0).normal(size=1_600))
    encoding = Encoding.learned(field, table([{"price": float(p)} for p in prices], field))
    features = encoding.of([{"price": float(p)} for p in (*prices, -1e300, 1e300)])
    counts = np.bincount(features.tokens[:-2])
    assert counts.tolist() == [100] * BUCKETS
    assert features.tokens[-2:].tolist() == [0, BUCKETS - 1]
    assert features.numbers[-2:, 0].tolist() == [-4, 4]
    assert abs(np.median(features.numbers[:-2])) < 0.01


def test_whole_numbers_are_categories_where_they_are_few():
    """Codes have no order; years of which there are many have."""
    field = (Field("n", FieldType.INT64),)
    few = Encoding.learned(field, table([{"n": n % 40} for n in range(400)], field))
    many = Encoding.learned(field, table([{"n": n % 2_000} for n in range(8_000)], field))
    assert few.token_count == 41
    assert many.token_count == BUCKETS
    assert few.number_count == many.number_count == 1


def test_times_have_their_places_in_year_week_and_day():
    """A week later the day and the weekday are the same, the time is another."""
    field = (Field("made", FieldType.TIMESTAMP),)
    weeks = [START.replace(day=1 + 7 * n, hour=6) for n in range(4)]
    encoding = Encoding.learned(field, table([{"made": t} for t in weeks], field))
    numbers = encoding.of([{"made": t} for t in weeks]).numbers
    assert numbers.shape == (4, 7)
    assert (np.diff(numbers[:, 0]) > 0).all()
    np.testing.assert_allclose(np.diff(numbers[:, 3:], axis=0), 0, atol=1e-4)
    assert np.abs(np.diff(numbers[:, 1:3], axis=0)).max() > 0.01
    assert numbers[0, 5:].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)  # at six o'clock


def test_nothing_is_learned_from_no_rows():
    """Fields without a single value have no say, and still encode what comes."""
    encoding = Encoding.learned(FIELDS, table([]))
    features = encoding.of([{"string": "a", "double": 3.0}, {}])
    assert features.is_known.tolist() == [True, False]
    assert np.isfinite(features.numbers).all()
