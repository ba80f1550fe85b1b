"""Mutations of what runs at all: statements, branches, loops, errors, clauses of a condition.

As in `mutations`, every operator proposes candidates in source order. A statement that goes leaves
its lines, or `pass` where its block would be empty.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
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
)
from swe_scaffold.synthesis.mutations import MAX_DROPPED_LINES

_BLANKS = b" \t"
# How far around an argument its comma is looked for.
_WINDOW = 500
# Nobody tests what these say, so that leaving them out is no bug anyone could find.
_TALK = frozenset(
    (
        *("print", "debug", "info", "warning", "warn", "error", "exception", "critical", "log"),
        *("trace", "simplefilter", "filterwarnings", "collect", "flush", "sleep"),
    )
)
_RAISED = MappingProxyType(
    {
        **{"ValueError": "TypeError", "TypeError": "ValueError", "KeyError": "IndexError"},
        **{"IndexError": "KeyError", "AttributeError": "TypeError", "OSError": "RuntimeError"},
        **{"RuntimeError": "ValueError", "NotImplementedError": "TypeError"},
        **{"FileNotFoundError": "PermissionError", "PermissionError": "FileNotFoundError"},
    }
)
_CAUGHT = MappingProxyType(
    {
        **{"ValueError": "TypeError", "TypeError": "ValueError", "KeyError": "IndexError"},
        **{"IndexError": "KeyError", "AttributeError": "TypeError", "OSError": "ValueError"},
        **{"Exception": "ValueError", "ImportError": "AttributeError", "LookupError": "KeyError"},
        **{"UnicodeDecodeError": "UnicodeEncodeError", "FileNotFoundError": "PermissionError"},
    }
)


def exchanged_branches(function: Function, source: Source) -> list[Candidate]:
    """Exchange the two branches of an `if` with a plain `else`, or of a conditional expression."""
    found = []
    for node in function.nodes:
        if isinstance(node, ast.IfExp):
            found.append(_exchanged(source, source.span(node.body), source.span(node.orelse)))
        elif isinstance(node, ast.If) and _are_exchangeable(node, source):
            extents = _extent(node.body, source), _extent(node.orelse, source)
            found.append(_exchanged(source, *extents))
    return [Candidate("exchanged_branches", edits) for edits in found if edits]


def dropped_return(function: Function, source: Source) -> list[Candidate]:
    """Forget to hand a result back, or go on where the function should have ended."""
    found = []
    for node in function.of(ast.Return):
        start, end = source.span(node)
        if node.value is None:
            found.append(Edit(start, end, b"pass"))
        elif isinstance(node.value, ast.Call | ast.Await):
            blank = source.data[start + len(b"return") : end]
            found.append(Edit(start, end - len(blank.lstrip(_BLANKS))))
        elif not isinstance(node.value, ast.Constant) or node.value.value:
            found.append(Edit(start, end, b"return None"))
    return [Candidate("dropped_return", (edit,)) for edit in found]


def changed_exception(function: Function, source: Source) -> list[Candidate]:
    """Raise or catch a neighbouring exception, or catch one fewer."""
    found = []
    for node in function.nodes:
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id in _RAISED:
                found.append(Edit(*source.span(raised), _RAISED[raised.id].encode()))
        elif isinstance(node, ast.ExceptHandler):
            match node.type:
                case ast.Name(id=name) as caught if name in _CAUGHT:
                    found.append(Edit(*source.span(caught), _CAUGHT[name].encode()))
                case ast.Tuple(elts=[first, _]) as caught:
                    found.append(Edit(*source.span(caught), source.slice(first)))
    return [Candidate("changed_exception", (edit,)) for edit in found]


def swallowed_error(function: Function, source: Source) -> list[Candidate]:
    """Let a handler do nothing."""
    found = []
    for node in function.of(ast.ExceptHandler):
        if not is_trivial(node.body) and _is_short(node.body) and not _defines(node.body):
            edit = Edit(*_extent(node.body, source), b"pass")
            found.append(Candidate("swallowed_error", (edit,)))
    return found


def changed_loop(function: Function, source: Source) -> list[Candidate]:
    """Exchange `break` and `continue`, or let a loop start or stop elsewhere."""
    found = []
    for node in function.nodes:
        match node:
            case ast.Break():
                found.append(Edit(*source.span(node), b"continue"))
            case ast.Continue():
                found.append(Edit(*source.span(node), b"break"))
            case ast.Call(func=ast.Name(id="range"), args=[only], keywords=[]):
                found += _inserted(source, source.span(node.func)[1], b"(", b"1, ")
                found += _one_less(source, only)
            case ast.Call(func=ast.Name(id="range"), args=[_, stop], keywords=[]):
                found += _one_less(source, stop)
            case ast.Call(func=ast.Name(id="enumerate"), args=[_], keywords=[]):
                end = source.span(node)[1]
                bare = not isinstance(node.args[0], ast.GeneratorExp)
                if bare and source.data[source.span(node.args[0])[1] : end] == b")":
                    found.append(Edit(end - 1, end - 1, b", 1"))
            case ast.Call(func=ast.Name(id="enumerate"), args=[_, begin], keywords=[]):
                found += _without_item(source, source.span(begin))
            case ast.Call(func=ast.Name(id="enumerate"), args=[_], keywords=[begin]):
                found += _without_item(source, source.span(begin))
    return [Candidate("changed_loop", (edit,)) for edit in found]


def dropped_await(function: Function, source: Source) -> list[Candidate]:
    """Use a coroutine instead of its result."""
    found = []
    for node in function.of(ast.Await):
        start, end = source.span(node)
        rest = source.data[start + len(b"await") : end]
        found.append(Candidate("dropped_await", (Edit(start, end - len(rest.lstrip(_BLANKS))),)))
    return found


def dropped_update(function: Function, source: Source) -> list[Candidate]:
    """Forget an update (`total += 1`, `self.seen = ...`), or store it in a local name instead."""
    found = []
    for statement, alone in _statements(function):
        match statement:
            case ast.AugAssign():
                found += _without(statement, source, alone=alone)
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self")) as target]):
                found += _without(statement, source, alone=alone)
                start = source.span(target)[0]
                prefix = b"self."
                if source.data.startswith(prefix, start):
                    found.append(Edit(start, start + len(prefix)))
    return [Candidate("dropped_update", (edit,)) for edit in found]


def dropped_call(function: Function, source: Source) -> list[Candidate]:
    """Leave out a call made for its effect."""
    found = []
    for statement, alone in _statements(function):
        value = statement.value if isinstance(statement, ast.Expr) else None
        call = value.value if isinstance(value, ast.Await) else value
        if isinstance(call, ast.Call) and called_name(call) not in _TALK:
            found += _without(statement, source, alone=alone)
    return [Candidate("dropped_call", (edit,)) for edit in found]


def dropped_keyword(function: Function, source: Source) -> list[Candidate]:
    """Forget a keyword argument."""
    found = []
    for call in function.of(ast.Call):
        if called_name(call) in _TALK:
            continue
        for keyword in call.keywords:
            if keyword.arg is not None:
                found += _without_item(source, source.span(keyword))
    return [Candidate("dropped_keyword", (edit,)) for edit in found]


def dropped_condition(function: Function, source: Source) -> list[Candidate]:
    """Forget one clause of a condition, or the filter of a comprehension."""
    found: list[Edit] = []
    for node in function.nodes:
        if isinstance(node, ast.BoolOp):
            found += _without_clauses(node, source)
        elif isinstance(node, ast.comprehension) and len(node.ifs) == 1:
            start, end = source.span(node.ifs[0])
            word = source.find_word(source.span(node.iter)[1], start, "if")
            if word and not source.data[word[1] : start].strip():
                found.append(Edit(word[0], end))
    return [Candidate("dropped_condition", (edit,)) for edit in found]


def _statements(function: Function) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every statement with whether its block would be empty without it."""
    for node in (function.node, *function.nodes):
        for block in () if isinstance(node, ast.expr) else blocks(node):
            alone = is_alone(block)
            yield from ((statement, alone) for statement in block)


