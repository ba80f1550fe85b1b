"""Mutations of conditions, positions and arguments: where each operator could act, what it changes.

Every operator, here and in `flow_mutations` and `value_mutations`, takes a function and its
module's source and proposes candidates in source order. `operators` lists them all.
"""

from __future__ import annotations

import ast
import bisect
import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from swe_scaffold.python_code import (
    Candidate,
    Edit,
    Function,
    Source,
    blocks,
    called_name,
    is_alone,
    is_elif,
    is_trivial,
    is_type_checking,
)

MAX_DROPPED_LINES = 8
MAX_ARGUMENT_BYTES = 60

_SYMBOLS: Mapping[type[ast.AST], str] = MappingProxyType(
    {
        ast.Lt: "<",
        ast.LtE: "<=",
        ast.Gt: ">",
        ast.GtE: ">=",
        ast.Eq: "==",
        ast.NotEq: "!=",
        ast.In: "in",
        ast.NotIn: "not in",
        ast.Is: "is",
        ast.IsNot: "is not",
        ast.And: "and",
        ast.Or: "or",
    }
)
_FLIPS = MappingProxyType(
    {"<": ">=", ">": "<=", "==": "!=", "in": "not in", "is": "is not", "and": "or"}
)
_OPPOSITES = MappingProxyType(dict(_FLIPS) | {new: old for old, new in _FLIPS.items()})
_EDGES = MappingProxyType({"<": "<=", "<=": "<", ">": ">=", ">=": ">"})
# Swapping is harmless in the first, and fails at the first call in the second.
_ORDER_FREE = frozenset(("max", "min", "gcd", "lcm", "hypot", "isclose", "samefile", "samestat"))
_TYPE_CHECKS = frozenset(("isinstance", "issubclass"))


def flip_comparison(function: Function, source: Source) -> list[Candidate]:
    """Turn a comparison into its opposite, swap `and` with `or`, or drop a `not`."""
    found = []
    for left, right, symbol in _operators(function):
        found += _replaced("flip_comparison", source, (left, right), symbol, _OPPOSITES)
    for node in function.nodes:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            start, end = source.span(node)[0], source.span(node.operand)[0]
            if word := source.find_word(start, end, "not"):
                blank = source.data[word[1] : end]
                stop = end - len(blank.lstrip(b" \t"))
                found.append(Candidate("flip_comparison", (Edit(word[0], stop),)))
    return found


def off_by_one(function: Function, source: Source) -> list[Candidate]:
    """Move an index, slice, range or compared integer by one, or an ordering across its edge."""
    found = []
    for left, right, symbol in _operators(function):
        found += _replaced("off_by_one", source, (left, right), symbol, _EDGES)
    for node in function.nodes:
        for literal, least in _bounds(node):
            start, end = source.span(literal)
            value = literal.value
            # Only plain decimal spelling: 0xFF, 1_000 and True are rarely counts or positions.
            if type(value) is not int or end - start > 9 or not source.data[start:end].isdigit():
                continue
            moved = [new for new in (value + 1, value - 1) if new >= least]
            found += [
                Candidate("off_by_one", (Edit(start, end, str(new).encode()),)) for new in moved
            ]
    return found


def dropped_guard(function: Function, source: Source) -> list[Candidate]:
    """Remove an `if` without `else`, an `elif` branch, or an `else` branch."""
    found = []
    for node in (function.node, *function.nodes):
        for block in () if isinstance(node, ast.expr) else blocks(node):
            for statement in block:
                if isinstance(statement, ast.If) and not is_type_checking(statement.test):
                    found += _droppable(statement, source, alone=is_alone(block))
    return [
        Candidate("dropped_guard", (Edit(*source.lines(first, last)),))
        for first, last in found
        if last - first < MAX_DROPPED_LINES
    ]


