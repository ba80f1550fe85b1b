"""Unified diffs: parse them, list the files they touch, class their lines, and write them.

One scanner reads every line once; hunk counts decide what a line is, never its prefix alone, as a
removed line may itself begin with `-- `. The reader is tolerant (git or plain, prose around, hunks
cut short) and never raises; whether a patch applies to a tree is left to others. Text is split at
line feeds only: carriage returns, form feeds and Unicode separators stay inside their lines.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

LineClass = Literal["header", "context", "removed", "added", "other"]

DEV_NULL = "/dev/null"
NO_NEWLINE = "\\ No newline at end of file"
CONTEXT_LINES = 3

_HUNK = re.compile(r"@@ -([0-9]{1,10})(?:,([0-9]{1,10}))? \+([0-9]{1,10})(?:,([0-9]{1,10}))? @@")
_EXTENDED = (
    "index ",
    "old mode ",
    "new mode ",
    "new file mode ",
    "deleted file mode ",
    "similarity index ",
    "dissimilarity index ",
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
    "Binary files ",
    "GIT binary patch",
)
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r'\\([0-7]{3}|[abtnvfr"\\])|([^\\]+|\\)')
_NEEDS_QUOTES = re.compile(r'["\\\x00-\x1f\x7f]')
_BODY = {" ": "context", "": "context", "\r": "context", "-": "removed", "+": "added"}


@dataclass(frozen=True, slots=True)
class Hunk:
    """One `@@` block; `lines` keep their prefix and any carriage return, not their line feed.

    `heading` is what follows the second `@@`: git's guess at the function above the block.
    """

    old_start: int
    old_count: int
    new_start: int
    new_count: int
    lines: tuple[str, ...]
    heading: str = ""

    @property
    def complete(self) -> bool:
        """Whether the lines are as many as the header announced."""
        body = [line[:1] for line in self.lines if not line.startswith("\\")]
        old, new = len(body) - body.count("+"), len(body) - body.count("-")
        return (old, new) == (self.old_count, self.new_count)


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What a patch does to one file; a missing side is `/dev/null`, a mere rename has no hunk."""

    old_path: str
    new_path: str
    hunks: tuple[Hunk, ...] = ()

    @property
    def path(self) -> str:
        """The file's name after the patch, or before it when the file is deleted."""
        return self.old_path if self.new_path == DEV_NULL else self.new_path


def parse_patch(text: str) -> tuple[FilePatch, ...]:
    """Parse a unified diff, in order; text that is not a diff gives an empty tuple.

    `a/` and `b/` are removed where both sides carry such a prefix; git's quoted names are decoded.
    A hunk that ends before its announced counts keeps the lines it has (`Hunk.complete` tells).
    """
    files: list[_FileDraft] = []
    for line in _scan(text):
        body = line.text.removesuffix("\n")
        if line.kind == "git" or (line.kind == "old" and not (files and files[-1].expects_names)):
            files.append(_FileDraft(git=line.kind == "git"))
        if line.kind not in ("other", "command"):
            files[-1].take(line.kind, body)
    return tuple(draft.finished() for draft in files)


def files_touched(text: str) -> tuple[str, ...]:
    """List the paths a patch touches, each once, in order; a rename or copy touches both names."""
    names: dict[str, None] = {}
    for patch in parse_patch(text):
        names.update(dict.fromkeys(p for p in (patch.old_path, patch.new_path) if p != DEV_NULL))
    return tuple(names)


def line_classes(text: str) -> list[tuple[int, int, LineClass]]:
    """Class every line of `text` as (start, end, class), in characters, its line feed included.

    The spans are in order, not empty, and cover the text exactly. `header` is every line of diff
    syntax, the note about a missing final newline included; `other` is text that is no diff.
    """
    spans: list[tuple[int, int, LineClass]] = []
    start = 0
    for line in _scan(text):
        end = start + len(line.text)
        spans.append((start, end, _line_class(line.kind)))
        start = end
    return spans


def unified_diff(path: str, old: str, new: str) -> str:
    """Write the git-applicable diff that turns `old` into `new`; empty when they are equal.

    The file exists on both sides: an empty `old` is an empty file, not a missing one. `path` is
    relative, with forward slashes.
    """
    if old == new:
        return ""
    a, b = _lines(old), _lines(new)
    hunks = [_format_hunk(a, b, group) for group in _grouped_changes(a, b)]
    before, after = (_quote(f"{side}/{path}") for side in "ab")
    # git ends names holding a space with a tab, or GNU patch would read the rest as a date.
    tab = "\t" if " " in path and not before.startswith('"') else ""
    header = f"diff --git {before} {after}\n--- {before}{tab}\n+++ {after}{tab}\n"
    return header + "".join(hunks)


