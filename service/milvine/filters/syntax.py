"""The syntax of the filter language: text -> nodes that remember their column.

Nodes name fields and values as written; `binding` finds out what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from milvine.domain.errors import InvalidFilter

MAX_BYTES = 16_384
MAX_NESTING = 32


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a field."""

    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """`{name}`, whose value travels beside the text."""

    name: str
    column: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A string with its quotes, a number or a truth value, as written."""

    kind: str
    """STRING, NUMBER, TRUE or FALSE."""
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class List:
    """`[1, 2]`."""

    elements: tuple[Operand, ...]
    column: int


Operand: TypeAlias = Name | Parameter | Literal | List


@dataclass(frozen=True, slots=True)
class Alone:
    """An operand that stands as a condition."""

    operand: Operand


@dataclass(frozen=True, slots=True)
class Compared:
    """`year >= 1990`, or `1990 <= year < 2000` with a second operator and operand."""

    operands: tuple[Operand, ...]
    operators: tuple[str, ...]
    column: int
    """Of the last operator."""


@dataclass(frozen=True, slots=True)
class Contained:
    """`year in [1990]`."""

    subject: Operand
    values: Operand


@dataclass(frozen=True, slots=True)
class Alike:
    """`title like "The %"`."""

    subject: Operand
    pattern: Operand


@dataclass(frozen=True, slots=True)
class Null:
    """`year is null`."""

    subject: Operand


@dataclass(frozen=True, slots=True)
class Called:
    """`array_contains(genres, "Drama")`."""

    function: str
    arguments: tuple[Operand, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions under `and` or `or`."""

    operator: str
    """`and` or `or`."""
    operands: tuple[Node, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Negated:
    """`not` before a condition."""

    operand: Node
    depth: int


Node: TypeAlias = Alone | Compared | Contained | Alike | Null | Called | Joined | Negated


def read(text: str) -> Node:
    """Read a filter that is not blank.

    Raises:
        InvalidFilter: It is too long, too deep, or no sentence of the language.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise InvalidFilter(
            f"must be at most {MAX_BYTES:,} bytes, is {size:,}; "
            "let long lists travel as filter_params",
            1,
        )
    try:
        node: Node = _grammar().parse(text)  # type: ignore[assignment]  # the transformer's result
    except UnexpectedInput as exc:
        raise _fault(exc, text) from exc
    return node


@v_args(inline=True)
class _Nodes(Transformer[Token, Node]):
    """Makes nodes while the parser goes, so that depth costs no stack."""

    def start(self, node: Node) -> Node:
        return node

    grouped = start

    def disjunction(self, first: Node, *rest: Token | Node) -> Node:
        return _joined("or", first, *rest)

    def conjunction(self, first: Node, *rest: Token | Node) -> Node:
        return _joined("and", first, *rest)

    def negated(self, sign: Token, operand: Node) -> Node:
        return Negated(operand, _deeper(_column(sign), operand))

    def alone(self, operand: Operand) -> Node:
        return Alone(operand)

    def compared(self, *parts: Operand | Token) -> Node:
        operators = tuple(part for part in parts if isinstance(part, Token))
        operands = tuple(part for part in parts if not isinstance(part, Token))
        return Compared(operands, tuple(map(str, operators)), _column(operators[-1]))

    def contained(self, subject: Operand, values: Operand) -> Node:
        return Contained(subject, values)

    def not_contained(self, subject: Operand, _sign: Token, values: Operand) -> Node:
        return Negated(Contained(subject, values), 1)

    def alike(self, subject: Operand, pattern: Operand) -> Node:
        return Alike(subject, pattern)

    def null(self, subject: Operand) -> Node:
        return Null(subject)

    def not_null(self, subject: Operand, _sign: Token) -> Node:
        return Negated(Null(subject), 1)

    def called(self, function: Token, *parts: Operand | Token) -> Node:
        arguments = tuple(part for part in parts if not isinstance(part, Token))
        if len(arguments) < len(parts):
            raise InvalidFilter(
                f"{function}(...) can't be compared: functions are conditions of their own; "
                "of lengths only `field == []` can be said",
                _column(function),
            )
        return Called(str(function), arguments, _column(function))

    def name(self, token: Token) -> Operand:
        return Name(str(token), _column(token))

    def parameter(self, token: Token) -> Operand:
        return Parameter(token[1:-1], _column(token))

    def literal(self, token: Token) -> Operand:
        return Literal(token.type, str(token), _column(token))

    def listed(self, bracket: Token, *elements: Operand) -> Operand:
        return List(elements, _column(bracket))


@cache
def _grammar() -> Lark:
    """The parser, which holds no state between texts."""
    return Lark.open(
        "grammar.lark",
        rel_to=__file__,
        parser="lalr",
        transformer=_Nodes(),
        maybe_placeholders=False,
    )


def _joined(operator: str, *parts: Token | Node) -> Node:
    """The operands around the operators, or the only operand itself."""
    nodes = tuple(part for part in parts if not isinstance(part, Token))
    if len(nodes) == 1:
        return nodes[0]
    signs = [part for part in parts if isinstance(part, Token)]
    return Joined(operator, nodes, _deeper(_column(signs[0]), *nodes))


def _deeper(column: int, *operands: Node) -> int:
    """The depth of a node over these operands."""
    depth = 1 + max(_depth(node) for node in operands)
    if depth > MAX_NESTING:
        raise InvalidFilter(
            f"and, or and not are nested more than {MAX_NESTING} deep; "
            "write long chains without parentheses",
            column,
        )
    return depth


def _depth(node: Node) -> int:
    return node.depth if isinstance(node, Joined | Negated) else 0


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _fault(exc: UnexpectedInput, text: str) -> InvalidFilter:
    """The error of a text that is no sentence of the language."""
    if isinstance(exc, UnexpectedToken) and exc.token.type != "$END":
        return InvalidFilter(
            f"{str(exc.token)!r} is not expected here{_hint(exc)}", _column(exc.token)
        )
    if isinstance(exc, UnexpectedCharacters):
        at = exc.pos_in_stream or 0
        return InvalidFilter(_character_fault(text[at:]), at + 1)
    return InvalidFilter("the filter ends too early; a condition is not complete", len(text) + 1)


def _hint(exc: UnexpectedToken) -> str:
    """What may follow, where that is short."""
    wanted = [_WANTED[name] for name in sorted(exc.accepts or exc.expected) if name in _WANTED]
    return f"; {' or '.join(wanted)} may follow" if wanted else ""


_WANTED = {
    "AND": "`and`",
    "OR": "`or`",
    "RPAR": "`)`",
    "RSQB": "`]`",
    "OPERATOR": "a comparison",
}


def _character_fault(rest: str) -> str:
    """What is wrong with a text that begins with no word of the language."""
    if rest[0] in "\"'":
        return f"the string has no closing {rest[0]}; write \\{rest[0]} for one inside it"
    for written, meant in (("=", "=="), ("&", "and"), ("|", "or"), ("{", "{name}")):
        if rest.startswith(written):
            return f"{written!r} stands alone; write `{meant}`"
    return f"{rest[0]!r} is no part of the filter language"
