"""Where a list goes on: tokens that hold all that its pages have in common.

A token has the release, the subject's vector and seen items as they were on the first page, and
what was shown since. So pages of a list agree whatever is written or activated in between, any
process can answer the next one, and nothing of it is kept or read.

It is sealed by AES-GCM-SIV (RFC 8452) under a key that all processes share, and bound to the
request. So nobody can make one up, take one to another request, or read a history out of one. The
mode stands any number of tokens from any number of processes, each of which counts its nonces up
from a random one; AES-GCM would want a new key after 2**32.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from milvine.domain.entity import from_micros, to_micros
from milvine.domain.errors import InvalidPageToken, NotFound, Reason
from milvine.domain.hit import Hit
from milvine.domain.query import Selection
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval.active import Active, ActiveReleases
from milvine.retrieval.packing import LONG, pack_ids, pack_subject, unpack_ids, unpack_subject
from milvine.retrieval.people import Person
from milvine.retrieval.ranking import Rows

MOST_SHOWN = 10_000
"""A list goes on until so many hits were shown."""
MAX_TOKEN = 4 << 20
"""The longest token, in characters: 10,000 users with the longest ids fit, or a million items of a
history."""
KEY_NAME = "page_tokens"

_VERSION = 2
_HEAD = struct.Struct("<BBqIII")
"""Version, bytes of the release id, moment, hits shown, bytes of the subject and of `later`."""
_NONCE_BYTES = 12
_NONCES = 2 ** (8 * _NONCE_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """What the pages of a list have in common, and what was shown on those before."""

    release_id: str
    moment: datetime
    """When the first page was asked for."""
    shown_count: int = 0
    subject: bytes = b""
    """Of `pack_subject`; empty on the first page, and where the request says it all."""
    shown: bytes = b""
    """Fixed rows of items in their order, or of users `pack_ids`."""
    later: bytes = b""
    """`pack_ids` of shown items that have no fixed row: another process may number them so, this
    one otherwise."""

    @property
    def is_first(self) -> bool:
        """Whether nothing was shown yet."""
        return not self.shown_count

    def person(self, items: Vocabulary) -> Person:
        """The subject as it was on the first page."""
        return unpack_subject(self.subject, items)

    def shown_rows(self, items: Vocabulary) -> Rows:
        """The items that were shown, (n,) rows of the release, those with a fixed row first."""
        rows = np.frombuffer(self.shown, "<i4").astype(np.int32, copy=False)
        if not self.later:
            return rows
        later = items.rows(unpack_ids(self.later))
        return np.concatenate([rows, later[later >= 0]])

    def shown_ids(self, items: Vocabulary | None) -> list[str]:
        """The ids of what was shown: of the release's items, or with None users."""
        if self.is_first:
            return []
        if items is None:
            return unpack_ids(self.shown)
        return items.take(np.frombuffer(self.shown, "<i4")) + unpack_ids(self.later)

    def encode(self) -> bytes:
        """The page as bytes."""
        release = self.release_id.encode()
        moment = to_micros(self.moment)
        sizes = (self.shown_count, len(self.subject), len(self.later))
        head = _HEAD.pack(_VERSION, len(release), moment, *sizes)
        return b"".join((head, release, self.subject, self.later, self.shown))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The page of bytes that `encode` made; raises ValueError for those of another version."""
        if data[0] != _VERSION:
            raise ValueError(f"version {data[0]}")
        _, release_bytes, moment, shown_count, *sizes = _HEAD.unpack_from(data)
        subject = _HEAD.size + release_bytes
        later = subject + sizes[0]
        shown = later + sizes[1]
        return cls(
            data[_HEAD.size : subject].decode(),
            from_micros(moment),
            shown_count,
            data[subject:later],
            data[shown:],
            data[later:shown],
        )


class Pages:
    """Opens lists where they begin and where a token says, and seals where they go on."""

    def __init__(self, records: Records, releases: ActiveReleases) -> None:
        self._records = records
        self._releases = releases
        self._cipher: AESGCMSIV | None = None
        self._nonces = itertools.count(secrets.randbelow(_NONCES))
        """From a random one on: to ask the system for each costs more than to seal."""
        self._packed: WeakKeyDictionary[Person, bytes] = WeakKeyDictionary()
        """A person belongs to one release, and mostly is remembered."""

    async def open(self, catalog_id: str, selection: Selection) -> tuple[Active, Page]:
        """The release that answers, and the page that is asked for.

        Raises:
            NotFound: There is no such catalog, or no such release any more.
            FailedPrecondition: It has no active release, or the one to ask is not READY.
            InvalidPageToken: The token was not given for this request.
            Unavailable: The records do not answer.
        """
        if not selection.page_token:
            active = await self._releases.get(catalog_id, selection.release_id)
            return active, Page(active.release.id, datetime.now(UTC))
        page = await self._unsealed(selection.page_token, selection.fingerprint)
        try:
            return await self._releases.get(catalog_id, page.release_id), page
        except NotFound as exc:
            if exc.reason is Reason.RELEASE_NOT_FOUND:
                raise _release_gone(page.release_id) from exc
            raise

    async def after(
        self,
        selection: Selection,
        page: Page,
        hits: Sequence[Hit],
        *,
        items: Vocabulary | None = None,
        person: Person | None = None,
    ) -> str:
        """The token of the page after one; empty where the list ends with it, and for a batch.

        Args:
            selection: What was asked.
            page: The page that is answered.
            hits: What it shows.
            items: The items of the release; None where the hits are users.
            person: The subject, where it was placed; None where the request says it all.
        """
        if not selection.fingerprint or len(hits) < selection.page_size:
            return ""
        if page.shown_count + len(hits) >= MOST_SHOWN:
            return ""
        subject = page.subject
        if page.is_first and person is not None and items is not None:
            subject = await self._subject(person, items)
        shown, later = _shown(page, hits, items)
        count = page.shown_count + len(hits)
        following = replace(page, shown_count=count, subject=subject, shown=shown, later=later)
        return await self._sealed(following.encode(), selection.fingerprint)

    async def _subject(self, person: Person, items: Vocabulary) -> bytes:
        """A person, packed once as long as they are remembered."""
        packed = self._packed.get(person)
        if packed is None:
            if len(person.seen) <= LONG:
                packed = pack_subject(person, items)
            else:
                packed = await asyncio.to_thread(pack_subject, person, items)
            self._packed[person] = packed
        return packed

    async def _sealed(self, content: bytes, fingerprint: bytes) -> str:
        cipher = self._cipher or await self._ready()
        nonce = (next(self._nonces) % _NONCES).to_bytes(_NONCE_BYTES)
        sealed = nonce + cipher.encrypt(nonce, content, fingerprint)
        token = base64.urlsafe_b64encode(sealed).decode()
        return token if len(token) <= MAX_TOKEN else ""

    async def _unsealed(self, token: str, fingerprint: bytes) -> Page:
        if len(token) > MAX_TOKEN:
            raise InvalidPageToken
        cipher = self._cipher or await self._ready()
        try:
            sealed = base64.urlsafe_b64decode(token)
            nonce, content = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            page = Page.decode(cipher.decrypt(nonce, content, fingerprint))
        except (ValueError, InvalidTag) as exc:
            raise InvalidPageToken from exc
        # No other spelling of the same bytes passes.
        if base64.urlsafe_b64encode(sealed).decode() != token:
            raise InvalidPageToken
        return page

    async def _ready(self) -> AESGCMSIV:
        key = await asyncio.to_thread(self._records.keys.get, KEY_NAME)
        self._cipher = AESGCMSIV(key)
        return self._cipher


def _shown(page: Page, hits: Sequence[Hit], items: Vocabulary | None) -> tuple[bytes, bytes]:
    """What was shown with these hits: `Page.shown` and `Page.later`."""
    ids = [hit.id for hit in hits]
    if items is None:
        return pack_ids([*page.shown_ids(None), *ids]), b""
    rows = items.rows(ids)
    fixed = (rows >= 0) & (rows < items.fixed)
    shown = page.shown + rows[fixed].astype("<i4", copy=False).tobytes()
    if fixed.all():
        return shown, page.later
    new = [ids[place] for place in np.flatnonzero(~fixed).tolist()]
    return shown, pack_ids([*unpack_ids(page.later), *new])


def _release_gone(release_id: str) -> NotFound:
    return NotFound(
        f"release {release_id!r}, which the pages of this list come from, was deleted; "
        "begin again without a page_token",
        Reason.RELEASE_NOT_FOUND,
        {"release_id": release_id},
    )
