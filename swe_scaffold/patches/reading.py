"""Diff lines read as strictly as git reads them, with the repairs that cannot change their meaning.

What git reads whole is never touched. Repaired is only what the text itself proves:

- `final_newline`: the last line has no line feed. A diff says that a file lacks one by a line of
  its own (a note after the line), so the end of the text says nothing.
- `hunk_counts`: a hunk's lines end where the next hunk, the next file, the closing mark or the
  text ends, every one of them is a line of a hunk, and their number is not the announced one. The
  counts repeat what the lines say, so they are counted again; where a hunk starts is left alone.
  Not where the text ends too early (it may be cut), where a line is no line of a hunk (the model
  meant another), where it is unclear whether a blank line, or a line that could be a file's name,
  still belongs to the hunk, or where a side becomes empty (its start is counted otherwise then).
- `blank_lines`: blank lines between a hunk with all its lines and the next hunk of the file. By
  the counts they belong to neither, and git skips such lines between files.
- `new_file_mode`, `deleted_file_mode`: a file's `diff --git` header names `/dev/null` and lacks
  the line that git writes with it (git would look for a file `dev/null`, or make one). The name
  means a missing file and nothing else; the mode is the one git gives where a diff names none.

Not repairs: a blank line for a blank context line, which git takes as it is; carriage returns, as
a text does not tell whether the file has them too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NoReturn

from swe_scaffold.patches.headers import EXTENDED, GIT, METADATA, NEW, OLD, Head

End = Literal["closed", "whole", "open"]

_HUNK = re.compile(r"@@ -([0-9]{1,9})(,[0-9]{1,9})? \+([0-9]{1,9})(,[0-9]{1,9})? @@")
_BINARY = ("literal ", "delta ")
_SIGNATURE = "-- "
# git reads a note about a missing newline from its first two characters and its length.
_NOTE_LENGTH = 11


class Refused(Exception):
    """A patch cannot be had from a text: the problem in one word, and what shows it."""

    def __init__(self, problem: str, detail: str = "") -> None:
        super().__init__(problem, detail)
        self.problem, self.detail = problem, detail


def repair_patch(patch: str) -> tuple[str, Mapping[str, int]]:
    """Return a patch with the repairs that can be proven, and how often each kind was made.

    A patch that git reads whole comes back as it is, and so does one that cannot be repaired.
    """
    lines = split_lines(patch)
    reader = Reader(lines, len(lines), "whole")
    place = end = 0
    try:
        while place < len(lines):
            if reader.starts_file(place):
                place = end = reader.read_file(place)
            else:
                reader.check_gap(place)
                place += 1
    except Refused:
        return patch, {}
    # git needs no line feed after its note, nor after what is no diff.
    if 0 < end == len(lines) and not (patch.endswith("\n") or lines[-1].startswith("\\")):
        reader.repairs["final_newline"] += 1
    if not reader.repairs:
        return patch, {}
    return reader.written(0, len(lines)), dict(reader.repairs)


def is_hunk(line: str) -> bool:
    """Whether a line is the head of a hunk."""
    return _HUNK.match(line) is not None


def split_lines(text: str) -> list[str]:
    """Split at line feeds only, without them; a last line feed begins no further line."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


