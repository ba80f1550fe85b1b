"""A walkthrough without a model: what one would look at first, in order, and why.

Readme, layout, build file, history; then the files and names that the task mentions, searched for
and ranked; outlines and passages of the best; a report of what was seen. The same task and the
same repository give the same calls.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from swe_scaffold.errors import ConfigError
from swe_scaffold.walkthrough.chat_model import ChatModel
from swe_scaffold.walkthrough.tools import REPORT

NAME = "scripted-guide-1"
_README = re.compile(r"readme(\.\w+)?", re.IGNORECASE)
_BUILD = ("pyproject.toml", "setup.cfg", "setup.py", "package.json", "Cargo.toml", "go.mod")
_ENTRY = re.compile(r"\[project\.scripts\]|console_scripts|\"bin\"|\[\[bin\]\]|^main", re.MULTILINE)
# Words of any issue about Python, which lead nowhere.
_COMMON = frozenset(
    {
        *(
            "where",
            "which",
            "what",
            "there",
            "their",
            "these",
            "those",
            "about",
            "because",
            "after",
        ),
        *("the", "and", "for", "with", "that", "this", "from", "when", "are", "not", "you"),
        *("should", "have", "has", "but", "into", "error", "none", "true", "false", "self"),
        *("def", "class", "return", "import", "python", "version", "example", "expected"),
        *("actual", "behavior", "behaviour", "using", "used", "use", "code", "file", "line"),
        *("test", "tests", "issue", "description", "steps", "reproduce", "traceback", "most"),
        *("recent", "call", "last", "module", "print", "value", "object", "type", "int"),
        *("str", "list", "dict"),
    }
)
_SHAPES = (
    (re.compile(r"[\w./-]+\.(?:py|js|ts|tsx|go|rs|java|c|h|cc|cpp|rb|php|toml|cfg|md)\b"), 8.0),
    (re.compile(r"`{1,2}([^`\n]{3,60})`{1,2}"), 5.0),
    (re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"), 4.0),
    (re.compile(r"\b[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+\b"), 4.0),
    (re.compile(r"\b[A-Za-z]\w*_\w+\b"), 4.0),
    (re.compile(r"\b\w{3,}(?=\()"), 3.0),
    (re.compile(r"\b[A-Za-z]{5,}\b"), 1.0),
)
_OUT_OF_WAY = re.compile(
    r"(^|/)(tests?|docs?|examples?|benchmarks?|vendor|third_party)(/|$)|(^|/)(test_[^/]*|[^/]*_test\.\w+)$"
    r"|\.(md|rst|txt|json|lock|po|html|css|csv|svg|ya?ml)$"
)
_CODE = (
    *(".py", ".js", ".ts", ".tsx", ".go", ".rs", ".java", ".rb", ".php", ".c", ".cc", ".cpp", ".h"),
)
_MAX_NAMES, _MAX_FILES, _AROUND = 14, 5, 30

_Step = tuple[str, str, dict[str, Any]]
_Plan = Generator[_Step, str, None]


class Hit(NamedTuple):
    """A file that names were found in, best first by `score`."""

    path: str
    score: float
    lines: tuple[int, ...]
    names: tuple[str, ...]


def names_in(task: str) -> list[tuple[str, float]]:
    """Return what to search for, the most telling first: files, quoted code, names, long words."""
    weight: dict[str, float] = {}
    for shape, worth in _SHAPES:
        for found in shape.findall(task):
            parts = {found} if "/" in found else {found, found.rsplit(".", 1)[-1]}
            for part in parts:
                name = part.strip("()[]{}:;,'\"`. ")
                if 3 <= len(name) <= 60 and name.lower() not in _COMMON and "\n" not in name:
                    weight[name] = max(weight.get(name, 0.0), worth)
    order = {name: task.find(name) for name in weight}
    return sorted(weight.items(), key=lambda item: (-item[1], order[item[0]], item[0]))


class ScriptedGuide(ChatModel):
    """The default guide: needs no model, no network and no time.

    Args:
        model_name: mini-swe-agent names every model; this one has one name.

    Raises:
        ConfigError: Another name.
    """

    def __init__(self, model_name: str = NAME) -> None:
        super().__init__(NAME)
        if model_name != NAME:
            raise ConfigError(f"the scripted guide is {NAME}", where="model.model_name")
        self._plan: _Plan | None = None
        self._seen: list[Mapping[str, Any]] = []
        self.ranked: list[Hit] = []

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the next step of the plan."""
        if self._plan is None:
            task = next(str(m["content"]) for m in messages if m["role"] == "user")
            inner = re.search(r"<task>\n?(.*?)\n?</task>", task, re.DOTALL)
            self._plan = self._steps(inner[1] if inner else task)
            thought, name, arguments = next(self._plan)
        else:
            thought, name, arguments = self._plan.send(str(messages[-1]["content"]))
        return {
            "content": thought,
            "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
        }

    def format_observation_messages(
        self,
        message: Mapping[str, Any],
        outputs: Sequence[Mapping[str, Any]],
        template_vars: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the observations, and keep what they are made of for the plan."""
        self._seen = list(outputs)
        return super().format_observation_messages(message, outputs, template_vars)

    def _steps(self, task: str) -> _Plan:
        notes = yield from self._look_around()
        found_at: dict[str, dict[str, list[int]]] = defaultdict(dict)
        wanted = names_in(task)
        for name, _ in wanted[:_MAX_NAMES]:
            yield from self._search(name, found_at)
        self.ranked = rank(found_at, dict(wanted))
        for hit in self.ranked[:_MAX_FILES]:
            if hit.path.endswith(_CODE):
                yield f"What {hit.path} is made of.", "outline", {"path": hit.path}
            first = max(1, hit.lines[0] - _AROUND // 3)
            passage = {"path": hit.path, "start": first, "lines": 2 * _AROUND}
            yield f"The passage around line {hit.lines[0]}.", "read_file", passage
        yield "That is what there is to see.", REPORT, {"text": _report(task, notes, self.ranked)}

    def _look_around(self) -> Generator[_Step, str, list[str]]:
        """Look at the repository as a whole; return what is worth a line of the report."""
        top = yield "First the layout.", "list_dir", {"path": "."}
        entries = top.split("\n")
        files = [line.split("  (")[0] for line in entries if not line.endswith("/")]
        folders = [line for line in entries if line.endswith("/")]
        notes = [f"Top level: {', '.join([*folders, *files][:20])}"]
        if readme := next((name for name in files if _README.fullmatch(name)), ""):
            text = yield "What it says of itself.", "read_file", {"path": readme, "lines": 60}
            notes.append(f"{readme}: {_first_words(text)}")
        if build := next((name for name in _BUILD if name in files), ""):
            text = yield "How it is built, and where it starts.", "read_file", {"path": build}
            if found := _ENTRY.search(text):
                line = text[: found.start() + 1].rsplit("\n", 1)[-1].split("\t")[0].strip()
                notes.append(f"Entry points: {build}:{line or 1}")
        if ".git/" in folders:
            yield "What was done last.", "git_log", {"limit": 10}
        return notes

    def _search(self, name: str, found_at: dict[str, dict[str, list[int]]]) -> _Plan:
        if "/" in name and name.endswith(_CODE):
            yield f"The task names {name}.", "outline", {"path": name.lstrip("./")}
            if self._seen and self._seen[0]["returncode"] == 0:
                found_at[str(self._seen[0]["extra"]["path"])][name] = [1]
                return
        yield f"Where {name} occurs.", "grep_search", {"pattern": name}
        for path, lines in self._seen[0].get("hits", []):
            found_at[path][name] = lines


def rank(
    found_at: Mapping[str, Mapping[str, Sequence[int]]], weights: Mapping[str, float]
) -> list[Hit]:
    """Rank files by the names found in them: rare names count more, tests and documents less."""
    spread: dict[str, int] = defaultdict(int)
    for names in found_at.values():
        for name in names:
            spread[name] += 1
    total = max(1, len(found_at))
    hits = []
    for path, names in found_at.items():
        score = sum(
            weights.get(name, 1.0) * math.log(1 + total / spread[name]) * (1 + math.log(len(lines)))
            for name, lines in names.items()
        )
        if _OUT_OF_WAY.search(path):
            score *= 0.3
        telling = sorted(names, key=lambda name: (spread[name], -weights.get(name, 1.0), name))
        hits.append(Hit(path, score, tuple(names[telling[0]]), tuple(telling)))
    return sorted(hits, key=lambda hit: (-hit.score, hit.path))


def _first_words(text: str) -> str:
    """Return the beginning of a numbered text, markup aside."""
    lines = [line.split("\t", 1)[-1].strip() for line in text.split("\n")[1:]]
    words = " ".join(line for line in lines if line and not re.match(r"[#=*<!\[.~-]", line)).split()
    return " ".join(words[:40])


def _report(task: str, notes: Sequence[str], ranked: Sequence[Hit]) -> str:
    subject = " ".join(task.split())[:200] or "the repository"
    lines = ["# Walkthrough", "", f"Task: {subject}", "", "## The repository", ""]
    lines += [f"- {note}" for note in notes]
    lines += ["", "## Where to look", ""]
    lines += [
        f"{number}. `{hit.path}:{hit.lines[0]}` has {', '.join(hit.names[:5])} ({hit.score:.1f})"
        for number, hit in enumerate(ranked[:10], 1)
    ] or ["Nothing that the task names was found."]
    lines += ["", "## Open", "", "Ranked by names alone; nobody has understood the code.", ""]
    return "\n".join(lines)