def swapped_arguments(function: Function, source: Source) -> list[Candidate]:
    """Swap two neighbouring positional arguments of a call that look alike but differ."""
    found = []
    for node in function.nodes:
        if not isinstance(node, ast.Call) or called_name(node) in _ORDER_FREE | _TYPE_CHECKS:
            continue
        for one, two in zip(node.args, node.args[1:], strict=False):
            texts = source.slice(one), source.slice(two)
            short = max(map(len, texts)) <= MAX_ARGUMENT_BYTES
            if short and _alike(one, two) and texts[0] != texts[1]:
                edits = (Edit(*source.span(one), texts[1]), Edit(*source.span(two), texts[0]))
                found.append(Candidate("swapped_arguments", edits))
    return found


def _operators(function: Function) -> Iterator[tuple[ast.expr, ast.expr, str]]:
    """Yield every pair of neighbouring operands with the operator between them."""
    for node in function.nodes:
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            symbols = [_SYMBOLS[type(op)] for op in node.ops]
            yield from zip(operands, operands[1:], symbols, strict=False)
        elif isinstance(node, ast.BoolOp):
            symbol = _SYMBOLS[type(node.op)]
            for left, right in itertools.pairwise(node.values):
                yield left, right, symbol


def _replaced(
    operator: str,
    source: Source,
    operands: tuple[ast.expr, ast.expr],
    symbol: str,
    table: Mapping[str, str],
) -> list[Candidate]:
    if symbol not in table:
        return []
    word = source.find_word(source.span(operands[0])[1], source.span(operands[1])[0], symbol)
    return [Candidate(operator, (Edit(*word, table[symbol].encode()),))] if word else []


def _bounds(node: ast.AST) -> Iterator[tuple[ast.Constant, int]]:
    """Yield integer literals that mark a position or a limit, with the least each may become."""
    for expression in _bound_expressions(node):
        match expression:
            case ast.Constant():
                yield expression, 0
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as literal):
                yield literal, 1
            case ast.BinOp(op=ast.Add() | ast.Sub(), right=ast.Constant() as literal):
                yield literal, 1


def _bound_expressions(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper)):
            return [bound for bound in (lower, upper) if bound]
        case ast.Subscript(slice=index):
            return [index]
        case ast.Call(func=ast.Name(id="range"), args=args):
            return args[:2]
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            if all(_SYMBOLS[type(op)] in _EDGES for op in ops):
                return [left, *comparators]
            if all(isinstance(op, ast.Eq | ast.NotEq) for op in ops):
                return [side for side in (left, *comparators) if not _is_code_number(side)]
    return []


def _is_code_number(side: ast.expr) -> bool:
    """Whether equality with this literal rather tests a code than counts something."""
    return isinstance(side, ast.Constant) and type(side.value) is int and side.value > 9


def _droppable(statement: ast.If, source: Source, *, alone: bool) -> list[tuple[int, int]]:
    """Return the line ranges (1-based, included) that could go, leaving valid code behind."""
    ranges = []
    body_end = statement.body[-1].end_lineno or 0
    separable = is_elif(statement, source) or not (statement.orelse or alone)
    if separable and not is_trivial(statement.body):
        ranges.append((statement.lineno, body_end))
    orelse = statement.orelse
    if orelse and not is_trivial(orelse) and not is_elif(orelse[0], source):
        start, end = source.span(statement.body[-1])[1], source.span(orelse[0])[0]
        if word := source.find_word(start, end, "else"):
            first = bisect.bisect_right(source.line_starts, word[0])
            ranges.append((first, orelse[-1].end_lineno or 0))
    return ranges


def _alike(one: ast.expr, two: ast.expr) -> bool:
    """Whether two arguments could be mistaken for each other: a literal and a name rarely are."""
    return _kind(one) == _kind(two) != "starred"


def _kind(argument: ast.expr) -> str:
    match argument:
        case ast.Starred():
            return "starred"
        case ast.JoinedStr():
            return "str"
        case ast.Constant(value=value):
            return type(value).__name__
        case _:
            return "expression"
