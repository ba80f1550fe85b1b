"""A file of code in pieces: whole functions where it is Python, else stretches of lines.

Spans are 1-based lines, both ends included. Which pieces are wanted is left to `code_context`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from swe_scaffold.diffs import Hunk
from swe_scaffold.python_code import Source, find_functions, parse

_SECTION_LINES = 40
_LINES_AROUND = 15
# A longer function is shown around the changed lines only.
_FUNCTION_LINES = 120


class Span(NamedTuple):
    """Some lines of a file."""

    first: int
    last: int


def sections(path: str, text: str) -> list[Span]:
    """Cut a file into its outermost functions and methods, and what is between them, in order."""
    total = len(text_lines(text))
    found: list[Span] = []
    position = 1
    for function in [*_functions(path, text), Span(total + 1, total + 1)]:
        for first in range(position, function.first, _SECTION_LINES):
            found.append(Span(first, min(first + _SECTION_LINES, function.first) - 1))
        found.append(function)
        position = function.last + 1
    return found[:-1]


def around_lines(path: str, text: str, lines: Iterable[int]) -> list[Span]:
    """Return the functions that hold some lines, or the lines around them, in order and merged."""
    total = len(text_lines(text))
    functions = _functions(path, text)
    wanted = set()
    for line in lines:
        near = Span(max(1, line - _LINES_AROUND), min(total, line + _LINES_AROUND))
        around = next((span for span in functions if span.first <= line <= span.last), near)
        wanted.add(near if around.last - around.first >= _FUNCTION_LINES else around)
    return _merged(sorted(wanted))


def changed_lines(hunks: Sequence[Hunk]) -> list[int]:
    """Return the lines of the old file that hunks remove, or after which they only add."""
    found: dict[int, None] = {}
    for hunk in hunks:
        line = hunk.old_start
        for text in hunk.lines:
            if text.startswith("+"):
                found[max(1, line - 1 if hunk.old_count else line)] = None
            elif text.startswith("-"):
                found[line] = None
            line += not text.startswith(("+", "\\"))
    return list(found)


def applies_exactly(hunks: Sequence[Hunk], text: str) -> bool:
    """Whether every hunk's old lines stand where it says."""
    lines = text.split("\n")
    for hunk in hunks:
        old = [line[1:] for line in hunk.lines if not line.startswith(("+", "\\"))]
        start = max(0, hunk.old_start - 1)
        if lines[start : start + len(old)] != old:
            return False
    return True


def cut(lines: Sequence[str], span: Span) -> str:
    """Return the lines of a span, of those that `text_lines` returned."""
    return "".join(lines[span.first - 1 : span.last])


def text_lines(text: str) -> list[str]:
    """Return the lines of a text with their line feeds; the last may have none."""
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines


def _functions(path: str, text: str) -> list[Span]:
    """Return the functions of a Python file that are in no other function."""
    tree = parse(text) if path.endswith((".py", ".pyi")) else None
    if tree is None:
        return []
    spans: list[Span] = []
    for place, node in find_functions(tree, Source(text)):
        first, last = place.first_line, node.end_lineno or node.lineno
        # Two on one line share a piece.
        if place.start == place.unit_start and (not spans or first > spans[-1].last):
            spans.append(Span(first, last))
    return spans


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and span.first <= merged[-1].last + 1:
            merged[-1] = Span(merged[-1].first, max(merged[-1].last, span.last))
        else:
            merged.append(span)
    return merged
