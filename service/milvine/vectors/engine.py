"""What the two kinds of Milvus differ in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.entity import MAX_ID_BYTES

# Lite's expressions have no escape for a line end, and its upsert breaks on a quote.
_UNSAFE = {ord(char): f"%{ord(char):02X}" for char in "%'\"\\\n\r"}


@dataclass(frozen=True, slots=True)
class Engine:
    """The Milvus at hand."""

    is_lite: bool

    @property
    def has_aliases(self) -> bool:
        """Whether it knows aliases."""
        return not self.is_lite

    @property
    def rows_at_once(self) -> int:
        """The rows of a write that it takes best: on Lite a write costs the square of them.

        Of 64 dimensions and three fields, inserts of 100, 150, 200 and 500 rows take 40, 45, 52 and
        92 microseconds of Lite's CPU a row, upserts a fifth more; each call takes some of ours.
        """
        return 150 if self.is_lite else 2_000

    @property
    def id_bytes(self) -> int:
        """The size of the column of ids."""
        return 3 * MAX_ID_BYTES if self.is_lite else MAX_ID_BYTES

    def kind(self, index: VectorIndex) -> IndexKind:
        """The index that is built: Lite has no HNSW, and no need of it at its sizes."""
        match index.kind:
            case IndexKind.AUTO | IndexKind.HNSW:
                return IndexKind.FLAT if self.is_lite else IndexKind.HNSW
            case kind:
                return kind

    def stored(self, ids: Iterable[str]) -> list[str]:
        """Ids as they are stored: on Lite without the characters that it can't express."""
        return [id_.translate(_UNSAFE) for id_ in ids] if self.is_lite else list(ids)

    def restored(self, ids: Iterable[str]) -> list[str]:
        """Ids as clients know them."""
        known = list(ids)
        if not self.is_lite or "%" not in "".join(known):
            return known
        return [unquote(id_) if "%" in id_ else id_ for id_ in known]
