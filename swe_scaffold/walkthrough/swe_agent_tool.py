"""One call of a tool under SWE-agent 1.1: what the scripts of our bundle run.

    python -I -S swe_agent_tool.py NAME ARGUMENT=VALUE...

It runs in the sandbox, beside `toolbox.py`, which is the tools. SWE-agent makes a command line for
a shell and quotes texts only; so the bundle has each value written as JSON and percent-encoded, and
nothing of it means anything to a shell or a terminal.

SWE-agent and SWE-ReX take some words in a tool's output for their own: they end a session, ask the
model again, or mark where output ends. What files hold never says them: a middle dot is put into
each. Escape sequences, which SWE-ReX removes, are spelt out: such a word could be hidden in them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

REPOSITORY = "/repo"
SUBMISSION = Path("/root/model.patch")
SUBMITTED = "<<SWE_AGENT_SUBMISSION>>"
REPORT = "report"
# What the bundle writes for a text that no command line holds.
TOO_LONG = "too-long"
_WORDS = re.compile(
    r"(?<=<<)(?=SWE_AGENT)|(?<=###)(?=SWE-AGENT)"
    r"|(?<=SHELLPS1)(?=PREFIX)|(?<=UNIQUESTRING)(?=\d)|(?<=EXITCODE)(?=START|END)"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# With such lines SWE-agent would take a report for a patch, and look for the files it names.
_PATCH = re.compile(
    r"^(?=(?:---|\+\+\+|\*\*\*|@@|diff --git|GIT binary|Binary files?) "
    r"|(?:new|deleted) file mode|rename (?:from|to) )",
    re.MULTILINE,
)

Toolbox = Mapping[str, Any]


def answer(name: str, words: Sequence[str], toolbox: Toolbox) -> str:
    """Return what a tool says, harmless to whoever reads it for more than text.

    Args:
        name: The tool, any but `report`.
        words: ARGUMENT=VALUE, as the bundle has them written.
        toolbox: The names of the program `toolbox.py`.
    """
    try:
        given = arguments(words, toolbox["TOOLS"][name])
    except ValueError as error:
        return f"error: {name}: {harmless(str(error))}"
    return harmless(str(toolbox["call"](name, given)["text"]))


def report(words: Sequence[str]) -> tuple[str, str]:
    """Return a report as it is submitted, and what is wrong with it where nothing is."""

    def takes(text: str) -> None:
        """Say what arguments there are."""

    try:
        text = str(arguments(words, takes)["text"])
    except ValueError as error:
        return "", f"error: {REPORT}: {harmless(str(error))}"
    if not text.strip():
        return "", f"error: {REPORT}: text is empty"
    return _PATCH.sub(" ", text.rstrip()) + "\n", ""


def arguments(words: Sequence[str], function: Callable[..., object]) -> dict[str, Any]:
    """Return the arguments of a call; they have the declared types and no others.

    Raises:
        ValueError: One is unknown, missing or of another type.
    """
    known = inspect.signature(function).parameters
    given = {}
    for word in words:
        key, _, written = word.partition("=")
        if key not in known:
            raise ValueError(f"there is no argument {key}")
        value = _value(written)
        if value is None or (value == "" and known[key].default is not inspect.Parameter.empty):
            continue
        if type(value).__name__ != known[key].annotation:
            raise ValueError(f"{key} is no {_TYPES[known[key].annotation]}")
        given[key] = value
    for key, parameter in known.items():
        if key not in given and parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{key} is missing")
    return given


_TYPES = {"str": "string", "int": "integer", "bool": "boolean"}


def _value(written: str) -> object:
    """Return what a value was before the bundle wrote it, and SWE-agent quoted it if a text.

    Raises:
        ValueError: The bundle left it out, or it is none of its making.
    """
    if written == TOO_LONG:
        raise ValueError("the text is too long: say less")
    value = json.loads(unquote(written))
    if not isinstance(value, str):
        return value
    quoted = shlex.split(value)
    return quoted[0] if quoted else None


def harmless(text: str) -> str:
    """Return a text without words that SWE-agent and SWE-ReX act on, and without escapes."""
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return _WORDS.sub("\u00b7", shown)


def main() -> None:
    """Answer the call that the command line is."""
    name, *words = sys.argv[1:]
    os.chdir(REPOSITORY)
    if name == REPORT:
        text, said = report(words)
        if text:
            SUBMISSION.write_text(text, "utf-8", "backslashreplace")
            said = SUBMITTED
    else:
        said = answer(name, words, runpy.run_path(str(Path(__file__).with_name("toolbox.py"))))
    sys.stdout.buffer.write(said.encode("utf-8", "backslashreplace") + b"\n")


if __name__ == "__main__":
    main()
