"""What a selection comes to on a release."""

from __future__ import annotations

from datetime import timedelta

import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidArgument, InvalidFilter
from milvine.domain.filter import LITE
from milvine.domain.query import Selection
from milvine.domain.ranking import Boost, Cap, Factor, NumberDecay, Ranking, TimeDecay
from milvine.retrieval.plan import Planner, Scope

FIELDS = (Field("year", FieldType.INT64), Field("title", FieldType.STRING))
WEEK = timedelta(days=7)
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


async def test_no_ranking_plans_none(planner):
    """A request without a ranking has nothing to rank by."""
    assert (await planner.plan(SCOPE, Selection())).ranking is None


async def test_a_ranking_is_compiled(planner):
    """The filters of boosts become expressions, the names of decays and caps fields."""
    year, title = FIELDS
    by_year = NumberDecay("year", 2000, 10)
    ranking = Ranking((Boost(Factor(2), "year == 1"), Boost(by_year)), None, (Cap("title", 1),))

    made = (await planner.plan(SCOPE, Selection(ranking=ranking))).ranking

    assert [(b.kind, b.field, bool(b.expression)) for b in made.boosts] == [
        (Factor(2), None, True),
        (by_year, year, False),
    ]
    assert [(cap.field, cap.most) for cap in made.caps] == [(title, 1)]


@pytest.mark.parametrize(
    ("ranking", "field", "told"),
    [
        (
            Ranking((Boost(Factor(2)), Boost(Factor(2), "mood > 1"))),
            "ranking.boosts[1].filter",
            "column 1: 'mood' was declared after",
        ),
        (
            Ranking((Boost(Factor(2), "year == {y}"),)),
            "ranking.boosts[0].filter",
            "column 9: filter_params has no 'y'",
        ),
        (
            Ranking((Boost(Factor(2), "", {"y": 1}),)),
            "ranking.boosts[0].filter_params",
            "{y} does not stand in the filter",
        ),
        (
            Ranking((Boost(NumberDecay("title", 0, 1)),)),
            "ranking.boosts[0].number_decay.field",
            "'title' is STRING; it takes INT64 or DOUBLE, of which there are: year",
        ),
        (
            Ranking((Boost(TimeDecay("year", None, WEEK)),)),
            "ranking.boosts[0].time_decay.field",
            "'year' is INT64; it takes TIMESTAMP, of which there are: none",
        ),
        (
            Ranking(caps=(Cap("author", 1),)),
            "ranking.caps[0].field",
            "of which there are: year, title",
        ),
        (
            Ranking(caps=(Cap("year", 1), Cap("mood", 1))),
            "ranking.caps[1].field",
            "publish again",
        ),
        (
            Ranking(caps=(Cap("year", 1), Cap("year", 2))),
            "ranking.caps[1].field",
            "has a cap already",
        ),
    ],
)
async def test_a_ranking_that_does_not_fit_is_told_by_its_place(planner, ranking, field, told):
    """Names and types are checked against the release; the error has the path and the way out."""
    with pytest.raises(InvalidArgument) as fault:
        await planner.plan(SCOPE, Selection(ranking=ranking))

    (violation,) = fault.value.violations
    assert violation.field == field
    assert told in violation.description


async def test_a_double_has_no_cap(planner):
    """Numbers with a fraction hardly ever repeat."""
    declared = Scope("r1/item", (Field("price", FieldType.DOUBLE),))

    with pytest.raises(InvalidArgument) as fault:
        await planner.plan(declared, Selection(ranking=Ranking(caps=(Cap("price", 1),))))

    assert "'price' is DOUBLE" in fault.value.violations[0].description
