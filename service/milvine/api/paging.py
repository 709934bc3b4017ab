"""Pages of lists: sizes and opaque tokens.

A token holds the place to go on from and a digest of the method's request without the size, so
that it is refused by another method and for other arguments. It is no secret: it grants nothing
that the caller couldn't ask for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, TypeVar

from milvine.domain.errors import InvalidArgument, InvalidPageToken

DEFAULT_SIZE = 50
MAX_SIZE = 1_000
# The longest cursor is that of an interaction: two ids of 256 bytes, each a control character of
# 7 characters when it is escaped twice, come to 5,000 in base64.
_MAX_TOKEN_LENGTH = 8_192
_SURROGATE = re.compile("[\ud800-\udfff]")

Row = TypeVar("Row")


class ListRequest(Protocol):
    """A request for a page of a list."""

    page_size: int
    page_token: str

    def SerializeToString(self, *, deterministic: bool) -> bytes:
        """The bytes of the message."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list to read."""

    limit: int
    """One row more than fits, which tells whether another page follows."""
    after: str | None
    """The cursor of the last row of the page before; None for the first page."""


def size_of(page_size: int, default: int, path: str = "page_size") -> int:
    """The rows to return: 0 takes the default, more than 1,000 are read as 1,000."""
    if page_size < 0:
        raise InvalidArgument.at(path, f"must be 0 to {MAX_SIZE:,}; 0 takes {default}")
    return min(page_size or default, MAX_SIZE)


def page_of(request: ListRequest) -> Page:
    """The page that a list request asks for; raises InvalidPageToken for a foreign token."""
    limit = size_of(request.page_size, DEFAULT_SIZE) + 1
    return Page(limit, _cursor(request) if request.page_token else None)


def cut(
    request: ListRequest, rows: Sequence[Row], cursor: Callable[[Row], str]
) -> tuple[Sequence[Row], str]:
    """The rows of the page and the token of the next one, empty on the last."""
    size = size_of(request.page_size, DEFAULT_SIZE)
    if len(rows) <= size:
        return rows, ""
    return rows[:size], _token(request, cursor(rows[size - 1]))


def fingerprint(request: ListRequest) -> bytes:
    """16 bytes that no other method has, nor this one for other arguments."""
    name = type(request).__qualname__.encode()
    return hashlib.blake2b(
        name + b"\0" + _rest(request), digest_size=16, person=b"milvine"
    ).digest()


def is_text(value: object) -> TypeGuard[str]:
    """Whether something out of a token is text that the records take."""
    return isinstance(value, str) and "\0" not in value and not _SURROGATE.search(value)


def _cursor(request: ListRequest) -> str:
    token = request.page_token
    if len(token) > _MAX_TOKEN_LENGTH:
        raise InvalidPageToken
    try:
        cursor, _ = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidPageToken from exc
    # Made anew, so that no other spelling of the same content passes.
    if not is_text(cursor) or token != _token(request, cursor):
        raise InvalidPageToken
    return cursor


def _token(request: ListRequest, cursor: str) -> str:
    content = json.dumps([cursor, _digest(request, cursor)], ensure_ascii=False)
    return base64.urlsafe_b64encode(content.encode()).decode()


def _digest(request: ListRequest, cursor: str) -> str:
    digest = hashlib.blake2b(digest_size=12, person=b"milvine")
    digest.update(type(request).__qualname__.encode() + b"\0")
    digest.update(cursor.encode() + b"\0")
    digest.update(_rest(request))
    return digest.hexdigest()


def _rest(request: ListRequest) -> bytes:
    """What must be the same on every page of a list."""
    size, token = request.page_size, request.page_token
    # Taken out for a moment: a copy would take ten times as long.
    request.page_size, request.page_token = 0, ""
    try:
        return request.SerializeToString(deterministic=True)
    finally:
        request.page_size, request.page_token = size, token
