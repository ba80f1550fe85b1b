"""The patch in an answer: one diff or several, bare, fenced or tagged, or search/replace edits.

Everything in the answer that is meant as a change is in the patch, or there is no patch and a
reason: a part is never left out for the rest to work. Reasoning up to `</think>` is no answer. How
a diff is written is judged in `reading`; whether a text was cut in its very last line, or just
before another file, is known only to whoever asked the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swe_scaffold.diffs import DEV_NULL, parse_patch
from swe_scaffold.patches.blocks import DIFF_WORDS, Frame, Tags, open_fence, read_fence
from swe_scaffold.patches.edits import ReadFile, has_edits, is_safe_path, patch_from_edits
from swe_scaffold.patches.reading import End, Reader, Refused, is_hunk, split_lines

_THINK, _THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in an answer.

    Attributes:
        patch: A unified diff that git reads and that ends in a line feed; empty where there is
            none.
        form: `diff`, `fenced_diff` (in a fence or a tag), `search_replace` or `none`.
        repairs: How often each kind of repair was made; see `reading`.
        problem: Empty, or why there is no patch: `empty`, `no_patch`, `truncated`, `unparsable`,
            `hunk_ambiguous`, `hunk_without_file`, `binary`, `file_twice`, `mixed_forms`,
            `unsafe_path`, and for edits `no_path`, `no_file`, `needs_files`, `no_change`,
            `search_empty`, `search_not_found`, `search_ambiguous`, `divider_ambiguous`.
        detail: What shows the problem, from the answer; foreign text.
    """

    patch: str
    form: str
    repairs: Mapping[str, int]
    problem: str
    detail: str = ""


def extract_patch(text: str, read_file: ReadFile | None = None) -> Extraction:
    """Return the patch that an answer holds, or the reason why there is none.

    Args:
        text: What the model wrote.
        read_file: Gives the text of a file before the change, None where there is none; it is
            asked only about relative paths within the tree. Search/replace edits need it.
    """
    if not text.strip():
        return Extraction("", "none", {}, "empty")
    lines = split_lines(text)
    if not _drop_reasoning(lines):
        return Extraction("", "none", {}, "truncated", "the reasoning does not end")
    if has_edits(lines):
        return _extract_edits(lines, read_file)
    answer = _Answer(lines)
    try:
        answer.read()
        patch = "".join(answer.pieces)
        _check_patch(patch)
    except Refused as refused:
        return Extraction("", answer.form, {}, refused.problem, refused.detail)
    if answer.reaches_end and not text.endswith("\n"):
        answer.repairs["final_newline"] += 1
    return Extraction(patch, answer.form, dict(answer.repairs), "")


def _drop_reasoning(lines: list[str]) -> bool:
    """Blank the lines of reasoning; False where it has begun and does not end.

    Templates may open it in the prompt, so that only its end is in the text.
    """
    first = _first_filled(lines, 0, len(lines))
    if first is not None and lines[first].lstrip().startswith(_THINK):
        last = next((place for place, line in enumerate(lines) if _THOUGHT in line), None)
        if last is None:
            return False
    else:
        ends = [place for place, line in enumerate(lines) if line.rstrip() == _THOUGHT]
        if not ends:
            return True
        last = ends[-1]
    lines[last] = lines[last].partition(_THOUGHT)[2]
    lines[:last] = [""] * last
    return True


def _extract_edits(lines: Sequence[str], read_file: ReadFile | None) -> Extraction:
    form = "search_replace"
    try:
        return Extraction(patch_from_edits(lines, read_file), form, {}, "")
    except Refused as refused:
        return Extraction("", form, {}, refused.problem, refused.detail)


