"""The few expressions that this package makes itself; filters come compiled from callers."""

from __future__ import annotations

from collections.abc import Iterable

ANY = 'id > ""'
"""What every row matches: no id is empty."""

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r"}


def quote(text: str) -> str:
    """A string literal of Milvus's expressions."""
    return f'"{text.translate(_ESCAPES)}"'


def id_in(ids: Iterable[str]) -> str:
    """What rows of these ids match; ids are as stored, here and below."""
    return f"id in [{', '.join(map(quote, ids))}]"


def after(last_id: str, expression: str) -> str:
    """What rows that match and whose id follows another match; an empty expression is any row."""
    beyond = f"id > {quote(last_id)}"
    return f"({expression}) and {beyond}" if expression else beyond


def one_of(expression: str, ids: Iterable[str]) -> str:
    """What rows of these ids that match match; an empty expression is any row."""
    named = id_in(ids)
    return f"({expression}) and {named}" if expression else named


def none_of(expression: str, ids: Iterable[str]) -> str:
    """What rows that match and have none of these ids match; an empty expression is any row."""
    others = f"id not in [{', '.join(map(quote, ids))}]"
    return f"({expression}) and {others}" if expression else others
