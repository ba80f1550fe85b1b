"""Search/replace edits: blocks that name a file, some of its lines, and what to put instead.

    path/to/file.py
    <<<<<<< SEARCH
    lines that are in the file exactly once
    =======
    lines to put there
    >>>>>>> REPLACE

The path stands before the block or before the fence around it, bare, in backticks or as a heading;
a block that follows another with no text between is for the same file. An empty SEARCH makes a new
file.
Lines are compared exactly; nothing is searched for that is only similar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from swe_scaffold.diffs import unified_diff
from swe_scaffold.patches.blocks import open_fence
from swe_scaffold.patches.reading import Reader, Refused

ReadFile = Callable[[str], str | None]

_SEARCH, _DIVIDER, _REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_DRESS = re.compile(r"(?:#{1,6} +)?(?:\*\*)?(?:[Ff]ile: *)?`?([^`*]+?)`?(?:\*\*)?:?")
# A word that can only name a file; others do where such a file is there.
_FILE_NAME = re.compile(r"/|[^./]\.[^./]")
_PATH_CHARACTERS = 1000
_DRIVE = re.compile(r"[A-Za-z]:")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Edit:
    """One block; `place` is its line."""

    path: str
    search: str
    replace: str
    place: int


def is_safe_path(path: str) -> bool:
    """Whether a path names a file within the tree: relative, plain, not in `.git`."""
    if not path or len(path) > _PATH_CHARACTERS or path.startswith(("/", "~")) or "\\" in path:
        return False
    if _DRIVE.match(path) or _UNPRINTABLE.search(path):
        return False
    return not any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/"))


def has_edits(lines: Sequence[str]) -> bool:
    """Whether some line begins a block."""
    return any(_is(line, _SEARCH) for line in lines)


def patch_from_edits(lines: Sequence[str], read_file: ReadFile | None) -> str:
    """Return the diff that the blocks of an answer make, those of one file applied in order.

    Raises:
        Refused: A block cannot be read, or does not fit its file exactly.
    """
    edits = _read_edits(lines)
    if read_file is None:
        raise Refused("needs_files", edits[0].path)
    before: dict[str, str | None] = {}
    after: dict[str, str | None] = {}
    for edit in edits:
        if edit.path not in before:
            before[edit.path] = after[edit.path] = read_file(edit.path)
        after[edit.path] = _apply(edit, after[edit.path])
    patch = "".join(_diff(path, before[path], after[path] or "") for path in before)
    if not patch:
        raise Refused("no_change")
    return patch


def _is(line: str, mark: str) -> bool:
    return line.startswith(mark) and not line[len(mark) :].strip()


def _read_edits(lines: Sequence[str]) -> list[_Edit]:
    edits: list[_Edit] = []
    outside = Reader(lines, len(lines), "open")
    place = after = 0
    while place < len(lines):
        if _is(lines[place], _SEARCH):
            path = _path_before(lines, place, after)
            if path is None:
                path = edits[-1].path if edits else ""
            edit, after = _read_edit(lines, place, path)
            edits.append(edit)
            place = after
        elif outside.starts_file(place):
            raise Refused("mixed_forms", f"line {place + 1}: {lines[place][:80]}")
        else:
            place += 1
    return edits


def _read_edit(lines: Sequence[str], place: int, path: str) -> tuple[_Edit, int]:
    if not path:
        raise Refused("no_path", f"line {place + 1}")
    if not is_safe_path(path):
        raise Refused("unsafe_path", path[:200])
    dividers = []
    for at in range(place + 1, len(lines)):
        if _is(lines[at], _SEARCH):
            _refuse(at, "a block within a block")
        if _is(lines[at], _DIVIDER):
            dividers.append(at)
        elif _is(lines[at], _REPLACE):
            break
    else:
        raise Refused("truncated", f"line {place + 1}: the block does not end")
    if not dividers:
        _refuse(place, "a block without a divider")
    if len(dividers) > 1:
        raise Refused("divider_ambiguous", f"line {place + 1}: {len(dividers)} dividers")
    search = _joined(lines[place + 1 : dividers[0]])
    return _Edit(path, search, _joined(lines[dividers[0] + 1 : at]), place), at + 1


def _refuse(place: int, why: str) -> NoReturn:
    raise Refused("unparsable", f"line {place + 1}: {why}")


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _path_before(lines: Sequence[str], place: int, first: int) -> str | None:
    """Return the path above a block, over a fence's mark and blank lines.

    It is empty where the text there is no path, None where there is no text since line `first`.
    """
    for at in range(place - 1, first - 1, -1):
        line = lines[at].strip()
        if not line or open_fence(lines[at]) is not None:
            continue
        match = _DRESS.fullmatch(line) if len(line) <= _PATH_CHARACTERS else None
        path = match[1].strip().removeprefix("./") if match else ""
        return path if len(path.split()) == 1 else ""
    return None


def _apply(edit: _Edit, text: str | None) -> str:
    where = f"line {edit.place + 1}: {edit.path}"
    if not edit.search.strip():
        if text:
            raise Refused("search_empty", where)
        if text is None and not _FILE_NAME.search(edit.path):
            raise Refused("no_path", where)
        return edit.replace
    if text is None:
        raise Refused("no_file", where)
    # Blocks hold whole lines, so they say nothing about a last line without a line feed.
    ended = text.endswith("\n")
    whole = "\n" + text + ("" if ended else "\n")
    sought = "\n" + edit.search
    found = whole.find(sought)
    if found < 0:
        raise Refused("search_not_found", where)
    if whole.find(sought, found + 1) >= 0:
        raise Refused("search_ambiguous", where)
    result = whole[1 : found + 1] + edit.replace + whole[found + len(sought) :]
    return result if ended else result.removesuffix("\n")


def _diff(path: str, before: str | None, after: str) -> str:
    """Write the diff of one file; a file that was not there is a new one."""
    patch = unified_diff(path, before or "", after)
    if before is not None or not patch:
        return patch
    git, _, new, hunks = patch.split("\n", 3)
    return f"{git}\nnew file mode 100644\n--- /dev/null\n{new}\n{hunks}"
