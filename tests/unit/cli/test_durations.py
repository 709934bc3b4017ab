"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from milvine.cli.durations import DURATION


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)),
        ("90m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("4w", timedelta(days=28)),
    ],
)
def test_units(text, span):
    """A number and a unit make a duration."""
    assert DURATION.convert(text, None, None) == span


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 d", "7days", "1e3d", "9" * 30 + "w"])
def test_no_duration(text):
    """Anything else is a usage error."""
    with pytest.raises(click.BadParameter, match=r"duration|too long"):
        DURATION.convert(text, None, None)
