"""An embedded Milvus: one process owns the file, the others attach to its child's socket."""

from __future__ import annotations

from pathlib import Path
from typing import Self


class LiteProcess:
    """A Milvus Lite that serves one database file at a unix socket."""

    uri: str
    owner: bool

    @classmethod
    def open(cls, path: Path) -> Self:
        """Serve the file, as its only owner; raises Aborted where another process does."""
        raise NotImplementedError

    @classmethod
    def attach_or_open(cls, path: Path) -> Self:
        """Attach to the process that serves the file, or become its owner."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the child, if this is its owner."""
