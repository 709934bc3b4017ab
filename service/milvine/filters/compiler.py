"""From the checked tree of a filter to the expression of a vector store.

Negation is pushed to the leaves, each of which is written in one of its two senses: Lite has no
`not` around a call, and a leaf over a missing value is false in both. A missing value is stored as
a placeholder, so a leaf is guarded by the flag column only where the placeholder would satisfy it.
"""

from __future__ import annotations

from milvine.domain.filter import And, Dialect, Filter, IsNull, Not, Or
from milvine.filters.expression import ALWAYS, NEVER, Piece, both, either
from milvine.filters.leaves import flag, leaf, placeholder_satisfies

_NOTHING = 'id == ""'
"""What no row matches: no id is empty."""


def compile_filter(filter_: Filter | None, dialect: Dialect) -> str:
    """Write a filter in the language of a vector store; empty for None.

    Raises:
        NotSupported: The store has no exact way to say it.
    """
    piece = ALWAYS if filter_ is None else _write(filter_, dialect, wanted=True)
    if piece is ALWAYS:
        return ""
    return _NOTHING if piece is NEVER else piece.text


def _write(filter_: Filter, dialect: Dialect, *, wanted: bool) -> Piece:
    """The filter where `wanted`, else its complement among what has values."""
    match filter_:
        case Not(operand):
            return _write(operand, dialect, wanted=not wanted)
        case And(operands) | Or(operands):
            combine = both if isinstance(filter_, And) == wanted else either
            return combine(*(_write(operand, dialect, wanted=wanted) for operand in operands))
        case IsNull(field):
            return flag(field, present=not wanted)
        case _:
            piece = leaf(filter_, dialect, wanted=wanted)
            guarded = placeholder_satisfies(filter_) == wanted and piece is not NEVER
            return both(flag(filter_.field, present=True), piece) if guarded else piece
