"""A Python module as bytes and syntax tree: where its functions are, and whether a change matters.

Positions of `ast` are lines and UTF-8 columns; `Source` turns them into byte offsets, so that edits
splice exact spans and everything else keeps its form. What to change is left to `operators`.
"""

from __future__ import annotations

import ast
import bisect
import dis
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import NamedTuple, TypeVar

MIN_FUNCTION_LINES = 3
MAX_FUNCTION_LINES = 60
MAX_FUNCTION_BYTES = 20_000

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Located = ast.expr | ast.stmt | ast.keyword
Leaf = ast.Name | ast.Constant
_Node = TypeVar("_Node", bound=ast.AST)

_SIMPLE = (ast.expr, ast.Expr, ast.Assign, ast.Return, ast.AugAssign, ast.Raise, ast.withitem)
# Positions inside f-strings are wrong before Python 3.12; assertions are checks, not behaviour.
_OPAQUE = frozenset(
    (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.JoinedStr, ast.Assert)
)
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_LEAVES = frozenset(
    {type(None), str, ast.Name, ast.Constant, ast.alias, ast.arg}
    | {*ast.expr_context.__subclasses__(), *ast.operator.__subclasses__()}
    | {*ast.cmpop.__subclasses__(), *ast.unaryop.__subclasses__(), *ast.boolop.__subclasses__()}
)


class Edit(NamedTuple):
    """Replace the bytes from `start` to `end` of a file."""

    start: int
    end: int
    text: bytes = b""


class Candidate(NamedTuple):
    """One possible mutation: edits in order, not overlapping."""

    operator: str
    edits: tuple[Edit, ...]


class Place(NamedTuple):
    """A function's whole lines, decorators included, as byte offsets, and the outermost one's."""

    name: str
    first_line: int
    start: int
    end: int
    unit_start: int
    unit_end: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function with the nodes of its own body, nested functions and classes left out."""

    place: Place
    node: FunctionNode
    nodes: tuple[ast.AST, ...]

    def of(self, kind: type[_Node]) -> list[_Node]:
        """Return the nodes of exactly this kind."""
        return [node for node in self.nodes if type(node) is kind]

    def leaves(self) -> Iterator[tuple[ast.AST, Leaf]]:
        """Yield the names and literals that the nodes hold, each with its node."""
        for node in self.nodes:
            for name in _fields(node):
                value = getattr(node, name, None)
                for item in value if type(value) is list else (value,):
                    if isinstance(item, Leaf):
                        yield node, item


class Source:
    """A module's bytes with the way from `ast` positions to byte offsets."""

    def __init__(self, text: str) -> None:
        self.data = text.encode("utf-8")
        self.mark = len(b"\xef\xbb\xbf") if text.startswith("\ufeff") else 0
        self.line_starts = [0]
        position = self.data.find(b"\n")
        while position >= 0:
            self.line_starts.append(position + 1)
            position = self.data.find(b"\n", position + 1)
        self.line_starts.append(len(self.data))

    def offset(self, line: int, column: int) -> int:
        """Turn a 1-based line and a byte column into a byte offset."""
        return self.line_starts[line - 1] + column + (self.mark if line == 1 else 0)

    def span(self, node: Located) -> tuple[int, int]:
        """Return a node's byte offsets."""
        start = self.offset(node.lineno, node.col_offset)
        return start, self.offset(node.end_lineno or 0, node.end_col_offset or 0)

    def slice(self, node: Located) -> bytes:
        """Return a node's exact source."""
        start, end = self.span(node)
        return self.data[start:end]

    def lines(self, first: int, last: int) -> tuple[int, int]:
        """Return the byte offsets of whole lines, both 1-based and included."""
        return self.offset(first, 0), self.line_starts[last]

    def find_word(self, start: int, end: int, symbol: str) -> tuple[int, int] | None:
        """Find an operator between two operands, where only blanks, brackets and comments are."""
        first = start
        for index, word in enumerate(symbol.encode().split()):
            start = self._skip_filler(start, end)
            if not self.data.startswith(word, start, end):
                return None
            first = first if index else start
            start += len(word)
        return first, start

    def _skip_filler(self, start: int, end: int) -> int:
        while start < end:
            if self.data[start] == ord("#"):
                start = self.data.find(b"\n", start, end) + 1 or end
            elif self.data[start] in b" \t\r\n\f\\();":
                start += 1
            else:
                break
        return start


