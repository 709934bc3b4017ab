"""Tokens of pages: what they keep, and what they refuse."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from milvine.domain.errors import InvalidPageToken
from milvine.domain.hit import Hit
from milvine.domain.query import Selection
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval.packing import pack_ids, pack_subject
from milvine.retrieval.pages import MAX_TOKEN, MOST_SHOWN, Page, Pages
from milvine.retrieval.people import Person

ITEMS = Vocabulary([f"item {n} ☃" for n in range(20_000)])
BOUND = b"a request"
ONE = Selection(page_size=1, fingerprint=BOUND)
FIRST = Page("r1", datetime(2026, 11, 23, 12, 30, 15, 123_456, UTC))
PERSON = Person(np.arange(3, dtype=np.float32), ("item 7 ☃", "item 5 ☃"))

subjects = st.builds(
    Person,
    st.none() | arrays(np.float32, st.integers(1, 64), elements=st.floats(-9, 9, width=32)),
    st.lists(st.integers(0, len(ITEMS) - 1), max_size=50).map(
        lambda rows: tuple(ITEMS.take(np.array(rows, np.int32)))
    ),
)
ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture
def url(tmp_path):
    """Where records are."""
    return f"sqlite:///{tmp_path / 'records.db'}"


@pytest.fixture
def pages(url):
    """Pages over records that hold nothing."""
    records = Records.open(url)
    yield Pages(records, None)
    records.close()


async def after_one(pages: Pages) -> str:
    """A token after a page with one item."""
    return await pages.after(ONE, FIRST, [Hit("item 3 ☃", 1.0)], items=ITEMS, person=PERSON)


@given(subjects, st.lists(st.integers(0, len(ITEMS) - 1)))
def test_a_page_of_items_comes_back(person, shown):
    """The release, the moment, the subject's vector and seen items and what was shown are kept."""
    rows = np.array(shown, "<i4")
    page = Page("r1", FIRST.moment, len(shown), pack_subject(person, ITEMS), rows.tobytes())

    found = Page.decode(page.encode())

    known = found.person(ITEMS)
    assert (found.release_id, found.moment) == ("r1", FIRST.moment)
    assert (known.vector is None) == (person.vector is None)
    assert known.vector is None or known.vector.tobytes() == person.vector.tobytes()
    assert sorted(known.seen) == sorted(set(person.seen))
    assert found.shown_rows(ITEMS).tolist() == shown
    assert found.shown_ids(ITEMS) == ITEMS.take(rows)


async def test_new_items_keep_their_place_in_any_process(pages):
    """Rows of items that came after the model differ between processes: tokens have their ids."""
    here, there = ITEMS.extended(["new a", "new b"]), ITEMS.extended(["new c", "new b", "new a"])
    person = Person(np.ones(3, np.float32), ("item 7 ☃", "new a"), np.zeros(2, np.float32))
    asked = Selection(page_size=2, fingerprint=BOUND)
    shown = [Hit("item 3 ☃", 2.0), Hit("new b", 1.0)]

    token = await pages.after(asked, FIRST, shown, items=here, person=person)
    page = await pages._unsealed(token, BOUND)
    more = [Hit("new a", 0.5), Hit("item 9 ☃", 0.1)]
    page = await pages._unsealed(await pages.after(asked, page, more, items=there), BOUND)

    assert page.shown_ids(there) == ["item 3 ☃", "item 9 ☃", "new b", "new a"]
    assert there.take(page.shown_rows(there)) == page.shown_ids(there)
    assert set(page.person(there).seen) == {"item 7 ☃", "new a"}
    assert page.person(there).reader.tolist() == [0, 0]


@given(st.lists(ids))
def test_a_page_of_users_comes_back(shown):
    """The ids of users are kept in their order, whatever characters they have."""
    page = Page("r1", FIRST.moment, len(shown), b"", pack_ids(shown))

    assert Page.decode(page.encode()).shown_ids(None) == shown


@pytest.mark.parametrize("count", [0, 1, 4_096, 10_000])
def test_seen_items_come_back_at_any_length(count):
    """Long histories are kept whole, but for items that the release does not have."""
    rows = np.random.default_rng(count).choice(len(ITEMS), count, replace=False)
    person = Person(None, (*ITEMS.take(rows), "no such item"))

    page = Page("r1", FIRST.moment, 1, pack_subject(person, ITEMS), b"")

    assert set(page.person(ITEMS).seen) == set(ITEMS.take(rows))


async def test_a_token_leads_to_the_next_page(pages):
    """What the first page was made of and what it showed stands in the token."""
    page = await pages._unsealed(await after_one(pages), BOUND)

    assert page.shown_ids(ITEMS) == ["item 3 ☃"]
    assert page.person(ITEMS).vector.tolist() == [0, 1, 2]
    assert set(page.person(ITEMS).seen) == set(PERSON.seen)