class Reader:
    """Reads the files of a diff from the lines before `stop`, and notes the repairs on its way.

    Args:
        lines: The lines of the text.
        stop: The first line that is no part of it.
        end: What stands there: `closed` a mark that closes the diff, `whole` the end of a text that
            is nothing but a diff, `open` the end of any other text.
    """

    def __init__(self, lines: Sequence[str], stop: int, end: End) -> None:
        self.lines, self.stop, self.end = lines, stop, end
        self.repairs: Counter[str] = Counter()
        self._replaced: dict[int, tuple[str, ...]] = {}

    def starts_file(self, place: int) -> bool:
        """Whether the part of one file begins at a line."""
        return self._at(place).startswith(GIT) or self._names(place)

    def read_file(self, place: int) -> int:
        """Read the part of one file; return the line after it.

        Raises:
            Refused: git would not take it, or not all of it, and no repair can be proven.
        """
        start, says_more = place, False
        git = self._at(place).removeprefix(GIT) if self._at(place).startswith(GIT) else None
        if git is not None:
            place, says_more = self._read_header(place + 1)
            place = self._skip_blank(start, place)
        names, extended = None, self.lines[start + 1 : place]
        if self._has_names(place):
            names = (self.lines[place][len(OLD) :], self.lines[place + 1][len(NEW) :])
        head = Head(git, extended, names)
        if names is not None:
            place, counts = self._read_hunks(place + 2)
            says_more = counts != (0, 0)
            if any(none and count for none, count in zip(head.missing, counts, strict=True)):
                self._refuse(start, "a file that is missing has lines")
        if not says_more:
            self._refuse_cut(place)
        self._check_head(start, head)
        return place

    def _check_head(self, start: int, head: Head) -> None:
        if fault := head.fault():
            self._refuse(start, fault)
        for kind, line in head.missing_modes():
            self._replaced[start] = (self.lines[start], line)
            self.repairs[kind] += 1

    def check_gap(self, place: int) -> None:
        """Refuse a line between files that git would skip though it was meant as a hunk.

        Raises:
            Refused: It is the head of a hunk.
        """
        line = self._at(place)
        if is_hunk(line):
            self._refuse(place, "a hunk of no file", "hunk_without_file")
        if self.end == "closed" and line[:1] in ("+", "-") and line.rstrip("\r") != _SIGNATURE:
            self._refuse(place, "a line of no hunk")
        last = place == len(self.lines) - 1 and self.end != "closed"
        if last and len(line) > 3 and line != GIT and GIT.startswith(line):
            raise Refused("truncated", self._quoted(place))

    def written(self, start: int, stop: int) -> str:
        """Return some of the lines as text, repaired; it ends in a line feed."""
        return "".join(f"{line}\n" for line in self._written(start, stop))

    def _written(self, start: int, stop: int) -> Iterator[str]:
        for place in range(start, stop):
            yield from self._replaced.get(place, (self.lines[place],))

    def _at(self, place: int) -> str:
        return self.lines[place] if place < self.stop else ""

    def _has_names(self, place: int) -> bool:
        return self._at(place).startswith(OLD) and self._at(place + 1).startswith(NEW)

    def _names(self, place: int) -> bool:
        return self._has_names(place) and is_hunk(self._at(place + 2))

    def _starts_part(self, place: int) -> bool:
        return self.starts_file(place) or is_hunk(self._at(place))

    def _quoted(self, place: int) -> str:
        return f"line {place + 1}: {self.lines[min(place, len(self.lines) - 1)][:80]}"

    def _refuse(self, place: int, why: str, problem: str = "unparsable") -> NoReturn:
        raise Refused(problem, f"{why}: {self._quoted(place)}")

    def _refuse_cut(self, place: int) -> NoReturn:
        """Refuse a part that ends before its changes."""
        if place >= self.stop - 1 and self.end != "closed":
            raise Refused("truncated", self._quoted(place))
        self._refuse(place, "a file without changes")

    def _read_header(self, place: int) -> tuple[int, bool]:
        """Read what follows `diff --git`; return the line after it and whether it is a change."""
        says_more = False
        while place < self.stop and self._at(place).startswith(EXTENDED):
            says_more = says_more or self._at(place).startswith(METADATA)
            place += 1
        if self._at(place).startswith("Binary files "):
            self._refuse(place, "a binary file without its content", "binary")
        if self._at(place).startswith("GIT binary patch"):
            return self._read_binary(place + 1), True
        return place, says_more

    def _skip_blank(self, start: int, place: int) -> int:
        """Skip blank lines below a lone git line, which git then takes for text."""
        after = place
        while after < self.stop and not self.lines[after].strip():
            after += 1
        return after if place == start + 1 and self._names(after) else place

    def _read_binary(self, place: int) -> int:
        start = place
        while self._at(place).startswith(_BINARY):
            while self._at(place).strip():
                place += 1
            place += place < self.stop
        if place == start:
            self._refuse_cut(place)
        return place

    def _read_hunks(self, place: int) -> tuple[int, tuple[int, int]]:
        """Read the hunks of a file; return the line after them and their lines on both sides."""
        old = new = 0
        while place < self.stop:
            after = place
            while (old or new) and after < self.stop and not self.lines[after].strip():
                after += 1
            if not is_hunk(self._at(after)):
                self._refuse_placeless(after)
                break
            for blank in range(place, after):
                self._replaced[blank] = ()
                self.repairs["blank_lines"] += 1
            place, counts = self._read_hunk(after)
            old, new = old + counts[0], new + counts[1]
        return place, (old, new)

    def _refuse_placeless(self, place: int) -> None:
        """Refuse a hunk without line numbers, which git would skip."""
        if not self._at(place).startswith("@@"):
            return
        if place == len(self.lines) - 1 and self.end != "closed":
            raise Refused("truncated", self._quoted(place))
        self._refuse(place, "a hunk without line numbers")

    def _read_hunk(self, head: int) -> tuple[int, tuple[int, int]]:
        """Read a hunk by its counts, or count again where they are proven wrong."""
        match = _HUNK.match(self.lines[head])
        assert match is not None
        announced = _count(match[2]), _count(match[4])
        place, left = self._take(head + 1, announced)
        if left == (0, 0) and not self._goes_on(place):
            self._check_changes(head, place)
            return place, announced
        return self._count_again(head, match)

    def _take(self, place: int, left: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Go through lines as git does until both counts are used up, or no line fits."""
        old, new = left
        while place < self.stop and (old or new):
            line = self.lines[place]
            if not _is_body(line):
                break
            sides = _sides(line)
            if sides[0] > old or sides[1] > new:
                break
            old, new = old - sides[0], new - sides[1]
            place += 1
        if self._at(place).startswith("\\ "):
            place += 1
        return place, (old, new)

    def _goes_on(self, place: int) -> bool:
        """Whether lines that look like a hunk's follow a hunk that has all of its lines."""
        first = self._at(place)
        if self._is_end(place) or (self.end != "closed" and not first.strip()):
            return False
        while place < self.stop and not self._is_end(place):
            if self.lines[place].strip():
                return True
            place += 1
        return False

    def _is_end(self, place: int) -> bool:
        if place >= self.stop or self._starts_part(place) or not _is_body(self.lines[place]):
            return True
        return self.lines[place].rstrip("\r") == _SIGNATURE

    def _count_again(self, head: int, match: re.Match[str]) -> tuple[int, tuple[int, int]]:
        announced = _count(match[2]), _count(match[4])
        place = head + 1
        old = new = 0
        while not self._is_end(place):
            sides = _sides(self.lines[place])
            old, new = old + sides[0], new + sides[1]
            place += 1
        # A file that is empty on one side has no context, so a blank line there is none.
        while 0 in announced and place > head + 1 and not self.lines[place - 1].strip("\r"):
            place, old, new = place - 1, old - 1, new - 1
        self._check_end(head, place, (old < announced[0] or new < announced[1]))
        body = self.lines[head + 1 : place]
        if not body or not body[-1].strip("\r") or _holds_names(body):
            self._refuse(head, "the end of the hunk is not clear", "hunk_ambiguous")
        if (not old, not new) != (not announced[0], not announced[1]):
            self._refuse(head, "the hunk has lines on other sides than it announces")
        ranges = [_range(match[1], match[2], old), _range(match[3], match[4], new)]
        rest = self.lines[head][match.end() :]
        self._replaced[head] = (f"@@ -{ranges[0]} +{ranges[1]} @@{rest}",)
        self.repairs["hunk_counts"] += 1
        self._check_changes(head, place)
        return place, (old, new)

    def _check_end(self, head: int, place: int, short: bool) -> None:
        """Refuse to count again where the end of the lines does not prove that they are all."""
        while place < self.stop and not self.lines[place].strip("\r"):
            place += 1
        if place < self.stop and not self._starts_part(place):
            self._refuse(place, "no line of a hunk")
        if place >= self.stop and self.end != "closed":
            if short:
                self._refuse(head, "fewer lines than announced", "truncated")
            if self.end == "open":
                self._refuse(head, "the end of the hunk is not clear", "hunk_ambiguous")

    def _check_changes(self, head: int, place: int) -> None:
        if not any(line[:1] in ("+", "-") for line in self.lines[head + 1 : place]):
            self._refuse(head, "a hunk without changes")


def _count(written: str | None) -> int:
    return int(written[1:]) if written else 1


def _is_body(line: str) -> bool:
    """Whether git takes a line inside a hunk."""
    if line.startswith("\\"):
        return line.startswith("\\ ") and len(line) >= _NOTE_LENGTH
    return not line or line[0] in " +-"


def _holds_names(body: Sequence[str]) -> bool:
    """Whether two lines, or the last, could name a file as well as change one."""
    following = (*body[1:], NEW)
    return any(
        line.startswith(OLD) and after.startswith(NEW)
        for line, after in zip(body, following, strict=True)
    )


def _sides(line: str) -> tuple[int, int]:
    if line.startswith("\\"):
        return 0, 0
    return int(not line.startswith("+")), int(not line.startswith("-"))


def _range(start: str, written: str | None, count: int) -> str:
    if _count(written) == count:
        return start + (written or "")
    return start if count == 1 else f"{start},{count}"
