"""The examples of the guide work as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidFilter
from milvine.domain.filter import LITE, MILVUS
from milvine.filters import ParamValue, compile_filter, parse

GUIDE = Path(__file__).parents[3].joinpath("docs", "filters.md").read_text("utf-8")
EXAMPLES = [
    line
    for block in re.findall(r"```filter\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.splitlines()
]
FIELDS = [
    Field(name, FieldType(type_)) for name, type_ in re.findall(r"`(\w+)` ([A-Z0-9_]+)[,.]", GUIDE)
]
PARAMS: dict[str, ParamValue] = {"since": 1990, "wanted": ("Drama", "Sci-Fi")}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_work_on_every_store(text: str):
    """Each example parses against the guide's fields and has an expression for each store."""
    used = {name: value for name, value in PARAMS.items() if f"{{{name}}}" in text}
    tree = parse(text, used, FIELDS)
    assert all(compile_filter(tree, dialect) for dialect in (LITE, MILVUS))


def test_the_error_is_as_shown():
    """The error in the guide is the one that a caller gets."""
    shown = re.findall(r"```text\n(.*?)\n```", GUIDE, re.DOTALL)
    with pytest.raises(InvalidFilter) as raised:
        parse("available and yaer == 1", {}, FIELDS)
    assert [str(raised.value)] == shown
