"""Where diffs may stand in an answer: Markdown fences, `<patch>` and `<diff>` tags.

Only the frame is read here, and more loosely than Markdown does where diffs ask for it; what the
lines between mean is left to `reading`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

DIFF_WORDS = frozenset({"diff", "patch", "udiff", "unidiff", "git"})

_FENCE = re.compile(r"( *)(`{3,}|~{3,})[ \t]*([^`\r]*)\r?")
_TAG = re.compile(r"[ \t]*<(patch|diff)>[ \t]*")
_TAGS = ("patch", "diff")


@dataclass(frozen=True, slots=True)
class Fence:
    """A line that opens a fence: its indent, its mark, the first word after it."""

    indent: str
    mark: str
    word: str

    def is_closed_by(self, line: str) -> bool:
        """Whether a line closes it: at the same indent, as a context line may hold a fence."""
        text = line.rstrip(" \t\r")
        if not text.startswith(self.indent + self.mark):
            return False
        return not text.removeprefix(self.indent).strip(self.mark[0])


@dataclass(frozen=True, slots=True)
class Frame:
    """The lines `start` to `stop` within a fence or a tag, and the line where to go on."""

    start: int
    stop: int
    after: int
    closed: bool
    word: str
    indent: str = ""
    tag: bool = False


def open_fence(line: str) -> Fence | None:
    """Read a line that opens a fence; inline code is none."""
    match = _FENCE.fullmatch(line)
    if match is None:
        return None
    words = match[3].split(None, 1)
    return Fence(match[1], match[2], words[0].lower() if words else "")


def read_fence(lines: Sequence[str], place: int) -> Frame | None:
    """Return what is in the fence that a line opens; None where it opens none.

    A fence that holds no diff also ends where one for a diff opens, as models nest them.
    """
    fence = open_fence(lines[place])
    if fence is None:
        return None
    for at in range(place + 1, len(lines)):
        if fence.is_closed_by(lines[at]):
            return Frame(place + 1, at, at + 1, closed=True, word=fence.word, indent=fence.indent)
        if fence.word not in DIFF_WORDS:
            inner = open_fence(lines[at])
            if inner is not None and inner.word in DIFF_WORDS:
                return Frame(place + 1, at, at, closed=True, word=fence.word)
    end = len(lines)
    return Frame(place + 1, end, end, closed=False, word=fence.word, indent=fence.indent)


class Tags:
    """The `<patch>` and `<diff>` tags of a text.

    Reading one cuts its marks out of `lines`, so that text beside a mark is a line of its own.
    """

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._opened = -1
        self._closers: dict[str, list[int]] = {}
        self._glued: dict[str, list[int]] = {}
        for name in _TAGS:
            mark = f"</{name}>"
            ends = [at for at, line in enumerate(lines) if mark in line]
            self._closers[name] = [at for at in ends if lines[at].lstrip(" \t").startswith(mark)]
            self._glued[name] = [at for at in ends if lines[at].rstrip().endswith(mark)]

    def read(self, place: int) -> Frame | None:
        """Return what is between the tag that a line opens and its end; None without one."""
        match = _TAG.match(self._lines[place])
        if match is None or place <= self._opened:
            return None
        name, rest = match[1], self._lines[place][match.end() :]
        self._lines[place], self._opened = rest, place
        start = place if rest.strip() else place + 1
        closers, glued = self._closers[name], self._glued[name]
        after = bisect_right(closers, place)
        if after < len(closers):
            at = closers[after]
            return Frame(start, at, at + 1, closed=True, word=name, tag=True)
        if glued and glued[-1] >= place:
            at = glued[-1]
            line = self._lines[at].rstrip()
            self._lines[at] = line.removesuffix(f"</{name}>")
            return Frame(start, at + 1, at + 1, closed=True, word=name, tag=True)
        return Frame(start, start, start, closed=False, word=name, tag=True)
