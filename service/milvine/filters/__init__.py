"""The filter language: text -> tree, checked against the catalog -> expression of a vector store.

`parse` turns the text of a request into a tree, `compile_filter` writes the tree for the store at
hand. `docs/filters.md` is the language's guide.
"""

from __future__ import annotations

from milvine.filters.binding import ParamValue
from milvine.filters.compiler import compile_filter
from milvine.filters.parser import parse

__all__ = ["ParamValue", "compile_filter", "parse"]
