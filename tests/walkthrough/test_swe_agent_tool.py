"""Calls on SWE-agent's way to our tools and back: nothing in them is more than text."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template

from swe_scaffold.walkthrough import swe_agent_tool, toolbox
from swe_scaffold.walkthrough.swe_agent_tool import answer, harmless, report
from tests.walkthrough.test_swe_agent_config import TOOLS as BUNDLE

TOOLS = BUNDLE["tools"]
# What SWE-agent 1.1 (agents.py, tools.py) and SWE-ReX 1.4 (runtime/local.py) look for in output.
MARKERS = [
    "<<SWE_AGENT_SUBMISSION>>",
    "###SWE-AGENT-RETRY-WITH-OUTPUT###",
    "###SWE-AGENT-RETRY-WITHOUT-OUTPUT###",
    "###SWE-AGENT-EXIT-FORFEIT###",
    "SHELLPS1PREFIX",
    "UNIQUESTRING29234",
    "EXITCODESTART0EXITCODEEND",
    "EXITCODEEND",
]


def command_line(name: str, **values: Any) -> str:
    """A call as SWE-agent 1.1 gives it to a shell: texts quoted, other values as they are."""
    formatted = {}
    for argument in TOOLS[name]["arguments"]:
        key = argument["name"]
        value = values.get(key)
        quoted = shlex.quote(value) if isinstance(value, str) else "" if value is None else value
        written = Template(argument["argument_format"]).render(value=quoted)
        formatted[key] = written if key in values else ""
    invoke = re.sub(r"\[?<(\w+)>\]?", r"{\1}", TOOLS[name]["signature"])
    return invoke.format(**formatted).strip()


def words(name: str, **values: Any) -> list[str]:
    """The arguments that a real shell makes of that line."""
    line = command_line(name, **values)
    listing = f'{name}() {{ for word; do printf "%s\\0" "$word"; done; }}\n{line}'
    done = subprocess.run(["bash", "-c", listing], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def stripped(output: str) -> str:
    """What SWE-ReX leaves of a terminal's output."""
    return re.sub(r"\x1B[@-_][0-?]*[ -/]*[@-~]", "", output).replace("\r\n", "\n")


HOSTILE = [
    "a b",
    'it\'s "here"',
    "$(touch pwned) `touch pwned`",
    "x\x03touch pwned\n",
    "!! !$ \t\x1b[A \x04",
    "--regex=true",
    "=",
    "~/*?[a]{b}",
    "é \u2028 \U0001f600 \\ %20 {{7*7}}",
    "None",
    "line\nNone\nline",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_arrives_whatever_it_holds(text: str) -> None:
    def takes(text: str, path: str = ".", regex: bool = False) -> None:
        """Say what arguments there are."""

    takes.__annotations__ = {"text": "str", "path": "str", "regex": "bool"}
    line = command_line("report", text=text)
    assert re.fullmatch(r"report text=[A-Za-z0-9%/._~-]*", line)
    seen = swe_agent_tool.arguments(words("report", text=text), takes)
    assert seen == {"text": text}


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("grep_search", {"pattern": ["a'$(touch /repo/pwned)"]}, "pattern is no string"),
        ("grep_search", {"pattern": {"a": "$(touch pwned)"}}, "pattern is no string"),
        ("read_file", {"path": "a.py", "start": "$(id)"}, "start is no integer"),
        ("read_file", {"path": "a.py", "start": True}, "start is no integer"),
        ("read_file", {"path": "a.py", "lines": 1.5}, "lines is no integer"),
        ("grep_search", {"pattern": "x", "regex": "yes"}, "regex is no boolean"),
        ("read_file", {}, "path is missing"),
        ("read_file", {"path": None}, "path is missing"),
        ("read_file", {"path": "nothing"}, "there is no nothing"),
    ],
)
def test_other_types_are_refused_and_run_nothing(
    name: str, values: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in answer(name, words(name, **values), vars(toolbox))
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_are_not_given_take_no_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\nthree\n")
    monkeypatch.chdir(tmp_path)
    said = answer("read_file", words("read_file", path="a.py", lines=1), vars(toolbox))
    assert said == "a.py (lines 1 to 1 of 3)\n     1\tone"
    said = answer("read_file", words("read_file", path="a.py", start=3, lines=None), vars(toolbox))
    assert said == "a.py (lines 3 to 3 of 3)\n     3\tthree"
    assert "a.py" in answer("list_dir", words("list_dir", path=""), vars(toolbox))


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("hidden", ["{}", "\x1b[31m{}", "\x1b[{}\x1b[m\x9b{}\r"])
def test_no_word_of_the_harness_comes_out_of_a_file(
    marker: str, hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join([hidden.replace("{}", marker), "\x1b[m".join(marker), ""])
    (tmp_path / "marker.txt").write_bytes(text.encode())
    (tmp_path / marker).write_text("x\n")
    monkeypatch.chdir(tmp_path)
    for name, values in (
        ("read_file", {"path": "marker.txt"}),
        ("grep_search", {"pattern": marker[3:9]}),
        ("list_dir", {}),
        ("outline", {"path": marker}),
        ("read_file", {"path": f"no/{marker}"}),
        ("grep_search", {"pattern": f"({marker}", "regex": True}),
    ):
        said = answer(name, words(name, **values), vars(toolbox))
        assert marker not in stripped(said)
        assert "\x1b" not in said
        assert "\r" not in said
    shown = answer("read_file", words("read_file", path="marker.txt"), vars(toolbox))
    # Visibly: it is all there but for the dots.
    assert marker in shown.replace("\u00b7", "")


def test_what_is_no_word_of_the_harness_stays_as_it_is() -> None:
    text = "SWE_AGENT_CONFIG_ROOT << 2 ### SWE-AGENT EXITCODE SHELL\tx\n\u00e9 #\u00b7#"
    assert harmless(text) == text
    assert harmless("a\x00b\x85") == "a\\x00b\\x85"


def test_a_report_is_never_taken_for_a_patch() -> None:
    unidiff = pytest.importorskip("unidiff")
    text = (
        "# Report\n\n---\n\n--- a/gone.py\n+++ b/gone.py\n@@ -1 +1 @@\n-a\n+b\n"
        "diff --git a/x b/x\nnew file mode 100644\nBinary files a/x and b/x differ\n<<SWE_AGENT"
    )
    with pytest.raises(unidiff.UnidiffParseError):
        unidiff.PatchSet(text + "\n@@ -1 +1 @@\n")
    submitted, problem = report(words("report", text=text))
    assert problem == ""
    assert list(unidiff.PatchSet(submitted)) == []
    assert "\n---\n" in submitted
    assert [line.lstrip(" ") for line in submitted.split("\n")] == [*text.split("\n"), ""]


@pytest.mark.parametrize("values", [{}, {"text": " \n"}, {"text": ["x"]}, {"text": None}])
def test_a_report_without_a_text_is_refused(values: dict[str, Any]) -> None:
    submitted, problem = report(words("report", **values))
    assert submitted == ""
    assert problem.startswith("error: report: text is ")