class _Answer:
    """Collects the diffs of an answer, in order."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.pieces: list[str] = []
        self.repairs: Counter[str] = Counter()
        self.form = "none"
        self.reaches_end = False
        self._paths: set[str] = set()
        self._tags = Tags(lines)
        first = _first_filled(lines, 0, len(lines)) or 0
        whole = Reader(lines, len(lines), "open").starts_file(first)
        self._bare = Reader(lines, len(lines), "whole" if whole else "open")

    def read(self) -> None:
        """Read the answer to its end.

        Raises:
            Refused: Part of it cannot be read, or is said twice.
        """
        place = 0
        while place < len(self.lines):
            frame = self._tags.read(place) or read_fence(self.lines, place)
            if frame is not None:
                place = self._read_frame(frame)
            elif self._bare.starts_file(place):
                place = self._read_bare(place)
            else:
                self._check_prose(place)
                place += 1
        self.repairs += self._bare.repairs

    def _check_prose(self, place: int) -> None:
        if self.pieces:
            self._bare.check_gap(place)
        else:
            self._refuse_hunks(place, place + 1)

    def _read_bare(self, start: int) -> int:
        self.form = "diff" if self.form == "none" else self.form
        place = stop = start
        while self._bare.starts_file(place):
            place = stop = self._bare.read_file(place)
            while place < len(self.lines) and not self.lines[place].strip():
                place += 1
        self._add(self._bare, start, stop)
        self.reaches_end = stop == len(self.lines)
        return stop

    def _read_frame(self, frame: Frame) -> int:
        """Read a fence or tag; return the line after it, or its first where it is but a frame."""
        inner = _first_filled(self.lines, frame.start, frame.stop)
        if inner is None:
            return frame.after
        if frame.tag and open_fence(self.lines[inner]) is not None:
            return inner
        self._take_indent(frame)
        end: End = "closed" if frame.closed else "open"
        reader = Reader(self.lines, frame.stop, end)
        anywhere = not frame.word or frame.word in DIFF_WORDS
        candidates = range(inner, frame.stop) if anywhere else range(inner, inner + 1)
        start = next((place for place in candidates if reader.starts_file(place)), None)
        self._refuse_hunks(inner, frame.stop if start is None else start)
        if start is None:
            return frame.after
        self.form = "fenced_diff"
        place = stop = start
        while place < frame.stop:
            if reader.starts_file(place):
                place = stop = reader.read_file(place)
            else:
                reader.check_gap(place)
                place += 1
        self._add(reader, start, stop)
        self.repairs += reader.repairs
        self.reaches_end = stop == len(self.lines) and not frame.closed
        return frame.after

    def _take_indent(self, frame: Frame) -> None:
        """Take a fence's own indent from the lines in it, as Markdown does."""
        lines = self.lines[frame.start : frame.stop]
        if frame.indent and all(line.startswith(frame.indent) for line in lines if line.strip()):
            taken = [line.removeprefix(frame.indent) for line in lines]
            self.lines[frame.start : frame.stop] = taken

    def _refuse_hunks(self, start: int, stop: int) -> None:
        place = next((at for at in range(start, stop) if is_hunk(self.lines[at])), None)
        if place is not None:
            raise Refused("hunk_without_file", f"line {place + 1}: {self.lines[place][:80]}")

    def _add(self, reader: Reader, start: int, stop: int) -> None:
        piece = reader.written(start, stop)
        paths = _paths(piece)
        if twice := sorted(paths & self._paths):
            raise Refused("file_twice", twice[0])
        self._paths |= paths
        self.pieces.append(piece)


def _first_filled(lines: Sequence[str], start: int, stop: int) -> int | None:
    return next((place for place in range(start, stop) if lines[place].strip()), None)


def _paths(patch: str) -> set[str]:
    files = parse_patch(patch)
    return {name for file in files for name in (file.old_path, file.new_path)} - {DEV_NULL}


def _check_patch(patch: str) -> None:
    files = parse_patch(patch)
    if not files:
        raise Refused("no_patch")
    if not all(hunk.complete for file in files for hunk in file.hunks):
        raise Refused("unparsable")
    for name in sorted(_paths(patch)):
        if not is_safe_path(name):
            raise Refused("unsafe_path", name[:200])
