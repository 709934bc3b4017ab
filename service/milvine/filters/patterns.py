"""`like` as expressions of a vector store.

Text sorts by its bytes on every store, so a prefix is a range, in both senses. Only patterns with
wildcards elsewhere need the store's own `like`, whose rules are narrower than the language's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from itertools import groupby
from typing import TypeAlias

from milvine.domain.errors import NotSupported
from milvine.domain.filter import Dialect, quote
from milvine.filters.expression import ALWAYS, Piece, both, either


class Wildcard(Enum):
    """What stands for other text in a pattern."""

    ANY = "%"
    ONE = "_"


ANY, ONE = Wildcard.ANY, Wildcard.ONE
Part: TypeAlias = str | Wildcard
"""A piece of a pattern: text, or a wildcard."""

_TOKEN = re.compile(r"\\(.)|([%_])|([^\\%_]+)", re.DOTALL)
_SPECIAL = re.compile(r"[%_\\]")
_OUTSIDE = {">=": "<", ">": "<="}
_FIRST_OF_WIDTH = ("", "\x80", "\u0800", "\U00010000")
"""The first characters that UTF-8 writes in 1, 2, 3 and 4 bytes; "" for the first of all."""


def like(name: str, pattern: str, dialect: Dialect, *, wanted: bool) -> Piece:
    """The column `name` matches the pattern, or where not `wanted` does not.

    Raises:
        NotSupported: The store has no exact way to say it.
    """
    head, tail = split(pattern)
    if not tail:
        return Piece(f"{name} {'==' if wanted else '!='} {quote(head, dialect)}")
    if tail == [ANY]:
        return _range(name, ">=", head, dialect, wanted=wanted)
    if tail == [ONE, ANY]:
        return _range(name, ">", head, dialect, wanted=wanted)
    if not dialect.matches_bytes:
        raise NotSupported(
            "this vector store understands `like` only with text and a final %, "
            f"as in `{name} like 'text%'`"
        )
    if not wanted and not dialect.negates_calls:
        raise NotSupported(
            "this vector store can't negate a `like` that has wildcards before its end"
        )
    matched = _match(name, head, tail, dialect)
    return matched if wanted else Piece(f"not ({matched.text})", matched.depth + 1)


def split(pattern: str) -> tuple[str, list[Part]]:
    """The text before the first wildcard, and the rest of the pattern.

    In a run of wildcards the order means nothing: each ONE comes first, then at most one ANY.
    """
    parts: list[Part] = []
    tokens = (_part(token) for token in _TOKEN.finditer(pattern))
    for is_text, run in groupby(tokens, lambda part: isinstance(part, str)):
        found = list(run)
        if is_text:
            parts.append("".join(map(str, found)))
        else:
            parts += [ONE] * found.count(ONE) + [ANY] * (ANY in found)
    if parts and isinstance(parts[0], str):
        return parts[0], parts[1:]
    return "", parts


def _part(token: re.Match[str]) -> Part:
    escaped, wildcard, text = token.groups()
    return Wildcard(wildcard) if wildcard else escaped or text


def _range(name: str, low: str, head: str, dialect: Dialect, *, wanted: bool) -> Piece:
    """Text that begins with `head`: after it comes anything for low `>=`, something for `>`."""
    above, below, combine = (low, "<", both) if wanted else (_OUTSIDE[low], ">=", either)
    bounds = [Piece(f"{name} {above} {quote(head, dialect)}")]
    if beyond := _successor(head):
        bounds.append(Piece(f"{name} {below} {quote(beyond, dialect)}"))
    return combine(*bounds)


def _successor(text: str) -> str:
    """The first text after all that begin with `text`; empty where there is none."""
    rest = text.rstrip("\U0010ffff")
    if not rest:
        return ""
    point = ord(rest[-1]) + 1
    return rest[:-1] + chr(0xE000 if point == 0xD800 else point)  # no half surrogate pairs


def _match(name: str, head: str, tail: list[Part], dialect: Dialect) -> Piece:
    """By the store's `like`, for which `_` is one byte.

    At least one byte is at least one character, so `_%` is safe. Exactly one character is one to
    four bytes; after a known beginning, ranges tell how many.
    """
    first, *rest = tail
    if first is ONE and rest[:1] not in ([ONE], [ANY]) and _counts_no_characters(rest):
        return either(*(_one(name, head, width, rest, dialect) for width in (1, 2, 3, 4)))
    if _counts_no_characters(tail):
        return _call(name, _render([head, *tail]), dialect)
    raise NotSupported(
        "this vector store understands `_` in `like` beside a %, and once where no other wildcard "
        "stands before it"
    )


def _counts_no_characters(parts: Iterable[Part]) -> bool:
    """Whether every run of wildcards is `%` or `_%`."""
    runs = (
        list(run) for is_text, run in groupby(parts, lambda p: isinstance(p, str)) if not is_text
    )
    return all(run in ([ANY], [ONE, ANY]) for run in runs)


def _one(name: str, head: str, width: int, rest: list[Part], dialect: Dialect) -> Piece:
    """`head`, one character of `width` bytes, and the rest."""
    from_ = head + _FIRST_OF_WIDTH[width - 1]
    wildcards = "_" * (len(head.encode()) + width)
    # Lite takes a pattern that ends in `_` for a prefix; a last backslash stops it, and is nothing.
    pattern = wildcards + (_render(rest) or "\\")
    begins = both(
        _range(name, ">=", head, dialect, wanted=True),
        Piece(f"{name} >= {quote(from_, dialect)}") if width > 1 else ALWAYS,
    )
    return both(begins, _call(name, pattern, dialect))


def _call(name: str, pattern: str, dialect: Dialect) -> Piece:
    return Piece(f"{name} like {quote(pattern, dialect)}")


def _render(parts: Iterable[Part]) -> str:
    """A pattern as Lite reads it."""
    written = ""
    for part in parts:
        if isinstance(part, str):
            written += _SPECIAL.sub(r"\\\g<0>", part)
        else:
            # Lite overlooks a wildcard after a backslash, even after one that is text itself.
            overlooked = part is ANY and written.endswith("\\")
            written += part.value * (2 if overlooked else 1)
    return written
