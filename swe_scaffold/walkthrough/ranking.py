"""What to search for in a task's words, and which of the files found it is likely about.

A file where a name of the task is defined counts most, then one that is called as the task says;
names in few files count more than names in many. Only names are compared: nobody understands code.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from swe_scaffold.changed_paths import kind_of

MAX_NAME = 60
# Words of any issue, which lead nowhere; names that Python itself has are known elsewhere.
_COMMON = frozenset(
    (
        *("about", "actual", "actually", "after", "also", "another", "because", "been", "before"),
        *("behavior", "behaviour", "being", "below", "between", "both", "cannot", "change"),
        *("code", "correct", "could", "current", "currently", "does", "during", "error"),
        *("example", "expected", "fails", "file", "first", "following", "found", "from", "have"),
        *("https", "however", "incorrect", "instead", "into", "issue", "just", "know", "like"),
        *("line", "lines", "make", "many", "method", "module", "more", "most", "needs", "only"),
        *("other", "output", "possible", "problem", "python", "reproduce", "result", "results"),
        *("return", "returns", "same", "seems", "self", "should", "since", "some", "something"),
        *("still", "test", "tests", "than", "that", "their", "there", "these", "they", "thing"),
        *("think", "this", "those", "traceback", "using", "value", "values", "version", "want"),
        *("what", "when", "where", "whether", "which", "while", "will", "with", "without", "work"),
        *("working", "works", "would", "wrong", "your", "description", "recent", "call", "last"),
        *("each", "every", "here", "might", "must", "over", "such", "them", "then", "under"),
        "very",
    )
)
_KNOWN = frozenset((*dir(builtins), *keyword.kwlist, "__init__", "__main__", "__name__"))
_URL = re.compile(r"\w+://\S+")
_FILE = re.compile(
    r"[\w.@+-]*(?:/[\w.@+-]+)+\.\w{1,4}\b|\b\w[\w-]*\.(?:py|pyx|js|ts|go|rs|java|rb|c|h|cpp|php)\b"
)
# What is raised says something that stands in the code, up to the first thing that was filled in.
_MESSAGE = re.compile(r"^\W*(?:[\w.]*(?:Error|Exception|Warning)): (.+)$", re.MULTILINE)
_FILLED_IN = re.compile(r"[^A-Za-z ,.;-]|(?<=\s)[A-Z]\w*")
_SHAPES = (
    (re.compile(r"`{1,2}([A-Za-z_]\w{2,})(?:\(\))?`{1,2}"), 5.0),
    (re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"), 4.0),
    (re.compile(r"\b[A-Z][a-z0-9]*(?:[A-Z][A-Za-z0-9]*)+\b"), 4.0),
    (re.compile(r"\b_*[A-Za-z]\w*_\w+\b"), 4.0),
    (re.compile(r"\b[A-Za-z_]\w{2,}(?=\()"), 3.0),
    (re.compile(r"\b[A-Za-z]{4,}\b"), 1.0),
)
_TITLE = 2.0
_DEFINED, _ASIDE, _PACKAGE = 2.0, 0.15, 0.6
_STEM, _PART, _FOLDER = 20.0, 1.0, 0.7
_AGAIN = 0.5
_SAMPLES = re.compile(r"(^|/)(examples?|samples?|galleries|benchmarks?|[^/]*\.egg-info)/")


class Name(NamedTuple):
    """A name or word of a task, and how telling it is."""

    text: str
    worth: float


class Hit(NamedTuple):
    """A file that names were found in, best first by `score`; `line` is where to begin."""

    path: str
    score: float
    line: int
    names: tuple[str, ...]


def files_in(task: str) -> list[str]:
    """Return the paths and file names that a task names, the last of a traceback first."""
    found = [path.lstrip("./") for path in _FILE.findall(_URL.sub(" ", task))]
    return list(dict.fromkeys(reversed(found)))


def messages_in(task: str) -> list[str]:
    """Return the fixed part of each message that was raised, if it is long enough to be found."""
    found = []
    for said in _MESSAGE.findall(task):
        parts = [part.strip(" ,.;-") for part in _FILLED_IN.split(said)]
        longest = max(parts, key=len, default="")
        if longest.count(" ") >= 2:
            found.append(longest[:MAX_NAME].strip())
    return list(dict.fromkeys(found))


def names_in(task: str, known: Iterable[str] = ()) -> list[Name]:
    """Return what to search for, the most telling first: quoted code, names, words.

    Args:
        task: The task's text, its first line the title.
        known: Names that say nothing here, such as the package's own.
    """
    text = _FILE.sub(" ", _URL.sub(" ", task))
    title = text.strip().split("\n", 1)[0]
    nothing = {*_COMMON, *(name.lower() for name in known)}
    worth: dict[str, float] = {}
    for shape, value in _SHAPES:
        for found in shape.findall(text):
            # Of a dotted name the last part is what is defined somewhere, the one before is whose.
            for place, part in enumerate(reversed(found.split(".")[-2:])):
                if len(part) >= 3 and part not in _KNOWN and part.lower() not in nothing:
                    worth[part] = max(worth.get(part, 0.0), value - place)
    words = set(re.findall(r"\w+", title))
    order = {name: text.find(name) for name in worth}
    names = [
        Name(name, value * (_TITLE if name in words else 1.0))
        for name, value in worth.items()
        if len(name) <= MAX_NAME
    ]
    return sorted(names, key=lambda name: (-name.worth, order[name.text], name.text))


class Evidence:
    """What searching has shown, file by file."""

    def __init__(self) -> None:
        self.used: dict[str, dict[str, list[int]]] = defaultdict(dict)
        self.defined: dict[str, dict[str, int]] = defaultdict(dict)
        self.named: dict[str, float] = {}

    def add(self, name: str, hits: Iterable[tuple[str, list[int], list[int]]]) -> None:
        """Note the lines of files that a name was found in, and those that define it."""
        for path, lines, defined in hits:
            self.used[path][name] = lines
            if defined:
                self.defined[path][name] = defined[0]

    def rank(self, names: Sequence[Name], task: str) -> list[Hit]:
        """Return the files in the order in which to look at them."""
        worth = dict(names)
        spread: dict[str, int] = defaultdict(int)
        homes: dict[str, int] = defaultdict(int)
        for uses in self.used.values():
            for name in uses:
                spread[name] += 1
        for places in self.defined.values():
            for name in places:
                homes[name] += 1
        total = len(self.used)
        words = _words(task)
        hits = []
        for path in {*self.used, *self.defined, *self.named}:
            uses, places = self.used.get(path, {}), self.defined.get(path, {})
            score = self.named.get(path, 0.0)
            for name, lines in uses.items():
                rare = math.log(1 + total / spread[name])
                score += worth.get(name, 1.0) * rare * (1 + _AGAIN * math.log(len(lines)))
            for name in places:
                score += (
                    _DEFINED
                    * worth.get(name, 1.0)
                    * math.log(1 + total / homes[name])
                    / math.sqrt(homes[name])
                )
            score += _of_path(path, words)
            score *= _place(path)
            telling = sorted(
                {*uses, *places},
                key=lambda name: (name not in places, -worth.get(name, 1.0), spread[name], name),
            )
            first = telling[0] if telling else ""
            line = places.get(first) or (uses[first][0] if first in uses else 1)
            hits.append(Hit(path, score, line, tuple(telling)))
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))


def _words(task: str) -> dict[str, float]:
    """Return the words of a task, those of its title as worth more."""
    text = _URL.sub(" ", task)
    title = text.strip().split("\n", 1)[0]
    found = {word.lower(): 1.0 for word in re.findall(r"[A-Za-z]{3,}", text)}
    found |= {word.lower(): _TITLE for word in re.findall(r"[A-Za-z]{3,}", title)}
    return {word: value for word, value in found.items() if word not in _COMMON}


def _of_path(path: str, words: Mapping[str, float]) -> float:
    """Return what it is worth that words of the task are in a path."""
    parts = PurePosixPath(path)
    stem = parts.stem.lower().strip("_")
    score = _STEM * words.get(stem, 0.0)
    score += sum(_PART * words.get(part, 0.0) for part in stem.split("_") if part != stem)
    return score + sum(_FOLDER * words.get(part.lower(), 0.0) for part in parts.parts[1:-1])


def _place(path: str) -> float:
    """Return how much a path counts: tests, documents and what is not ours come after code."""
    if kind_of(path) != "code" or _SAMPLES.search(path):
        return _ASIDE
    return _PACKAGE if path.endswith("/__init__.py") else 1.0
