"""Pieces of a store's filter expression, joined so that no piece lies deep.

Stores parse expressions recursively. Lite refuses more than about 45 levels; the server's time
grows with the square of a chain's length (`a or b or c ...`: 7 s at 2,000). So chains are written
as balanced trees with parentheses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import count
from typing import Literal

from milvine.domain.errors import NotSupported

MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Piece:
    """An expression that can stand beside others, and how deep it is nested."""

    text: str
    depth: int = 0


ALWAYS = Piece("true")
NEVER = Piece("false")
"""Conditions that hold for every row and for none. Stores can't say them: `join` takes them out."""


def both(*pieces: Piece) -> Piece:
    """What holds where every piece holds."""
    return join("and", pieces)


def either(*pieces: Piece) -> Piece:
    """What holds where at least one piece holds."""
    return join("or", pieces)


def join(operator: Literal["and", "or"], pieces: Iterable[Piece]) -> Piece:
    """The pieces under one operator.

    The shallowest two are joined first, again and again: the result is as shallow as can be.

    Raises:
        NotSupported: It is nested too deep for the stores.
    """
    neutral, ruling = (ALWAYS, NEVER) if operator == "and" else (NEVER, ALWAYS)
    kept = [piece for piece in dict.fromkeys(pieces) if piece is not neutral]
    if ruling in kept:
        return ruling
    if not kept:
        return neutral
    ticket = count()  # keeps the order among equally deep pieces
    heap = [(piece.depth, next(ticket), piece) for piece in kept]
    heapify(heap)
    while len(heap) > 1:
        _, _, left = heappop(heap)
        right = heap[0][2]
        depth = max(left.depth, right.depth) + 1
        joined = Piece(f"({left.text} {operator} {right.text})", depth)
        heapreplace(heap, (depth, next(ticket), joined))
    if heap[0][0] > MAX_DEPTH:
        raise NotSupported("the filter is nested too deep for the vector store; make it flatter")
    return heap[0][2]
