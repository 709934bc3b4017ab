"""Durations as people write them: `90m`, `7d`."""

from __future__ import annotations

import re
from datetime import timedelta

import click

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_FORM = re.compile(rf"(\d+(?:\.\d+)?)([{''.join(_UNITS)}])")


class DurationParam(click.ParamType[timedelta]):
    """A number and its unit: seconds, minutes, hours, days or weeks."""

    name = "DURATION"

    def convert(  # noqa: D102 - click's own
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        form = _FORM.fullmatch(str(value))
        if form is None:
            self.fail(f"{value!r} is not a duration such as 90m, 12h, 7d or 4w", param, ctx)
        try:
            return float(form[1]) * _UNITS[form[2]]
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


DURATION = DurationParam()
