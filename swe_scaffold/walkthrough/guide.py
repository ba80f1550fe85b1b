"""A walkthrough without a model: what one would look at first, in order, and why.

Readme, layout, build file, history; then the files, messages and names of the task, searched for
and ranked; outlines and passages of the best; a report that begins with them. The same task and
the same repository give the same calls, at most 39.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from swe_scaffold.errors import ConfigError
from swe_scaffold.walkthrough.chat_model import ChatModel
from swe_scaffold.walkthrough.ranking import (
    Evidence,
    Hit,
    Name,
    files_in,
    messages_in,
    names_in,
)
from swe_scaffold.walkthrough.tools import REPORT

NAME = "scripted-guide-2"
_README = re.compile(r"readme(\.\w+)?", re.IGNORECASE)
_BUILD = ("pyproject.toml", "setup.cfg", "setup.py", "package.json", "Cargo.toml", "go.mod")
_ENTRY = re.compile(r"\[project\.scripts\]|console_scripts|\"bin\"|\[\[bin\]\]|^main", re.MULTILINE)
_CODE = (
    *(".py", ".js", ".ts", ".tsx", ".go", ".rs", ".java", ".rb", ".php", ".c", ".cc", ".cpp", ".h"),
)
# With what comes before and after, this many searches are at most 39 steps.
_MAX_SEARCHES, _MAX_NAMES, _MAX_PATHS, _MAX_MESSAGES = 23, 20, 4, 2
_MAX_FILES, _AROUND = 5, 30
_NAMED, _MESSAGE_WORTH, _MOST_NAMED = 120.0, 6.0, 3

_Step = tuple[str, str, dict[str, Any]]
_Plan = Generator[_Step, str, None]


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
        notes, packages = yield from self._look_around()
        evidence = Evidence()
        paths, messages = files_in(task)[:_MAX_PATHS], messages_in(task)[:_MAX_MESSAGES]
        for path in paths:
            yield from self._find_file(path, packages, evidence)
        for message in messages:
            yield f"Where {message!r} is said.", "grep_search", {"pattern": message}
            evidence.add(message, self._hits())
        names = names_in(task, packages)
        most = min(_MAX_NAMES, _MAX_SEARCHES - len(paths) - len(messages))
        for name in names[:most]:
            yield f"Where {name.text} occurs.", "grep_search", {"pattern": name.text}
            evidence.add(name.text, self._hits())
        said = [Name(message, _MESSAGE_WORTH) for message in messages]
        ranked = evidence.rank([*names, *said], task)
        for hit in ranked[:_MAX_FILES]:
            if hit.path.endswith(_CODE):
                yield f"What {hit.path} is made of.", "outline", {"path": hit.path}
            passage = {
                "path": hit.path,
                "start": max(1, hit.line - _AROUND // 3),
                "lines": 2 * _AROUND,
            }
            yield f"The passage around line {hit.line}.", "read_file", passage
        yield "That is what there is to see.", REPORT, {"text": _report(notes, ranked)}

    def _look_around(self) -> Generator[_Step, str, tuple[list[str], list[str]]]:
        """Look at the repository as a whole; return lines for the report, and its packages."""
        top = yield "First the layout.", "list_dir", {"path": "."}
        entries = top.split("\n")
        files = [line.split("  (")[0] for line in entries if not line.endswith("/")]
        folders = [line for line in entries if line.endswith("/")]
        notes = [f"Top level: {', '.join([*folders, *files][:20])}"]
        if "src/" in folders:
            inner = yield "What is below src.", "list_dir", {"path": "src"}
            folders += [line for line in inner.split("\n") if line.endswith("/")]
        if readme := next((name for name in files if _README.fullmatch(name)), ""):
            text = yield "What it says of itself.", "read_file", {"path": readme, "lines": 60}
            notes.append(f"{readme}: {_first_words(text)}")
        if build := next((name for name in _BUILD if name in files), ""):
            text = yield "How it is built, and where it starts.", "read_file", {"path": build}
            if found := _ENTRY.search(text):
                line = text[: found.start() + 1].rsplit("\n", 1)[-1].split("\t")[0].strip()
                notes.append(f"Entry points: {build}, line {line or 1}")
        if ".git/" in folders:
            yield "What was done last.", "git_log", {"limit": 10}
        return notes, [folder.rstrip("/") for folder in folders if folder[0] != "."]

    def _hits(self) -> list[tuple[str, list[int], list[int]]]:
        return [
            (str(path), list(lines), list(defined))
            for path, lines, defined in self._seen[0].get("hits", [])
        ]

    def _find_file(self, path: str, packages: Sequence[str], evidence: Evidence) -> _Plan:
        """Find a file that the task names, perhaps where somebody has it installed."""
        parts = path.split("/")
        # From the package on, as in the repository; else by its name alone.
        known = [place for place, part in enumerate(parts[:-1]) if part in packages]
        glob = "*" + "/".join(parts[known[-1] :]) if known else parts[-1]
        pattern = {"pattern": ".", "regex": True, "glob": glob}
        yield f"The task names {path}.", "grep_search", pattern
        hits = [path for path, _, _ in self._hits()]
        for hit in hits[:_MOST_NAMED]:
            evidence.named[hit] = _NAMED / len(hits)


def _first_words(text: str) -> str:
    """Return the beginning of a numbered text, markup aside."""
    lines = [line.split("\t", 1)[-1].strip() for line in text.split("\n")[1:]]
    words = " ".join(line for line in lines if line and not re.match(r"[#=*<!\[.~-]", line)).split()
    return " ".join(words[:40])


def _report(notes: Sequence[str], ranked: Sequence[Hit]) -> str:
    # Only the ranking names files with lines: it is what the report answers.
    lines = ["# Walkthrough", "", "## Where to look", ""]
    lines += [
        f"{number}. `{hit.path}:{hit.line}` has {', '.join(hit.names[:5])} ({hit.score:.1f})"
        for number, hit in enumerate(ranked[:10], 1)
    ] or ["Nothing that the task names was found."]
    lines += ["", "## The repository", "", *(f"- {note}" for note in notes)]
    lines += ["", "## Open", "", "Ranked by names alone; nobody has understood the code.", ""]
    return "\n".join(lines)
