"""What a selection comes to on a release."""

from __future__ import annotations

import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidArgument, InvalidFilter
from milvine.domain.filter import LITE
from milvine.domain.query import Selection
from milvine.retrieval.plan import Planner, Scope

FIELDS = (Field("year", FieldType.INT64), Field("title", FieldType.STRING))
SCOPE = Scope("r1/item", FIELDS, frozenset({"mood"}))


@pytest.fixture
def planner():
    """A planner for the strictest store."""
    return Planner(LITE)


async def test_equal_parameters_of_other_types_are_checked_anew(planner):
    """True equals 1 in Python, and is still no year."""
    text = "year == {year}"
    await planner.plan(SCOPE, Selection(filter=text, filter_params={"year": 1}))

    for other in (True, (1,)):
        with pytest.raises(InvalidFilter):
            await planner.plan(SCOPE, Selection(filter=text, filter_params={"year": other}))


async def test_a_star_returns_every_field(planner):
    """`*` alone stands for all fields of the release."""
    assert (await planner.plan(SCOPE, Selection(return_fields=("*",)))).fields == FIELDS


async def test_an_unknown_field_is_named_with_those_there_are(planner):
    """The error has the place in the request and the way out."""
    with pytest.raises(InvalidArgument) as fault:
        await planner.plan(SCOPE, Selection(return_fields=("year", "prize")))

    (violation,) = fault.value.violations
    assert violation.field == "return_fields[1]"
    assert "year, title" in violation.description


async def test_releases_keep_their_filters_apart(planner):
    """What one release compiled is no answer for another with other fields."""
    selection = Selection(filter="year == 1")
    await planner.plan(SCOPE, selection)

    with pytest.raises(InvalidFilter):
        await planner.plan(Scope("r2/item", FIELDS[1:]), selection)


async def test_a_field_declared_later_is_told(planner):
    """A field that the catalog has and the release has not is no unknown one."""
    with pytest.raises(InvalidFilter) as fault:
        await planner.plan(SCOPE, Selection(filter='mood == "calm"'))

    assert "publish again" in fault.value.description


async def test_a_filter_that_grows_too_long_is_refused(planner):
    """Lists that come to megabytes in the store's language are no filter."""
    declared = Scope("r1/item", (Field("tags", FieldType.STRING_LIST),))
    selection = Selection(
        filter="array_contains_any(tags, {tags})",
        filter_params={"tags": tuple(f"{n:0500}" for n in range(10_000))},
    )

    with pytest.raises(InvalidArgument) as fault:
        await planner.plan(declared, selection)

    assert fault.value.violations[0].field == "filter"
