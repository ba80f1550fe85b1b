"""What an agent is offered: the tools' names and arguments, and what is wrong with a call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swe_scaffold.terminal import show

REPORT, BASH = "report", "bash"


def _tool(name: str, what: str, required: tuple[str, ...] = (), **arguments: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": what,
            "parameters": {
                "type": "object",
                "properties": arguments,
                "required": list(required),
                "additionalProperties": False,
            },
        },
    }


def _text(what: str) -> dict[str, str]:
    return {"type": "string", "description": what}


def _number(what: str) -> dict[str, str]:
    return {"type": "integer", "description": what}


_ALL = [
    _tool(
        "list_dir",
        "List a folder of the repository.",
        path=_text("Folder, relative to the repository; the repository itself by default."),
        depth=_number("Levels to show, 1 by default, at most 4."),
    ),
    _tool(
        "read_file",
        "Read lines of a text file, numbered.",
        ("path",),
        path=_text("File, relative to the repository."),
        start=_number("First line, 1 by default."),
        lines=_number("How many lines, 200 by default, at most 400."),
    ),
    _tool(
        "grep_search",
        "Search the files of the repository for a text, or a regular expression. Folders such as "
        ".git, node_modules and .venv are searched only where path names them.",
        ("pattern",),
        pattern=_text("What to look for, on one line."),
        path=_text("Folder or file to search; everything by default."),
        glob=_text("Only files whose name or path matches, such as *.py."),
        regex={"type": "boolean", "description": "Whether pattern is a regular expression."},
    ),
    _tool(
        "outline",
        "List the classes and functions of a file, with their lines.",
        ("path",),
        path=_text("File, relative to the repository."),
    ),
    _tool(
        "git_log",
        "List the last commits.",
        path=_text("Only commits that concern this path."),
        limit=_number("How many, 20 by default."),
    ),
    _tool(
        "git_show",
        "Show what a commit changed.",
        ("revision",),
        revision=_text("Name or hash of the commit."),
        path=_text("Only what concerns this path."),
    ),
    _tool(
        REPORT,
        "End the walkthrough with a report. Call it once, when you can explain the repository.",
        ("text",),
        text=_text("The report, in Markdown: what there is, where (file:line), open questions."),
    ),
]
_BASH = _tool(
    BASH,
    "Run a command in a shell. The repository cannot be written, and there is no network.",
    ("command",),
    command=_text("The command."),
)
_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool}


def definitions(*, bash: bool) -> list[dict[str, Any]]:
    """Return the tools in the form of OpenAI's `tools`; a shell among them where it is allowed."""
    return [*_ALL, *([_BASH] if bash else [])]


def problem_of(name: object, arguments: object, *, bash: bool) -> str:
    """Return what is wrong with a call, for whoever made it, or nothing.

    Arguments have the declared types and no others: a list where a text belongs is no text.
    """
    known = {tool["function"]["name"]: tool["function"] for tool in definitions(bash=bash)}
    if not isinstance(name, str) or name not in known:
        return f"there is no tool {show(name, width=60)}; there are {', '.join(known)}"
    if not isinstance(arguments, Mapping):
        return f"{name}: the arguments are no JSON object"
    parameters = known[name]["parameters"]
    for key, value in arguments.items():
        declared = parameters["properties"].get(key)
        if declared is None:
            return f"{name}: there is no argument {show(key, width=60)}"
        wanted = _TYPES[declared["type"]]
        if type(value) is not wanted:
            return f"{name}: {key} is no {declared['type']}"
    missing = [key for key in parameters["required"] if key not in arguments]
    return f"{name}: {missing[0]} is missing" if missing else ""


def in_words(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a call as one line that people read; a command of a shell as it is."""
    if name == BASH:
        return str(arguments["command"])
    given = [
        f"{key}={json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in arguments.items()
    ]
    return " ".join([name, *given])