def parse(text: str) -> ast.Module | None:
    """Parse a module; None where this Python cannot, or where lone carriage returns end lines."""
    if text.count("\r") != text.count("\r\n"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text.removeprefix("\ufeff"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def find_functions(tree: ast.Module, source: Source) -> Iterator[tuple[Place, FunctionNode]]:
    """Yield every function of a module with its place, in source order, outer before inner."""
    stack: list[tuple[ast.AST, str, tuple[int, int] | None]] = [(tree, "", None)]
    while stack:
        node, prefix, unit = stack.pop()
        if isinstance(node, FunctionNode):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            start, end = source.lines(first, node.end_lineno or node.lineno)
            unit = unit or (start, end)
            yield Place(prefix + node.name, first, start, end, *unit), node
        if isinstance(node, FunctionNode | ast.ClassDef):
            prefix = f"{prefix}{node.name}."
        inner = [child for child in _children(node) if not isinstance(child, _SIMPLE)]
        stack += [(child, prefix, unit) for child in reversed(inner)]


def function_of(place: Place, node: FunctionNode) -> Function | str:
    """Collect a function's own nodes, or say why it is left alone."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines < MIN_FUNCTION_LINES:
        return "too_short"
    if lines > MAX_FUNCTION_LINES or place.end - place.start > MAX_FUNCTION_BYTES:
        return "too_long"
    if node.name.lstrip("_").startswith("test"):
        return "test"
    return Function(place, node, tuple(_own_nodes(node)))


def splice(data: bytes, edits: Sequence[Edit], start: int = 0, end: int | None = None) -> bytes:
    """Apply edits to a file and return the part from `start` to `end`, offsets before the edits."""
    pieces, position = [], start
    for edit in edits:
        pieces += [data[position : edit.start], edit.text]
        position = edit.end
    return b"".join([*pieces, data[position:end]])


def compare_code(before: bytes, after: bytes) -> str:
    """Say why a mutant is useless: `does_not_compile`, `equal_code`, or empty when it is fine.

    Both arguments are whole lines of one statement. Compared are the instructions left after
    constant folding, without assertions, line numbers and code that the compiler proves dead.
    """
    try:
        facts = [_instructions(_compile(part)) for part in (before, after)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "does_not_compile"
    return "equal_code" if facts[0] == facts[1] else ""


def _compile(lines: bytes) -> CodeType:
    # An indented statement becomes the body of a block instead of being moved to the margin.
    text = (b"if 1:\n" if lines[:1] in b" \t" else b"") + lines
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(text.decode("utf-8"), "", "exec", dont_inherit=True, optimize=1)


def _instructions(code: CodeType) -> list[object]:
    """List a code object's instructions with their arguments resolved and targets counted.

    A NOP stays where a branch was proven dead, for tracers only; it and its width are left out.
    """
    kept = [i for i in dis.get_instructions(code) if i.opname not in ("NOP", "EXTENDED_ARG")]
    offsets = [instruction.offset for instruction in kept]
    facts: list[object] = [code.co_name, code.co_flags, code.co_varnames]
    for instruction in kept:
        value = instruction.argval
        if isinstance(value, CodeType):
            facts += [instruction.opname, _instructions(value)]
        elif instruction.opcode in _JUMPS:
            facts += [instruction.opname, bisect.bisect_left(offsets, value)]
        else:
            facts += [instruction.opname, repr(value)]
    return facts


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield a node's lists of statements, except one that only type checkers see."""
    hidden = isinstance(node, ast.If) and is_type_checking(node.test)
    for name in ("orelse",) if hidden else ("body", "orelse", "finalbody"):
        value = getattr(node, name, None)
        if isinstance(value, list):
            yield value


def is_type_checking(test: ast.expr) -> bool:
    """Whether a condition holds for type checkers only, so that its branch never runs."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return bool(name == "TYPE_CHECKING")


def is_elif(statement: ast.stmt, source: Source) -> bool:
    """Whether an `if` is spelt `elif`."""
    return source.data.startswith(b"elif", source.span(statement)[0])


def is_trivial(block: Sequence[ast.stmt]) -> bool:
    """Whether statements do nothing: `pass`, docstrings, an ellipsis."""
    return all(
        isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        for s in block
    )


def is_alone(block: Sequence[ast.stmt]) -> bool:
    """Whether only one statement of a block does anything."""
    return sum(not is_trivial([statement]) for statement in block) == 1


def called_name(call: ast.Call) -> str:
    """Return the last part of what is called, empty where it has no name."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _own_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    stack: list[ast.AST] = [*reversed(function.body)]
    while stack:
        node = stack.pop()
        if type(node) not in _OPAQUE:
            yield node
            stack += reversed(_children(node))


def _children(node: ast.AST) -> list[ast.AST]:
    """List what is inside a node, in source order, without names, literals and operators."""
    if isinstance(node, ast.If) and is_type_checking(node.test):
        return [*node.orelse]
    children: list[ast.AST] = []
    for name in _fields(node):
        value = getattr(node, name, None)
        if type(value) is list:
            children += [item for item in value if type(item) not in _LEAVES]
        elif isinstance(value, ast.AST) and type(value) not in _LEAVES:
            children.append(value)
    return children


def _fields(node: ast.AST) -> tuple[str, ...]:
    """Name a node's parts, except annotations."""
    return ("target", "value") if isinstance(node, ast.AnnAssign) else node._fields
