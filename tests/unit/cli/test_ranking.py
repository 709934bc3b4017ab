"""Rankings from the options of commands."""

from __future__ import annotations

from datetime import datetime, timedelta

import click
import pytest

from milvine.cli.ranking import BoostParam, DecayParam, RankingArgs
from milvine.client import Boost, NumberDecay, Ranking, TimeDecay

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2:year >= 2000", Boost(2.0, "year >= 2000")),
        ("0.5: lang == {l}", Boost(0.5, "lang == {l}")),
        ('1.5:at >= "2024-01-01T00:00:00Z"', Boost(1.5, 'at >= "2024-01-01T00:00:00Z"')),
        ("3", Boost(3.0)),
    ],
)
def test_boosts(text, expected):
    """A factor, a colon and the filter, which may have colons."""
    assert BoostParam().convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price:20:5", NumberDecay("price", 20.0, 5.0)),
        ("price:-1.5:0.5", NumberDecay("price", -1.5, 0.5)),
        ("made:now:30d", TimeDecay("made", 30 * DAY)),
        ("made:2024-05-01T12:00:00+00:00:12h", None),
    ],
)
def test_decays(text, expected):
    """Numbers decay by a distance, times by a duration from a moment, which may have colons."""
    if expected is None:
        moment = datetime.fromisoformat("2024-05-01T12:00:00+00:00")
        expected = TimeDecay("made", DAY / 2, moment)

    assert DecayParam().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["year >= 2000", "x:year", ""])
def test_boosts_refused(text):
    """What has no factor in front is a usage error."""
    with pytest.raises(click.BadParameter, match="before a colon"):
        BoostParam().convert(text, None, None)


@pytest.mark.parametrize("text", ["price", "price:5", ":1:2", "made:now:5", "made:today:5d"])
def test_decays_refused(text):
    """What has not three parts that fit is a usage error."""
    with pytest.raises(click.BadParameter):
        DecayParam().convert(text, None, None)


def test_no_option_is_no_ranking():
    """Commands without these options ask as they did before."""
    assert RankingArgs((), (), None, ()).ranking({"a": 1}) is None


def test_parameters_go_to_the_filters_that_they_stand_in():
    """A parameter of a boost is none of the main filter, unless it stands there, too."""
    told = RankingArgs(
        (Boost(2.0, "year >= {from}"),), (NumberDecay("price", 1, 2),), 0.5, (("author", "2"),)
    )
    params = {"from": 1, "lang": "en"}

    assert told.ranking(params) == Ranking(
        [Boost(2.0, "year >= {from}", {"from": 1}), NumberDecay("price", 1, 2)],
        0.5,
        caps={"author": 2},
    )
    assert told.others(params, "lang == {lang}") == {"lang": "en"}
    assert told.others(params, "lang == {lang} and year < {from}") == params


def test_a_cap_is_a_whole_number():
    """Anything else is a usage error."""
    with pytest.raises(click.BadParameter, match="author"):
        RankingArgs((), (), None, (("author", "two"),)).ranking({})