class _Line(NamedTuple):
    kind: str
    text: str


def _line_class(kind: str) -> LineClass:
    match kind:
        case "context" | "removed" | "added" | "other":
            return kind
        case _:
            return "header"


def _lines(text: str) -> list[str]:
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines


def _scan(text: str) -> Iterator[_Line]:
    """Name the kind of every line: git, extended, command, old, new, hunk, note, a body, other."""
    lines = _lines(text)
    scanner = _Scanner()
    for index, line in enumerate(lines):
        yield _Line(scanner.kind(line.removesuffix("\n"), lines[index + 1 : index + 3]), line)


@dataclass(slots=True)
class _Scanner:
    """What the lines so far allow the next one to be."""

    in_file: bool = False
    in_git_header: bool = False
    expects_new: bool = False
    old_left: int = 0
    new_left: int = 0
    in_hunk: bool = False

    def kind(self, line: str, following: Sequence[str]) -> str:
        if self.in_hunk and (kind := self._body(line)):
            return kind
        self.in_hunk = False
        if self.expects_new:
            self.expects_new = False
            return "new"
        if line.startswith("diff --git "):
            self.in_file = self.in_git_header = True
            return "git"
        if self._starts_names(line, following):
            self.in_file = self.expects_new = True
            return "old"
        if self.in_git_header and line.startswith(_EXTENDED):
            return "extended"
        if self.in_file and (match := _HUNK.match(line)):
            self._enter_hunk(match)
            return "hunk"
        if line.startswith("diff -") and following and following[0].startswith("--- "):
            return "command"
        return "other"

    def _body(self, line: str) -> str:
        if line.startswith("\\ "):
            return "note"
        kind = _BODY.get(line if line == "\r" else line[:1], "")
        old, new = kind in ("context", "removed"), kind in ("context", "added")
        if not kind or old > self.old_left or new > self.new_left:
            return ""
        self.old_left -= old
        self.new_left -= new
        return kind

    def _enter_hunk(self, match: re.Match[str]) -> None:
        self.in_git_header, self.in_hunk = False, True
        self.old_left, self.new_left = int(match[2] or 1), int(match[4] or 1)

    def _starts_names(self, line: str, following: Sequence[str]) -> bool:
        """`---` heads a file only before `+++`, and without a git line only if a hunk follows."""
        if not (line.startswith("--- ") and following and following[0].startswith("+++ ")):
            return False
        return self.in_git_header or (len(following) > 1 and bool(_HUNK.match(following[1])))