def _without(statement: ast.stmt, source: Source, *, alone: bool) -> list[Edit]:
    """Drop a statement with its lines, or put `pass` where lines hold more or nothing is left."""
    if not _is_short([statement]):
        return []
    start, end = source.span(statement)
    first, last = source.lines(statement.lineno, statement.end_lineno or statement.lineno)
    before, after = source.data[first:start].strip(), source.data[end:last].strip()
    if alone or before or (after and not after.startswith(b"#")):
        return [Edit(start, end, b"pass")]
    return [Edit(first, last)]


def _without_item(source: Source, span: tuple[int, int]) -> list[Edit]:
    """Drop an argument with the comma before it, or after it where it is the first."""
    start, end = span
    before = source.data[max(0, start - _WINDOW) : start]
    blank = len(before) - len(before.rstrip())
    if before.rstrip().endswith(b","):
        return [Edit(start - blank - 1, end)]
    if not before.rstrip().endswith(b"("):
        return []
    after = source.data[end : end + _WINDOW].lstrip()
    if not after.startswith(b","):
        return [Edit(start, end)] if after.startswith(b")") else []
    stop = source.data.index(b",", end) + 1
    spaces = source.data[stop : stop + _WINDOW]
    return [Edit(start, stop + len(spaces) - len(spaces.lstrip(_BLANKS)))]


