"""What a patch would be recognised by: hashes of its hunks that say enough to be nobody else's.

A hunk is known by the lines it adds, wherever they stand, and by all its changes together with the
file they are in. Blank lines, comments, imports, version numbers, licence lines and lone brackets
say nothing; what is left must reach a length, so that common hunks have no fingerprint at all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from swe_scaffold.diffs import Hunk, parse_patch

# Letters and digits that must be left of a hunk; a hunk in a named file needs less.
MIN_ADDED = 60
MIN_IN_FILE = 20
_SILENT = re.compile(
    r"(?:#|//|/\*|\*|--|<!--|;|%|\"\"\"|''')"
    r"|(?:import|from|include|using|package|require|use|export \*|#include|module)\b"
    r"|[\"']?_{0,2}version(?:_info)?_{0,2}[\"']?\s{0,4}[:=]"
    r"|.{0,40}\b(?:licen[cs]ed?|copyright|warrant(?:y|ies)|all rights reserved)\b",
    re.IGNORECASE,
)
_TELLING = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One hash of a hunk, and in words what it is of."""

    digest: str
    what: str


def patch_fingerprints(patch: str) -> Iterator[Fingerprint]:
    """Yield the fingerprints of every hunk that says enough; text that is no diff has none."""
    for file in parse_patch(patch) if "@@ -" in patch else ():
        for hunk in file.hunks:
            yield from _hunk_fingerprints(file.path, hunk)


def short_hash(*parts: str) -> str:
    """Return 16 hex digits of some texts in this order."""
    whole = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(whole, digest_size=8).hexdigest()


def _hunk_fingerprints(path: str, hunk: Hunk) -> Iterator[Fingerprint]:
    changed = [(line[0], " ".join(line[1:].split())) for line in hunk.lines if line[:1] in "+-"]
    telling = [(sign, text) for sign, text in changed if text and not _SILENT.match(text)]
    added = [text for sign, text in telling if sign == "+"]
    if _weight(added) >= MIN_ADDED:
        yield Fingerprint(short_hash("added", *added), "added lines")
    if _weight([text for _, text in telling]) >= MIN_IN_FILE:
        whole = [f"{sign}{text}" for sign, text in telling]
        yield Fingerprint(short_hash("file", path, *whole), f"change to {path}")


def _weight(lines: list[str]) -> int:
    """Letters and digits of the lines that differ from each other."""
    return sum(len(_TELLING.findall(line)) for line in dict.fromkeys(lines))
