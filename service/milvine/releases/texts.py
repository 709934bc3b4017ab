"""Carrying changes of items into the collection of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from milvine.domain.release import Release, TextIndex
from milvine.records import Change
from milvine.releases.placing import encoded
from milvine.releases.rows import project
from milvine.text import TextEncoder, same_encoder
from milvine.vectors import CollectionSpec, Vectors
from milvine.vectors.layout import text_spec

WRITE_S = 60.0


@dataclass(frozen=True, slots=True)
class TextCarrier:
    """Carries changes into the text collection of a release."""

    vectors: Vectors
    target: CollectionSpec
    fields: tuple[str, ...]
    """The names of the fields that the texts are made of."""
    encoder: TextEncoder

    @classmethod
    def of(cls, vectors: Vectors, release: Release, text: TextIndex) -> Self:
        """What carries changes into a release.

        Raises:
            FailedPrecondition: The encoder is not installed here, or makes other vectors now.
        """
        encoder = same_encoder(text.encoder, text.fingerprint)
        return cls(vectors, text_spec(release, text), text.fields, encoder)

    async def carry(self, page: Sequence[Change]) -> None:
        """Write what items say now; take out those that are deleted, or say nothing any more."""
        names = frozenset(field.name for field in self.target.fields)
        live = {
            change.id: project(change.entity.fields, names)
            for change in page
            if change.entity is not None
        }
        gone = {change.id for change in page}
        async for ids, vectors in encoded(self.encoder, self.fields, live):
            rows = [live[id_] for id_ in ids]
            await self.vectors.write(
                self.target, ids, vectors, rows, fresh=False, timeout_s=WRITE_S
            )
            gone.difference_update(ids)
        if gone:
            await self.vectors.delete(self.target.name, sorted(gone), timeout_s=WRITE_S)
