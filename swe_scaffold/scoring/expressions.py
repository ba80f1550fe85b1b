"""Filters over the fields of scored predictions: a small language, read and never run as code.

Names of fields, numbers, texts, True, False, `and`, `or`, `not`, comparisons (also `in` a text) and
`+ - * /` of numbers, in Python's spelling. What is null makes any comparison false and any sum
null, and counts as false; so does a division by zero.
"""

from __future__ import annotations

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from swe_scaffold.errors import UsageError
from swe_scaffold.terminal import show

MAX_CHARS, MAX_DEPTH = 1000, 40

_WHERE = "--keep"
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda part, whole: part in whole,
    ast.NotIn: lambda part, whole: part not in whole,
}
_COMPUTE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_CONSTANTS = (bool, int, float, str)


class Filter:
    """An expression that rows can be asked.

    Args:
        text: As the user wrote it.
        fields: The names it may use.

    Raises:
        UsageError: It is no expression of this language, or names no field.
    """

    def __init__(self, text: str, fields: Collection[str]) -> None:
        self.text = text
        self._root = _parse(text)
        _check(self._root, fields, 0)

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Say whether a row passes.

        Raises:
            UsageError: Values are compared or summed that cannot be.
        """
        return bool(_value(self._root, row))


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_CHARS:
        raise UsageError(f"is longer than {MAX_CHARS} characters", where=_WHERE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            said = error.msg if isinstance(error, SyntaxError) else "cannot be read"
            raise UsageError(
                f"not an expression: {show(said, width=80)}",
                where=_WHERE,
                hint="for example: applies and file_recall == 1 and not touches_tests",
            ) from None


def _check(node: ast.expr, fields: Collection[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UsageError(f"is nested deeper than {MAX_DEPTH}", where=_WHERE)
    for part in _parts(node, fields):
        _check(part, fields, depth + 1)


def _parts(node: ast.expr, fields: Collection[str]) -> list[ast.expr]:
    """Return the expressions inside one that is allowed."""
    match node:
        case ast.Name(id=name) if name in fields:
            return []
        case ast.Name(id=name):
            near = difflib.get_close_matches(name, sorted(fields), n=1)
            hint = f"did you mean {near[0]}?" if near else f"fields: {', '.join(sorted(fields))}"
            raise UsageError(f"there is no field {show(name, width=40)}", where=_WHERE, hint=hint)
        case ast.Constant(value=value) if isinstance(value, _CONSTANTS):
            return []
        case ast.BoolOp(values=values):
            return values
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return [operand]
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _COMPUTE:
            return [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others) if {*map(type, ops)} <= {
            *_COMPARE
        }:
            return [left, *others]
    raise UsageError(
        f"{show(ast.unparse(node), width=40)} is not allowed",
        where=_WHERE,
        hint="fields, numbers, texts, and, or, not, comparisons and + - * /",
    )


def _value(node: ast.expr, row: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return row[name]
        case ast.Constant(value=value):
            return value
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(part, row) for part in values)
        case ast.BoolOp(values=values):
            return any(_value(part, row) for part in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, row)
        case ast.UnaryOp(operand=operand):
            return _computed(operator.sub, 0, _value(operand, row), node)
        case ast.BinOp(op=op, left=left, right=right):
            return _computed(_COMPUTE[type(op)], _value(left, row), _value(right, row), node)
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_value(part, row) for part in (left, *others)]
            pairs = zip(ops, values, values[1:], strict=False)
            return all(_compared(_COMPARE[type(op)], a, b, node) for op, a, b in pairs)
    raise AssertionError(node)


def _compared(compare: Callable[[Any, Any], bool], a: Any, b: Any, node: ast.expr) -> bool:
    if a is None or b is None:
        return False
    try:
        return compare(a, b)
    except TypeError:
        raise _unfit(node, a, b) from None


def _computed(compute: Callable[[Any, Any], Any], a: Any, b: Any, node: ast.expr) -> Any:
    if a is None or b is None:
        return None
    if isinstance(a, str) or isinstance(b, str):
        raise _unfit(node, a, b)
    try:
        return compute(a, b)
    except (ZeroDivisionError, OverflowError):
        return None


def _unfit(node: ast.expr, a: Any, b: Any) -> UsageError:
    kinds = " and ".join("a text" if isinstance(value, str) else "a number" for value in (a, b))
    return UsageError(
        f"{show(ast.unparse(node), width=60)}: {kinds} do not go together", where=_WHERE
    )
