"""The head of one file's part of a diff: does git take its names and modes together.

Names in quotes can be spelled in several ways; whether two of them agree is left to git. What the
hunks below say is left to `reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GIT, OLD, NEW = "diff --git ", "--- ", "+++ "
METADATA = (
    *("old mode ", "new mode ", "new file mode ", "deleted file mode "),
    *("rename from ", "rename to ", "copy from ", "copy to "),
)
EXTENDED = (*METADATA, "index ", "similarity index ", "dissimilarity index ")

_MISSING = re.compile(r"/dev/null(?:[\t\r]|$)")
_MODE = "100644"
_NO_SIDE = "a name without its side"
_EXCLUSIVE = ("new file", "deleted file", "rename", "copy")


@dataclass(frozen=True, slots=True)
class Head:
    """The lines above the hunks of a file.

    Attributes:
        git: What follows `diff --git`; None in a diff without such lines.
        extended: The lines below it.
        names: What follows `---` and `+++`; None without them.
    """

    git: str | None
    extended: Sequence[str]
    names: tuple[str, str] | None

    @property
    def missing(self) -> tuple[bool, bool]:
        """Whether the file is missing before, and after."""
        if self.names is None:
            return False, False
        old, new = (_MISSING.match(name) is not None for name in self.names)
        return old, new

    def missing_modes(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the line of each mode that only `/dev/null` stands for."""
        if self.git is None:
            return
        for kind, missing in zip(("new", "deleted"), self.missing, strict=True):
            if missing and not self._said(f"{kind} file mode "):
                yield f"{kind}_file_mode", f"{kind} file mode {_MODE}"

    def fault(self) -> str:
        """Return why git would not take the lines together; empty where it would."""
        if all(self.missing):
            return "a file that is on neither side"
        if self.git is None:
            # Of a file that is made, git guesses that the name has no side; not of one deleted.
            sideless = self.names is not None and not _plain(self.names[0])
            return _NO_SIDE if sideless and self.missing[1] else ""
        said = [kind for kind in _EXCLUSIVE if self._said(f"{kind} ")]
        if any(self.missing):
            said.append("new file" if self.missing[0] else "deleted file")
        if len(set(said)) > 1:
            return "a file with more than one fate"
        return self._names_fault(self.git)

    def _said(self, words: str) -> str:
        """Return what follows some words at the start of a line, the last time they are said."""
        found = [line[len(words) :] for line in self.extended if line.startswith(words)]
        return found[-1].rstrip("\r") if found else ""

    def _names_fault(self, git: str) -> str:
        both = _common_name(git)
        sides = ("from ", "to ")
        moved = [self._said(f"rename {side}") or self._said(f"copy {side}") for side in sides]
        if any(moved) and not all(moved):
            return "a file that is moved without both names"
        if self.names is None:
            return "" if both or all(moved) else "a file without a name"
        made, gone = self._said("new file "), self._said("deleted file ")
        if (made and not self.missing[0]) or (gone and not self.missing[1]):
            return "a file that is missing has a name"
        # Where neither name has a side, git takes the common one.
        if not any(self.missing) and not any("/" in name for name in self.names):
            return "" if both else _NO_SIDE
        for name, missing, other in zip(self.names, self.missing, moved, strict=True):
            expected = other or (both if any(self.missing) else "")
            if fault := _name_fault(name, expected, missing=missing):
                return fault
        return ""


def _name_fault(name: str, expected: str, *, missing: bool) -> str:
    if missing or name.startswith('"') or expected.startswith('"'):
        return ""
    plain = _plain(name)
    if not plain:
        return _NO_SIDE
    return "a file with two names" if expected and expected != plain else ""


def _plain(name: str) -> str:
    """Return a name without its side and the date after it; nothing for `/dev/null`."""
    if _MISSING.match(name):
        return ""
    return _without_side(name.split("\t", 1)[0].rstrip("\r"))


def _without_side(name: str) -> str:
    return name.partition("/")[2]


def _common_name(git: str) -> str:
    """Return the name that both sides of a `diff --git` line share; empty without one."""
    git = git.rstrip("\r")
    if git.startswith('"'):
        return git
    half = len(git) // 2
    old, new = _without_side(git[:half]), _without_side(git[half + 1 :])
    return old if git[half : half + 1] == " " and old == new else ""
