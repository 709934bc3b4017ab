"""The guides name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from milvine.settings import Settings
from tests.unit.cli.test_app import ALL

ROOT = Path(__file__).parents[2]
SHARED = {"--json", "--server", "--tls", "--ca-file"}
"""Options that every command has, or every one that calls a server."""


def test_readme_names_every_setting():
    """The table of settings is complete, and names no other variable."""
    table = (ROOT / "README.md").read_text().partition("## Settings")[2]
    named = re.findall(r"`MILVINE_(\w+)`", table)
    assert {name.lower() for name in named} == set(Settings.model_fields)


def options(*commands: tuple[str, ...]) -> set[str]:
    """The long names of the options of commands."""
    found = [option for path in commands for option in ALL[path].params]
    return {
        name
        for option in found
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
        if name.startswith("--")
    }


@pytest.mark.parametrize(
    ("guide", "expected"),
    [
        (
            "import.md",
            options(("import", "interactions"), ("import", "items"), ("import", "users")),
        ),
        (
            "cli.md",
            options(
                *(("recommend",), ("rank",), ("audience",), ("similar",)),
                *(("popular",), ("search",), ("recommend-all",), ("serve",), ("operations",)),
            )
            | SHARED,
        ),
    ],
)
def test_guides_name_every_option(guide, expected):
    """An option that a guide's commands have is in the guide."""
    text = (ROOT / "docs" / guide).read_text()
    assert {name for name in expected if name not in text} == set()