async def test_items_that_came_later_are_told_by_id(pages):
    """Processes number them otherwise; one that does not know one of them yet leaves it out."""
    here, there = ITEMS.extended(["new a", "new b"]), ITEMS.extended(["new c", "new b", "new a"])
    person = Person(None, ("new b", "item 5 ☃"))
    hits = [Hit("new a", 2.0), Hit("item 3 ☃", 1.0), Hit("new d", 0.5)]
    selection = Selection(page_size=3, fingerprint=BOUND)

    token = await pages.after(selection, FIRST, hits, items=here, person=person)

    page = await pages._unsealed(token, BOUND)
    assert set(page.person(there).seen) == {"new b", "item 5 ☃"}
    assert set(page.shown_ids(there)) == {"item 3 ☃", "new a", "new d"}
    assert there.take(page.shown_rows(there)) == ["item 3 ☃", "new a"]
    later = await pages.after(selection, page, [Hit("new c", 1.0)] * 3, items=there)
    assert "new c" in (await pages._unsealed(later, BOUND)).shown_ids(here)


async def test_the_subject_stays_that_of_the_first_page(pages):
    """A later page keeps the subject, whoever is given for it."""
    page = await pages._unsealed(await after_one(pages), BOUND)
    other = Person(np.ones(3, np.float32), ())

    token = await pages.after(ONE, page, [Hit("item 9 ☃", 1.0)], items=ITEMS, person=other)

    following = await pages._unsealed(token, BOUND)
    assert following.shown_ids(ITEMS) == ["item 3 ☃", "item 9 ☃"]
    assert following.person(ITEMS).vector.tolist() == [0, 1, 2]


async def test_a_token_that_was_changed_is_refused(pages):
    """Whichever character is another one, whatever is cut or added."""
    token = await after_one(pages)
    changed = [
        f"{token[:at]}{'B' if token[at] == 'A' else 'A'}{token[at + 1 :]}"
        for at in range(len(token))
    ]
    cut = [token[:length] for length in range(1, len(token))]
    others = [f"{token}A", f"{token}=", f" {token}", f"{token}\n", "ü", "x", "=" * 9, "\0"]

    for bad in [*changed, *cut, *others]:
        with pytest.raises(InvalidPageToken):
            await pages._unsealed(bad, BOUND)


async def test_another_spelling_is_refused(pages):
    """Bits that the bytes of a token leave unused can't be set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = await after_one(pages)
    while not token.endswith("="):  # until some are unused
        token = await pages._sealed(b"\1" * len(token), BOUND)
    last = token.rstrip("=")[-1]
    other = alphabet[alphabet.index(last) + 1]
    same_bytes = token.rstrip("=")[:-1] + other + token[len(token.rstrip("=")) :]
    assert base64.urlsafe_b64decode(same_bytes) == base64.urlsafe_b64decode(token)

    with pytest.raises(InvalidPageToken):
        await pages._unsealed(same_bytes, BOUND)


async def test_a_token_that_is_too_long_is_refused(pages):
    """Nothing of it is looked at."""
    with pytest.raises(InvalidPageToken):
        await pages._unsealed("A" * (MAX_TOKEN + 1), BOUND)


async def test_a_token_of_another_request_is_refused(pages):
    """It is bound to what it was given for."""
    with pytest.raises(InvalidPageToken):
        await pages._unsealed(await after_one(pages), b"another request")


async def test_a_token_of_another_version_is_refused(pages):
    """What this version can't read, it does not guess at."""
    token = await pages._sealed(b"\1" + FIRST.encode()[1:], BOUND)

    with pytest.raises(InvalidPageToken):
        await pages._unsealed(token, BOUND)


async def test_processes_read_each_others_tokens(pages, url, tmp_path):
    """Those with the same records do, and no others."""
    token = await after_one(pages)
    same, other = Records.open(url), Records.open(f"sqlite:///{tmp_path / 'other.db'}")
    try:
        assert (await Pages(same, None)._unsealed(token, BOUND)).release_id == "r1"
        with pytest.raises(InvalidPageToken):
            await Pages(other, None)._unsealed(token, BOUND)
    finally:
        same.close()
        other.close()


async def test_a_token_does_not_show_what_it_holds(pages):
    """No two are alike, and nothing of the history can be read."""
    one, two = await after_one(pages), await after_one(pages)

    assert one[:24] != two[:24]
    assert b"r1" not in base64.urlsafe_b64decode(one)[12:]


@pytest.mark.parametrize(
    ("selection", "page"),
    [
        (Selection(page_size=2, fingerprint=BOUND), FIRST),
        (Selection(page_size=1), FIRST),
        (ONE, Page("r1", FIRST.moment, MOST_SHOWN - 1, b"\0\0\0\0\0", b"")),
    ],
    ids=["short", "batch", "deep"],
)
async def test_a_list_ends(pages, selection, page):
    """Where a page is short, in a batch, and after 10,000 hits there is no token."""
    assert not await pages.after(selection, page, [Hit("item 3 ☃", 1.0)], items=ITEMS)


async def test_the_longest_tokens_fit(pages):
    """Users with ids of 256 random bytes can be shown up to the end, after a full page."""
    rng = np.random.default_rng(0)
    shown = [rng.integers(33, 127, 256, np.uint8).tobytes().decode() for _ in range(MOST_SHOWN)]
    page = Page("r1", FIRST.moment, MOST_SHOWN - 2, b"", pack_ids(shown[2:]))

    token = await pages.after(ONE, page, [Hit(shown[0], 1.0)])

    assert MAX_TOKEN / 2 < len(token) <= MAX_TOKEN
    assert (await pages._unsealed(token, BOUND)).shown_count == MOST_SHOWN - 1
