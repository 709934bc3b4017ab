"""From the text of a filter to its checked tree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from milvine.domain.catalog import Field
from milvine.domain.errors import InvalidFilter
from milvine.domain.filter import Filter
from milvine.filters.binding import Binding, ParamValue
from milvine.filters.syntax import read


def parse(
    text: str,
    params: Mapping[str, ParamValue],
    declared: Sequence[Field],
    later: Collection[str] = (),
) -> Filter | None:
    """Parse a filter and check it against the declared fields; None for a blank text.

    Args:
        text: The filter.
        params: The values of its placeholders.
        declared: The fields that it can name.
        later: Names of fields that were declared too late for that, which errors tell.

    Raises:
        InvalidFilter: The text does not parse, names what is not declared, compares wrong types,
            or a parameter is missing or not used. The column counts characters from 1.
    """
    binding = Binding(params, declared, later)
    filter_ = binding.bind(read(text)) if text.strip() else None
    for name in params:
        if name not in binding.used:
            raise InvalidFilter(
                f"{{{name}}} does not stand in the filter; remove the parameter or use it",
                1,
                "filter_params",
            )
    return filter_
