"""From the checked tree of a filter to the expression of a vector store."""

from __future__ import annotations

from milvine.domain.filter import Dialect, Filter


def compile_filter(filter_: Filter | None, dialect: Dialect) -> str:
    """Write a filter in the language of a vector store; empty for None.

    Raises:
        NotSupported: The store has no exact way to say it.
    """
    if filter_ is None:
        return ""
    raise NotImplementedError(dialect)
