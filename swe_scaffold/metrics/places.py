"""Where patches change things: files, hunks and functions of the tree before the change.

Hunks do not depend on how a patch was written: they are the runs of changed lines, each widened by
three lines and joined where they meet, as `git diff` would print them. Functions are found in the
text of Python files; of other languages git's headings stand for them. What follows from places is
`localisation`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from swe_scaffold.changed_paths import language_of
from swe_scaffold.diffs import CONTEXT_LINES, DEV_NULL, FilePatch, Hunk
from swe_scaffold.python_code import Source, find_functions, parse

Function = tuple[str, str]


class Lines(NamedTuple):
    """Lines of a file, 1-based, both ends included."""

    path: str
    first: int
    last: int


class Run(NamedTuple):
    """Neighbouring changed lines, without their prefix.

    `removed` begin at line `first` of the old file; where nothing is removed, `added` come before
    that line.
    """

    first: int
    removed: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """What a patch changes, or what somebody looked at.

    Attributes:
        files: Paths; a renamed file has two.
        lines: Line ranges of the files before the change: the hunks of a patch.
        functions: (path, qualified name); None where they are not known.
        functions_by: How: `syntax`, `headings`, `syntax and headings`; or why they are not known:
            `no_text`, `no_syntax`, `no_headings`; empty where no code is changed.
    """

    files: frozenset[str]
    lines: tuple[Lines, ...] = ()
    functions: frozenset[Function] | None = None
    functions_by: str = ""


def places_of(
    predicted: Sequence[FilePatch], gold: Sequence[FilePatch], texts: Mapping[str, str]
) -> tuple[Places, Places]:
    """Return the places of two patches to one tree, functions found the same way in both.

    Functions of a Python file are the innermost `def`s around changed lines, decorators included,
    in its text before the change. Without that text nothing is known: what git writes after `@@`
    depends on its settings, and two patches of one change often differ there. For other languages
    that heading stands for the function, where both patches have headings. A new file has no
    functions yet, and what is no code has none.

    Args:
        predicted: A patch, parsed.
        gold: The other one.
        texts: What is known of the files before the change, by path.
    """
    sides = (predicted, gold)
    paths = sorted({file.old_path for side in sides for file in side if _has_functions(file)})
    python = [path for path in paths if _is_python(path)]
    codes = {path: code for path in python if (code := _code(texts.get(path))) is not None}
    ways = ["syntax"] * bool(python) + ["headings"] * (len(paths) > len(python))
    problem = ""
    if len(codes) < len(python):
        problem = "no_syntax" if all(path in texts for path in python) else "no_text"
    elif not all(map(_has_headings, sides)):
        problem = "no_headings"
    known = [None if problem else _functions(side, codes) for side in sides]
    by = problem or " and ".join(ways)
    return _places(predicted, known[0], by), _places(gold, known[1], by)


def paths_of(patch: Iterable[FilePatch]) -> tuple[str, ...]:
    """Return the paths of a patch, each once, in order; a rename or copy has both names."""
    names = (name for file in patch for name in (file.old_path, file.new_path))
    return tuple(dict.fromkeys(name for name in names if name != DEV_NULL))


def runs(hunks: Iterable[Hunk]) -> Iterator[Run]:
    """Yield the runs of changed lines of a file's hunks, in order."""
    for hunk in hunks:
        # An empty range names the line before it.
        line = hunk.old_start if hunk.old_count else hunk.old_start + 1
        removed: list[str] = []
        added: list[str] = []
        for text in hunk.lines:
            if text.startswith("-"):
                removed.append(text[1:])
            elif text.startswith("+"):
                added.append(text[1:])
            elif not text.startswith("\\"):
                if removed or added:
                    yield Run(line, tuple(removed), tuple(added))
                line += len(removed) + 1
                removed, added = [], []
        if removed or added:
            yield Run(line, tuple(removed), tuple(added))


