"""What the terminal sees: foreign text made harmless, and progress of long work.

Results go to stdout through `cli`; everything here goes to stderr, and a stderr that is closed or
gone stops nothing.
"""

from __future__ import annotations

import os
import re
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_PLAIN_SECONDS = 10.0
_MESSAGE_WIDTH = 2000
# Controls; bidi, zero-width and tags; surrogates; private; unassigned; line and paragraph ends.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters, marks and symbols that show nothing: joiners, fillers, blanks, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def show(text: object, *, width: int = 200) -> str:
    r"""Return foreign text safe to print on one line.

    Control, bidirectional, zero-width and other invisible characters become `\n`, `\x1b` or
    `\u{202e}`; a result longer than `width` characters is cut with an ellipsis, never inside an
    escape.
    """
    value = str(text)
    if len(value) <= width and _is_plain(value):
        return value
    pieces = [_visible(character) for character in value[: width + 1]]
    length = sum(map(len, pieces))
    if length <= width:
        return "".join(pieces)
    while pieces and length > width - 1:
        length -= len(pieces.pop())
    return ("".join(pieces) + "…")[: max(width, 0)]


def show_block(text: object) -> str:
    """Return foreign text safe to print over several lines: `show`, but newlines and tabs stay."""
    return "\n".join(
        line if _is_plain(line) else "\t".join("".join(map(_visible, p)) for p in line.split("\t"))
        for line in str(text).split("\n")
    )


def _is_plain(text: str) -> bool:
    return text.isprintable() and not _INVISIBLE.search(text)


def _visible(character: str) -> str:
    if " " <= character <= "~":
        return character
    if character in _NAMED:
        return _NAMED[character]
    if unicodedata.category(character) in _UNSAFE_CATEGORIES or _INVISIBLE.match(character):
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"
    return character


def wants_style(stream: TextIO | None) -> bool:
    """Whether colour and bars suit `stream`: a capable terminal and no NO_COLOR."""
    if stream is None or stream.closed or not stream.isatty():
        return False
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in {"dumb", "unknown"}


class Reporter:
    """Messages and progress on stderr; `level` -1 is quiet, 0 normal, 1 verbose."""

    def __init__(self, level: int = 0) -> None:
        self.level = level

    def say(self, message: str, *, level: int = 0) -> None:
        """Write one line unless the reporter is quieter than `level`; what it says is made safe."""
        # None: the process was started without a stderr. ValueError: it was closed since.
        if self.level >= level and sys.stderr is not None:
            with suppress(OSError, ValueError):
                sys.stderr.write(show(message, width=_MESSAGE_WIDTH) + "\n")
                sys.stderr.flush()

    @contextmanager
    def progress(self, title: str, total: int | None, *, unit: str = "rows") -> Iterator[Track]:
        """Track long work: a bar with ETA on a terminal, else a plain line every ten seconds."""
        if self.level >= 0 and wants_style(sys.stderr):
            with _rich_progress() as bar:
                yield _BarTrack(bar, bar.add_task(show(title), total=total, note=""))
        else:
            yield _LineTrack(self, title, total, unit)


class Track:
    """One piece of work under way."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` units as done; `note` is shown beside the count."""


class _BarTrack(Track):
    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._bar.update(self._task, advance=amount, note=show(note))


class _LineTrack(Track):
    def __init__(self, reporter: Reporter, title: str, total: int | None, unit: str) -> None:
        self._reporter, self._title, self._total, self._unit = reporter, title, total, unit
        self._start = time.monotonic()
        self._next = self._start + _PLAIN_SECONDS
        self._done = self._before = 0

    def advance(self, amount: int = 1, note: str = "") -> None:
        if not self._done:
            # The first count may stand for work of an earlier, interrupted run: it tells no speed.
            self._before = amount
        self._done += amount
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PLAIN_SECONDS
        count = f"{self._done}/{self._total}" if self._total else str(self._done)
        line = f"{self._title}: {count} {self._unit}{self._left(now)}"
        self._reporter.say(f"{line}, {note}" if note else line)

    def _left(self, now: float) -> str:
        done = self._done - self._before
        if not self._total or done <= 0:
            return ""
        seconds = (now - self._start) / done * max(self._total - self._done, 0)
        return f", about {seconds:.0f} s left"


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


SILENT = Reporter(level=-1)
