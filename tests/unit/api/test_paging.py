"""Pages: sizes, and tokens that only their own list takes back."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from milvine.api import paging
from milvine.api.convert import interactions
from milvine.domain.errors import InvalidArgument, InvalidPageToken
from milvine.v1 import (
    interaction_service_pb2,
    item_service_pb2,
    retrieval_service_pb2,
    user_service_pb2,
)

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=64)
TOKEN = "token"  # noqa: S105 - no secret


def items(catalog_id="films", size=2, token=""):
    """A request for a page of items."""
    return item_service_pb2.ListItemsRequest(
        catalog_id=catalog_id, page_size=size, page_token=token
    )


def next_token(request, cursor):
    """The token of the page after a row."""
    rows = [cursor] * (request.page_size + 1)
    return paging.cut(request, rows, lambda row: row)[1]


@pytest.mark.parametrize(("given_size", "limit"), [(0, 50), (1, 1), (1_000, 1_000), (5_000, 1_000)])
def test_sizes(given_size, limit):
    """0 takes the default and more than 1,000 are read as 1,000; one row more is read."""
    assert paging.page_of(items(size=given_size)).limit == limit + 1


def test_negative_size():
    """A negative size is refused by its path."""
    with pytest.raises(InvalidArgument) as raised:
        paging.page_of(items(size=-1))
    assert raised.value.violations[0].field == "page_size"


def test_last_page():
    """A list that ends has no token, also where it ends with the page."""
    assert paging.cut(items(size=2), ["a", "b"], str) == (["a", "b"], "")


def test_next_page():
    """A list that goes on is cut, and the token leads to what follows."""
    rows, token = paging.cut(items(size=2), ["a", "b", "c"], str)
    assert rows == ["a", "b"]
    assert paging.page_of(items(token=token)).after == "b"


@given(TEXTS)
def test_round_trip(cursor):
    """Any cursor comes back, and the page may change its size on the way."""
    token = next_token(items(), cursor)
    assert paging.page_of(items(size=7, token=token)).after == cursor


@pytest.mark.parametrize("sign", ["\x01", "\x7f", '"', "\\", "é", "\N{KITE}"])
def test_longest_cursor(sign):
    """A token of the longest place, that of an interaction, is not too long."""
    longest = sign * (256 // len(sign.encode()))
    row = {"event_time": -(10**17), "item_id": longest, "event_id": longest, "event_type": "x" * 48}
    cursor = interactions.cursor(row)
    assert paging.page_of(items(token=next_token(items(), cursor))).after == cursor


@pytest.mark.parametrize("cursor", ["a\0", "\ud800"])
def test_text_that_no_store_takes(cursor):
    """A token that someone made of text that no row has is refused."""
    content = json.dumps([cursor, ""], ensure_ascii=False).encode("utf-8", "surrogatepass")
    token = base64.urlsafe_b64encode(content).decode()
    with pytest.raises(InvalidPageToken):
        paging.page_of(items(token=token))
    assert not paging.is_text(cursor)


@given(TEXTS, st.data())
def test_forged(cursor, data):
    """A token with any character changed, dropped or added is refused."""
    token = next_token(items(), cursor)
    place = data.draw(st.integers(0, len(token) - 1))
    middle = data.draw(st.text("AZaz09_-=+/ \néx", max_size=2))
    forged = token[:place] + middle + token[place + 1 :]
    assume(forged not in (token, ""))
    with pytest.raises(InvalidPageToken):
        paging.page_of(items(token=forged))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_nonsense(token):
    """Texts that were never tokens are refused."""
    with pytest.raises(InvalidPageToken):
        paging.page_of(items(token=token))


@pytest.mark.parametrize(
    "content",
    [[], ["a"], ["a", "b"], ["a", "b", "c"], {"a": 1}, "ab", 3, None, [1, "x"], [None, ""]],
)
def test_other_content(content):
    """Tokens of another make are refused."""
    token = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    with pytest.raises(InvalidPageToken):
        paging.page_of(items(token=token))


@pytest.mark.parametrize("content", [b"[" * 3_000, b"[" * 100_000, b"\xff\xfe", b"1e999"])
def test_hostile_content(content):
    """Tokens that are meant to break the parser are refused like others."""
    with pytest.raises(InvalidPageToken):
        paging.page_of(items(token=base64.urlsafe_b64encode(content).decode()))


def test_foreign_method():
    """A token of one method is refused by another with the same arguments."""
    token = next_token(items(), "a")
    request = user_service_pb2.ListUsersRequest(catalog_id="films", page_token=token)
    with pytest.raises(InvalidPageToken):
        paging.page_of(request)


def test_foreign_arguments():
    """A token is refused for another catalog or another user."""
    with pytest.raises(InvalidPageToken):
        paging.page_of(items("books", token=next_token(items("films"), "a")))
    one, other = (
        interaction_service_pb2.ListInteractionsRequest(
            catalog_id="films", user_id=user, page_size=1
        )
        for user in ("1", "2")
    )
    other.page_token = next_token(one, "a")
    with pytest.raises(InvalidPageToken):
        paging.page_of(other)


def test_a_fingerprint_is_that_of_a_request():
    """Size and token of a page change nothing; every other field and the method do."""
    first = retrieval_service_pb2.RecommendRequest(catalog_id="films", page_size=3)
    later = retrieval_service_pb2.RecommendRequest(catalog_id="films", page_size=9)
    later.page_token = TOKEN
    others = [
        retrieval_service_pb2.RecommendRequest(catalog_id="books"),
        retrieval_service_pb2.RecommendRequest(catalog_id="films", filter="year > 1990"),
        retrieval_service_pb2.RecommendRequest(catalog_id="films", release_id="r"),
        retrieval_service_pb2.RecommendRequest(
            catalog_id="films", subject=retrieval_service_pb2.Subject(user_id="u")
        ),
        retrieval_service_pb2.PopularItemsRequest(catalog_id="films"),
    ]

    assert paging.fingerprint(later) == paging.fingerprint(first)
    assert len({paging.fingerprint(one) for one in [first, *others]}) == 1 + len(others)
    assert later.page_token == TOKEN