def changed_ranges(file: FilePatch) -> list[Lines]:
    """Return the hunks of a file as `git diff` would print them, as lines before the change."""
    path = file.new_path if file.old_path == DEV_NULL else file.old_path
    joined: list[Lines] = []
    for run in sorted(runs(file.hunks)):
        first = max(1, run.first - CONTEXT_LINES)
        last = run.first + len(run.removed) - 1 + CONTEXT_LINES
        if joined and first <= joined[-1].last + 1:
            first = joined[-1].first
            last = max(last, joined.pop().last)
        joined.append(Lines(path, first, last))
    return joined


def changed_lines(file: FilePatch) -> list[Lines]:
    """Return the lines that a change removes, and the neighbours of those that it only adds.

    All of them exist in the file before the change.
    """
    found = []
    for hunk in file.hunks:
        end = hunk.old_start + hunk.old_count - 1
        for run in runs([hunk]):
            last = run.first + len(run.removed) - 1
            first = run.first
            if not run.removed:
                first, last = max(hunk.old_start, first - 1), min(end, first)
            if first <= last:
                found.append(Lines(file.old_path, first, last))
    return found


def _places(patch: Sequence[FilePatch], functions: frozenset[Function] | None, by: str) -> Places:
    ranges = [lines for file in patch for lines in changed_ranges(file)]
    return Places(frozenset(paths_of(patch)), tuple(ranges), functions, by)


def _has_functions(file: FilePatch) -> bool:
    return file.old_path != DEV_NULL and bool(file.hunks) and language_of(file.old_path) != ""


class _Span(NamedTuple):
    first: int
    last: int
    column: int
    name: str


class _Code(NamedTuple):
    lines: list[str]
    functions: list[_Span]


def _is_python(path: str) -> bool:
    return path.endswith((".py", ".pyi"))


def _code(text: str | None) -> _Code | None:
    """Return a Python file's functions, outer before inner; None where it cannot be parsed."""
    if text is None or (tree := parse(text)) is None:
        return None
    functions = [
        _Span(place.first_line, node.end_lineno or node.lineno, node.col_offset, place.name)
        for place, node in find_functions(tree, Source(text))
    ]
    return _Code(text.split("\n"), functions)


def _functions(patch: Sequence[FilePatch], codes: Mapping[str, _Code]) -> frozenset[Function]:
    found: set[Function] = set()
    for file in filter(_has_functions, patch):
        if code := codes.get(file.old_path):
            around = (name for run in runs(file.hunks) for name in _around(run, code))
            found.update((file.old_path, name) for name in around)
        else:
            found.update((file.old_path, hunk.heading) for hunk in file.hunks if hunk.heading)
    return frozenset(found)


def _has_headings(patch: Sequence[FilePatch]) -> bool:
    """Whether a patch that changes code in other languages than Python has headings for it."""
    files = [file for file in patch if _has_functions(file) and not _is_python(file.old_path)]
    return not files or any(hunk.heading for file in files for hunk in file.hunks)


def _around(run: Run, code: _Code) -> Iterator[str]:
    """Yield the innermost functions around the lines of a run; blank lines belong to none."""
    if not run.removed:
        if (function := _at_insertion(run, code)) is not None:
            yield function.name
        return
    for line, text in enumerate(run.removed, run.first):
        if text.strip() and (function := _innermost(code.functions, line, line)) is not None:
            yield function.name


def _at_insertion(run: Run, code: _Code) -> _Span | None:
    """Return the function that added lines come into: between two of its lines, or at its end.

    Lines after the last one of a function belong to it if they are indented deeper than its `def`.
    """
    before = run.first - 1
    if inside := _innermost(code.functions, before, run.first):
        return inside
    while before > 0 and _says_nothing(code.lines, before):
        before -= 1
    first = next((text for text in run.added if not _is_filler(text)), "")
    column = len(first) - len(first.lstrip())
    ending = [f for f in code.functions if f.first <= before <= f.last and f.column < column]
    return ending[-1] if ending else None


def _innermost(functions: Sequence[_Span], first: int, last: int) -> _Span | None:
    found = [span for span in functions if span.first <= first and last <= span.last]
    return found[-1] if found else None


def _says_nothing(lines: Sequence[str], number: int) -> bool:
    return number > len(lines) or _is_filler(lines[number - 1])


def _is_filler(text: str) -> bool:
    return not text.strip() or text.lstrip().startswith("#")