@dataclass(slots=True)
class _HunkDraft:
    counts: tuple[int, int, int, int]
    heading: str
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _FileDraft:
    """One file of a patch while its lines arrive."""

    git: bool
    old: str = ""
    new: str = ""
    hunks: list[_HunkDraft] = field(default_factory=list)
    named: bool = False

    @property
    def expects_names(self) -> bool:
        return self.git and not self.named and not self.hunks

    def take(self, kind: str, line: str) -> None:
        match kind:
            case "git":
                self.old, self.new = _git_names(line.removeprefix("diff --git "))
            case "extended":
                self._take_extended(line.removesuffix("\r"))
            case "old":
                self.old = _name(line[4:])
            case "new":
                self.new, self.named = _name(line[4:]), True
                self.old, self.new = _strip_sides(self.old, self.new)
            case "hunk":
                match_ = _HUNK.match(line)
                assert match_ is not None
                numbers = [int(value or 1) for value in match_.groups()]
                counts = (numbers[0], numbers[1], numbers[2], numbers[3])
                self.hunks.append(_HunkDraft(counts, line[match_.end() :].strip()))
            case "context" | "removed" | "added" | "note":
                self.hunks[-1].lines.append(line)

    def _take_extended(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in ("rename", "copy"):
            side, _, name = rest.partition(" ")
            if side == "from":
                self.old = _unquote(name)
            else:
                self.new = _unquote(name)
        elif line.startswith("new file mode "):
            self.old = DEV_NULL
        elif line.startswith("deleted file mode "):
            self.new = DEV_NULL

    def finished(self) -> FilePatch:
        hunks = (Hunk(*draft.counts, tuple(draft.lines), draft.heading) for draft in self.hunks)
        return FilePatch(self.old, self.new, tuple(hunks))


def _name(field_: str) -> str:
    """Read the name of a `---` or `+++` line, without the date that may follow a tab."""
    field_ = field_.removesuffix("\r")
    quoted = _QUOTED.match(field_)
    return _unquote(quoted[0]) if quoted else field_.split("\t", 1)[0]


def _git_names(rest: str) -> tuple[str, str]:
    """Read both names of a `diff --git` line; unquoted names with spaces must be equal."""
    rest = rest.removesuffix("\r")
    quoted = _QUOTED.match(rest)
    if quoted:
        old, new = quoted[0], rest[quoted.end() + 1 :]
    else:
        half = len(rest) // 2
        old, new = rest[:half], rest[half + 1 :]
        if rest[half : half + 1] != " " or old[1:] != new[1:]:
            old, _, new = rest.partition(" ")
    return _strip_sides(_unquote(old), _unquote(new))


def _strip_sides(old: str, new: str) -> tuple[str, str]:
    """Remove git's one-letter side prefixes where the two sides carry two different ones."""
    sides = [name[:1] if name[1:2] == "/" else "" for name in (old, new)]
    if DEV_NULL in (old, new):
        return _strip_side(old), _strip_side(new)
    if "" in sides or sides[0] == sides[1] or not set(sides) <= set("abciow"):
        return old, new
    return old[2:], new[2:]


def _strip_side(name: str) -> str:
    return name[2:] if name[:2] in ("a/", "b/", "c/", "i/", "o/", "w/") else name


def _unquote(name: str) -> str:
    """Decode git's C-style quoting (octal bytes of UTF-8); other names stay as they are."""
    match = _QUOTED.fullmatch(name)
    if not match:
        return name
    out = bytearray()
    for escape, plain in _ESCAPED.findall(match[1]):
        if plain:
            out += plain.encode("utf-8", "surrogatepass")
        elif escape in _ESCAPES:
            out.append(_ESCAPES[escape])
        else:
            out.append(int(escape, 8) & 0xFF)
    return out.decode("utf-8", "replace")


def _quote(name: str) -> str:
    if not _NEEDS_QUOTES.search(name):
        return name
    letters = {code: letter for letter, code in _ESCAPES.items()}
    return '"' + _NEEDS_QUOTES.sub(lambda m: _escape(ord(m[0]), letters), name) + '"'


def _escape(code: int, letters: dict[int, str]) -> str:
    return f"\\{letters[code]}" if code in letters else f"\\{code:03o}"


_Opcode = tuple[str, int, int, int, int]


def _grouped_changes(a: Sequence[str], b: Sequence[str]) -> Iterator[list[_Opcode]]:
    """Group differing line ranges with their context, comparing only between equal ends."""
    limit = min(len(a), len(b))
    head = next((i for i in range(limit) if a[i] != b[i]), limit)
    tail = next((i for i in range(limit - head) if a[-1 - i] != b[-1 - i]), limit - head)
    start = max(0, head - CONTEXT_LINES)
    keep = max(0, tail - CONTEXT_LINES)
    matcher = difflib.SequenceMatcher(None, a[start : len(a) - keep], b[start : len(b) - keep])
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        moved = [(tag, i + start, j + start, k + start, m + start) for tag, i, j, k, m in group]
        yield _with_context(moved, start, len(a) - keep, keep)


def _with_context(group: list[_Opcode], start: int, stop: int, keep: int) -> list[_Opcode]:
    """Complete the context of a group that reaches the ends of what was compared.

    Among equal lines a change may be found at the very end; git takes a hunk without context after
    it for one at the end of the file.
    """
    (first, i, j, k, _), (last, p, q, _, s) = group[0], group[-1]
    before = min(CONTEXT_LINES - (j - i if first == "equal" else 0), start) if i == start else 0
    after = min(CONTEXT_LINES - (q - p if last == "equal" else 0), keep) if q == stop else 0
    head = [("equal", i - before, i, k - before, k)] if before else []
    tail = [("equal", q, q + after, s, s + after)] if after else []
    return [*head, *group, *tail]


def _format_hunk(a: Sequence[str], b: Sequence[str], group: Sequence[_Opcode]) -> str:
    old, new = _range(group[0][1], group[-1][2]), _range(group[0][3], group[-1][4])
    out = [f"@@ -{old} +{new} @@\n"]
    for tag, i, j, k, m in group:
        if tag == "equal":
            out += [_body_line(" ", line) for line in a[i:j]]
            continue
        out += [_body_line("-", line) for line in a[i:j]]
        out += [_body_line("+", line) for line in b[k:m]]
    return "".join(out)


def _body_line(prefix: str, line: str) -> str:
    return f"{prefix}{line}" if line.endswith("\n") else f"{prefix}{line}\n{NO_NEWLINE}\n"


def _range(start: int, stop: int) -> str:
    """Write a line range as diffs do: an empty one names the line before it."""
    count = stop - start
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"
