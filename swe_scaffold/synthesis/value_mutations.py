"""Mutations of what an expression computes: arithmetic, literals, names, slices, what is called.

As in `mutations`, every operator proposes candidates in source order; only what looks like a slip
of a person is proposed (no minus between texts, no name that is not yet bound).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from swe_scaffold.python_code import Candidate, Edit, Function, Source, called_name

_SYMBOLS: Mapping[type[ast.operator], str] = MappingProxyType(
    {
        ast.Add: "+",
        ast.Sub: "-",
        ast.Mult: "*",
        ast.Div: "/",
        ast.FloorDiv: "//",
        ast.Mod: "%",
        ast.LShift: "<<",
        ast.RShift: ">>",
        ast.BitAnd: "&",
        ast.BitOr: "|",
    }
)
_SLIPS = MappingProxyType(
    {
        **{"+": "-", "-": "+", "*": "+", "/": "//", "//": "/", "%": "//"},
        **{"<<": ">>", ">>": "<<", "&": "|", "|": "&"},
    }
)
_ARITHMETIC = (ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow)
_TEXTS = MappingProxyType({"": " ", " ": "", ",": ";", ";": ",", ":": "=", ".": ",", "-": "_"})
_INTEGER = re.compile(rb"[0-9]{1,9}")
_DECIMAL = re.compile(rb"([0-9]{1,9})\.([0-9]{1,9})")
_TWINS = MappingProxyType(
    {
        **{"startswith": "endswith", "endswith": "startswith", "find": "rfind", "rfind": "find"},
        **{"partition": "rpartition", "rpartition": "partition", "strip": "rstrip"},
        **{"lstrip": "rstrip", "rstrip": "lstrip", "lower": "upper", "upper": "lower"},
        **{"append": "extend", "extend": "append", "add": "discard", "appendleft": "append"},
        **{"popleft": "pop", "keys": "values", "floor": "ceil", "ceil": "floor"},
        **{"removeprefix": "removesuffix", "removesuffix": "removeprefix"},
        **{"min": "max", "max": "min", "any": "all", "all": "any"},
    }
)
_BUILTIN_TWINS = frozenset(("min", "max", "any", "all"))
_CONVERSIONS = frozenset(
    (
        *("int", "float", "str", "bytes", "bool", "list", "tuple", "set", "frozenset", "dict"),
        *("sorted", "reversed", "abs", "round"),
    )
)
_CLEANERS = frozenset(("copy", "strip", "rstrip", "lstrip", "lower", "upper", "casefold"))
# Their text can stand wherever a call stood.
_TIGHT = (
    *(ast.Name, ast.Constant, ast.Attribute, ast.Subscript, ast.Call, ast.List, ast.Tuple),
    *(ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)


def changed_arithmetic(function: Function, source: Source) -> list[Candidate]:
    """Exchange an arithmetic or bit operator for one it is mistaken for, or drop a minus sign."""
    found = []
    for node in function.nodes:
        edit = None
        if isinstance(node, ast.BinOp) and _computes(node.op, (node.left, node.right), node):
            edit = _exchanged(source, node.op, node.left, node.right)
        elif isinstance(node, ast.AugAssign) and _computes(node.op, (node.value,), node):
            edit = _exchanged(source, node.op, node.target, node.value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            start = source.span(node)[0]
            edit = None if isinstance(node.operand, ast.Constant) else Edit(start, start + 1)
        if edit:
            found.append(Candidate("changed_arithmetic", (edit,)))
    return found


def changed_constant(function: Function, source: Source) -> list[Candidate]:
    """Turn a truth value round, mistype a number, or exchange a separator.

    Positions, limits and compared numbers are left to `off_by_one`.
    """
    found = []
    for node, leaf in function.leaves():
        if isinstance(leaf, ast.Constant) and not isinstance(
            node, ast.Expr | ast.Subscript | ast.Slice | ast.Compare | ast.UnaryOp
        ):
            text = _mistyped(leaf, source)
            if text is not None:
                found.append(Candidate("changed_constant", (Edit(*source.span(leaf), text),)))
    return found


def changed_default(function: Function, source: Source) -> list[Candidate]:
    """Change the default of a parameter: a truth value, a number, a text, or None."""
    arguments = function.node.args
    found = []
    for default in (*arguments.defaults, *arguments.kw_defaults):
        if not isinstance(default, ast.Constant):
            continue
        text = _mistyped(default, source)
        if default.value is None:
            text = b'""'
        elif isinstance(default.value, str) and default.value:
            text = b"None"
        if text is not None:
            found.append(Candidate("changed_default", (Edit(*source.span(default), text),)))
    return found


def wrong_variable(function: Function, source: Source) -> list[Candidate]:
    """Use another variable that the function has bound before, the one bound next to it."""
    bound = _bound(function)
    called = {id(call.func) for call in function.of(ast.Call)}
    found = []
    for _, leaf in function.leaves():
        if not isinstance(leaf, ast.Name) or not isinstance(leaf.ctx, ast.Load):
            continue
        if leaf.id not in bound or id(leaf) in called:
            continue
        known = [name for name, line in bound.items() if line < leaf.lineno or name == leaf.id]
        if len(known) > 1:
            other = known[(known.index(leaf.id) + 1) % len(known)]
            edit = Edit(*source.span(leaf), other.encode())
            found.append(Candidate("wrong_variable", (edit,)))
    return found


def wrong_attribute(function: Function, source: Source) -> list[Candidate]:
    """Read another attribute of the same object, one that the function reads too."""
    called = {id(call.func) for call in function.of(ast.Call)}
    read = [
        node
        for node in function.of(ast.Attribute)
        if isinstance(node.value, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and id(node) not in called
    ]
    names: dict[str, list[str]] = {}
    for node in read:
        known = names.setdefault(_owner(node), [])
        known += [] if node.attr in known else [node.attr]
    found = []
    for node in read:
        known = names[_owner(node)]
        if len(known) > 1:
            other = known[(known.index(node.attr) + 1) % len(known)]
            found += _renamed("wrong_attribute", node, source, other)
    return found


def wrong_slice(function: Function, source: Source) -> list[Candidate]:
    """Take the other side of a slice, walk it forwards, or take the other end of a sequence."""
    found = []
    for node in function.of(ast.Subscript):
        match node.slice:
            case ast.Slice(lower=None, upper=ast.expr(), step=None) as part:
                rest = source.slice(part)[1:].strip()
                found.append(Edit(*source.span(part), rest + b":"))
            case ast.Slice(lower=ast.expr(), upper=None, step=None) as part:
                text = source.slice(part)
                if text.endswith(b":") and not text.endswith(b"::"):
                    found.append(Edit(*source.span(part), b":" + text[:-1].strip()))
            case ast.Slice(step=ast.UnaryOp(op=ast.USub()) as step):
                start = source.span(step)[0]
                found.append(Edit(start, start + 1))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1)) as last:
                found.append(Edit(*source.span(last), b"0"))
            case ast.Constant(value=0) as first if type(first.value) is int:
                found.append(Edit(*source.span(first), b"-1"))
    return [Candidate("wrong_slice", (edit,)) for edit in found]


def wrong_function(function: Function, source: Source) -> list[Candidate]:
    """Call the twin of a well-known function: `min` for `max`, `startswith` for `endswith`."""
    found = []
    for call in function.of(ast.Call):
        twin = _TWINS.get(called_name(call))
        if twin is None:
            continue
        if isinstance(call.func, ast.Attribute):
            found += _renamed("wrong_function", call.func, source, twin)
        elif isinstance(call.func, ast.Name) and call.func.id in _BUILTIN_TWINS:
            edit = Edit(*source.span(call.func), twin.encode())
            found.append(Candidate("wrong_function", (edit,)))
    return found


def dropped_conversion(function: Function, source: Source) -> list[Candidate]:
    """Use a value as it came: without `int(...)`, `sorted(...)`, `.strip()` or `.copy()`."""
    found = []
    own = {id(node.value): node.targets for node in function.of(ast.Assign)}
    for call in function.of(ast.Call):
        match call:
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                kept = name in _CONVERSIONS and not isinstance(argument, ast.Starred)
                # `value = value` would show where something is missing.
                if kept and not _is_same_name(own.get(id(call), []), argument):
                    text = source.slice(argument)
                    text = text if isinstance(argument, _TIGHT) else b"(" + text + b")"
                    found.append(Edit(*source.span(call), text))
            case ast.Call(func=ast.Attribute(attr=name, value=value), args=[], keywords=[]):
                start, end = source.span(value)[1], source.span(call)[1]
                # Where the value stands in brackets, its own end lies before them.
                if name in _CLEANERS and source.data[start:end].lstrip().startswith(b"."):
                    found.append(Edit(start, end))
    return [Candidate("dropped_conversion", (edit,)) for edit in found]


def _is_same_name(targets: Sequence[ast.expr], value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and any(
        isinstance(target, ast.Name) and target.id == value.id for target in targets
    )


def _computes(op: ast.operator, operands: tuple[ast.expr, ...], node: ast.AST) -> bool:
    """Whether an operator works on numbers as far as the syntax tells, not on texts or lists."""
    if type(op) not in _SYMBOLS or any(map(_is_text, operands)):
        return False
    if isinstance(op, ast.Mod):
        return any(map(_is_number, operands))
    if not isinstance(op, ast.Add):
        return True
    if isinstance(node, ast.AugAssign):
        return _is_number(node.value) or isinstance(node.target, ast.Name)
    return any(map(_is_number, operands))


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, int | float)
    containers = ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.ListComp
    return isinstance(node, containers) or (isinstance(node, ast.BinOp) and _is_text(node.right))


def _is_number(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() | float()):
            return True
        case ast.Call(func=ast.Name(id="len" | "int" | "abs" | "round" | "ord" | "sum" | "float")):
            return True
        case ast.UnaryOp(op=ast.USub()):
            return True
        case ast.BinOp(op=op):
            return isinstance(op, _ARITHMETIC) or _is_number(node.right)
    return False


def _exchanged(source: Source, op: ast.operator, left: ast.expr, right: ast.expr) -> Edit | None:
    symbol = _SYMBOLS[type(op)]
    word = source.find_word(source.span(left)[1], source.span(right)[0], symbol)
    return Edit(*word, _SLIPS[symbol].encode()) if word else None


def _mistyped(literal: ast.Constant, source: Source) -> bytes | None:
    """Return another spelling of a literal, or None where a slip is unlikely."""
    text = source.slice(literal)
    if isinstance(literal.value, bool):
        return str(not literal.value).encode()
    if isinstance(literal.value, str):
        other = _TEXTS.get(literal.value)
        quoted = other is not None and text[1:-1].decode("utf-8", "replace") == literal.value
        return text[:1] + (other or "").encode() + text[-1:] if quoted else None
    if _INTEGER.fullmatch(text):
        return _mistyped_integer(text)
    if decimal := _DECIMAL.fullmatch(text):
        whole, part = decimal.groups()
        return b"0." + whole + part if whole.strip(b"0") else whole + b".0" + part
    return None


def _mistyped_integer(text: bytes) -> bytes:
    if len(text) == 1:
        return str(1 - int(text) if int(text) < 2 else int(text) + 1).encode()
    if text.endswith(b"0"):
        return text[:-1]
    swapped = text[:-2] + text[-1:] + text[-2:-1]
    return swapped if swapped != text and text[:1] != b"0" else str(int(text) + 1).encode()


def _bound(function: Function) -> dict[str, int]:
    """Return the names a function binds, in order, with the line from which each is known."""
    arguments = function.node.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    bound = {one.arg: 0 for one in every if one.arg not in ("self", "cls", "_")}
    inner = {
        id(name)
        for part in function.of(ast.comprehension)
        for name in ast.walk(part.target)
        if isinstance(name, ast.Name)
    }
    for name in _stores(function):
        if name.id != "_" and id(name) not in inner:
            bound.setdefault(name.id, name.lineno)
    return bound


def _stores(function: Function) -> Iterator[ast.Name]:
    for _, leaf in function.leaves():
        if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store):
            yield leaf


def _owner(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""


def _renamed(operator: str, node: ast.Attribute, source: Source, name: str) -> list[Candidate]:
    end = source.span(node)[1]
    start = end - len(node.attr.encode())
    # Python normalises names; one spelt differently is left alone.
    if source.data[start:end] != node.attr.encode():
        return []
    return [Candidate(operator, (Edit(start, end, name.encode()),))]