def _without_clauses(node: ast.BoolOp, source: Source) -> Iterator[Edit]:
    """Yield the edits that drop one operand each; brackets around operands stay paired."""
    symbol = "and" if isinstance(node.op, ast.And) else "or"
    spans = [source.span(value) for value in node.values]
    pairs = itertools.pairwise(spans)
    words = [source.find_word(left[1], right[0], symbol) for left, right in pairs]
    start, end = source.span(node)
    found = [word for word in words if word]
    if len(found) < len(words):
        return
    rest = source.data[found[0][1] : end]
    yield Edit(start, end - len(rest.lstrip()))
    for word, following in itertools.pairwise(found):
        yield Edit(word[0], following[0])
    before = source.data[spans[-2][1] : found[-1][0]]
    yield Edit(found[-1][0] - len(before) + len(before.rstrip()), end)


def _are_exchangeable(node: ast.If, source: Source) -> bool:
    """Whether both branches are short blocks of whole lines that may stand for each other."""
    if not node.orelse or is_elif(node.orelse[0], source):
        return False
    one, two = node.body[0], node.orelse[0]
    both = [*node.body, *node.orelse]
    return (
        one.col_offset == two.col_offset
        and one.lineno > node.test.lineno
        and not source.data[source.lines(two.lineno, two.lineno)[0] : source.span(two)[0]].strip()
        and _is_short(node.body)
        and _is_short(node.orelse)
        and not _defines(both)
    )


def _exchanged(
    source: Source, one: tuple[int, int], two: tuple[int, int]
) -> tuple[Edit, ...] | None:
    first, second = sorted((one, two))
    texts = source.data[slice(*first)], source.data[slice(*second)]
    return None if texts[0] == texts[1] else (Edit(*first, texts[1]), Edit(*second, texts[0]))


def _extent(block: Sequence[ast.stmt], source: Source) -> tuple[int, int]:
    return source.span(block[0])[0], source.span(block[-1])[1]


def _is_short(block: Sequence[ast.stmt]) -> bool:
    return (block[-1].end_lineno or 0) - block[0].lineno < MAX_DROPPED_LINES


def _defines(block: Sequence[ast.stmt]) -> bool:
    """Whether a block begins with a definition, whose decorators stand before its position."""
    return any(isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for s in block)


def _inserted(source: Source, position: int, after: bytes, text: bytes) -> list[Edit]:
    if not source.data.startswith(after, position):
        return []
    return [Edit(position + len(after), position + len(after), text)]


def _one_less(source: Source, stop: ast.expr) -> list[Edit]:
    tight = (ast.Name, ast.Attribute, ast.Call, ast.Subscript)
    end = source.span(stop)[1]
    return [Edit(end, end, b" - 1")] if isinstance(stop, tight) else []
