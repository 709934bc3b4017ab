"""The demo's care for the two films whose year is no number."""

from __future__ import annotations

import pytest

from demo.movielens import mended


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1\tToy Story\t1995\tComedy", "1\tToy Story\t1995\tComedy"),
        ("267\tunkonwn\tunkonwn\tunknown", "267\tunkonwn\t\tunknown"),
        ("1412\tTime III: The Time (1995)\tV\tComedy", "1412\tTime III: The Time\t1995\tComedy"),
    ],
)
def test_years_are_numbers_or_missing(line, expected):
    """A year is kept, found in the title, or left empty, and no film is lost."""
    assert mended(line) == expected
