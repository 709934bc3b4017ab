"""What a selection comes to on a release."""

from __future__ import annotations

import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidArgument, InvalidFilter
from milvine.domain.filter import LITE
from milvine.domain.query import Selection
from milvine.retrieval.plan import plan

FIELDS = (Field("year", FieldType.INT64), Field("title", FieldType.STRING))


def test_equal_parameters_of_other_types_are_checked_anew():
    """True equals 1 in Python, and is still no year."""
    text = "year == {year}"
    plan(Selection(filter=text, filter_params={"year": 1}), FIELDS, LITE)

    with pytest.raises(InvalidFilter):
        plan(Selection(filter=text, filter_params={"year": True}), FIELDS, LITE)


def test_a_star_returns_every_field():
    """`*` alone stands for all fields of the release."""
    assert plan(Selection(return_fields=("*",)), FIELDS, LITE).fields == FIELDS


def test_an_unknown_field_is_named_with_those_there_are():
    """The error has the place in the request and the way out."""
    with pytest.raises(InvalidArgument) as fault:
        plan(Selection(return_fields=("year", "prize")), FIELDS, LITE)

    (violation,) = fault.value.violations
    assert violation.field == "return_fields[1]"
    assert "year, title" in violation.description
