"""What the scripted guide searches for, and which files it puts first."""

from __future__ import annotations

from pathlib import Path

import pytest

from swe_scaffold.walkthrough import Subject, explore, toolbox
from swe_scaffold.walkthrough.guide import ScriptedGuide
from swe_scaffold.walkthrough.ranking import Evidence, Name, files_in, messages_in, names_in
from swe_scaffold.walkthrough.seen import reported_files

ISSUE = """\
Session.send drops cookies after `resolve_redirects`

See https://github.com/psf/requests/blob/main/requests/sessions.py#L100 and sessions.py.

Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/requests/api.py", line 61, in request
    return session.request(method=method, url=url, **kwargs)
  File "/usr/lib/python3/dist-packages/requests/adapters.py", line 516, in send
    raise ConnectionError(e)
requests.exceptions.ConnectionError: Cookies were lost on the way to 'http://x.y' (id 7)
"""


def test_files_of_a_traceback_come_last_call_first_and_links_are_none() -> None:
    found = files_in(ISSUE)
    assert [path.rsplit("/", 1)[-1] for path in found] == ["adapters.py", "api.py", "sessions.py"]
    assert not any("github" in path for path in found)


def test_of_a_message_only_what_stands_in_the_code_is_searched_for() -> None:
    assert messages_in(ISSUE) == ["Cookies were lost on the way to"]
    assert messages_in("ValueError: 3") == []


def test_names_of_the_title_come_first_and_what_everybody_has_is_left_out() -> None:
    names = [name.text for name in names_in(ISSUE, ["requests"])]
    assert names[0] == "resolve_redirects"
    assert {"send", "Session", "cookies"} <= set(names)
    assert {"requests", "ConnectionError", "github", "return", "most", "Session.send"}.isdisjoint(
        names
    )
    assert files_in("Calling load_config in src/app/config.py.") == ["src/app/config.py"]
    assert names_in("") == []
    worth = dict(names_in("plain words\n\nno more plain `quoted` words", []))
    assert worth["quoted"] > worth["plain"]


def evidence(**files: list[tuple[str, list[int], list[int]]]) -> Evidence:
    found = Evidence()
    for name, hits in files.items():
        found.add(name, hits)
    return found


def order(found: Evidence, *names: str, task: str = "") -> list[str]:
    return [hit.path for hit in found.rank([Name(name, 3.0) for name in names], task)]


def test_where_a_name_is_defined_comes_before_where_it_is_used() -> None:
    found = evidence(
        total=[
            ("a/user.py", [1, 2, 3, 4, 5, 6, 7, 8], []),
            ("a/home.py", [3, 9], [9]),
            ("tests/test_home.py", [1, 2, 3], [2]),
            ("docs/total.md", [1, 2, 3, 4], []),
        ]
    )
    ranked = found.rank([Name("total", 3.0)], "")
    assert [hit.path for hit in ranked][:2] == ["a/home.py", "a/user.py"]
    assert ranked[0].line == 9


def test_a_rare_name_counts_more_than_one_that_is_everywhere() -> None:
    everywhere = [(f"a/{letter}.py", [1, 2, 3, 4, 5], []) for letter in "bcdefg"]
    found = evidence(common=everywhere, rare=[("a/h.py", [1], [])])
    assert order(found, "common", "rare")[0] == "a/h.py"


def test_a_file_that_is_called_as_the_task_says_comes_first() -> None:
    uses = [("pkg/printing/latex.py", [1], []), ("pkg/printing/other.py", [1], [])]
    uses += [("pkg/latex/aside.py", [1], [])]
    found = evidence(show=[("pkg/core.py", [1], []), *uses])
    ranked = order(found, "show", task="The LaTeX printer shows nothing")
    assert ranked[0] == "pkg/printing/latex.py"
    assert order(found, "show")[0] == "pkg/core.py"


def test_a_named_file_needs_no_other_evidence() -> None:
    found = evidence(total=[("a/user.py", [1], [])])
    found.named["a/named.py"] = 8.0
    assert order(found, "total") == ["a/named.py", "a/user.py"]


@pytest.mark.parametrize(
    ("line", "defines"),
    [
        ("class total:", True),
        ("    async def total(self):", True),
        ("total = 3", True),
        ("total: Final = 3", True),
        ("func (c *Cart) total() int {", True),
        ("pub fn total(&self) -> u8 {", True),
        ("total == 3", False),
        ("    total(3)", False),
        ("def totals():", False),
        ("    x = total = 1", False),
    ],
)
def test_a_search_tells_where_its_text_is_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, defines: bool
) -> None:
    (tmp_path / "a.py").write_text(f"# total\n{line}\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert toolbox.grep_search("total")["hits"] == [["a.py", [1, 2], [2] if defines else []]]


def test_a_search_finds_every_line_once_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(b"\nab ab\r\n\n  ab\nb\n\nab")
    monkeypatch.chdir(tmp_path)
    literal = toolbox.grep_search("ab")
    assert (
        literal["text"] == "3 matching lines in 1 files\na.txt:2: ab ab\na.txt:4: ab\na.txt:7: ab"
    )
    assert toolbox.grep_search("ab", regex=True)["text"] == literal["text"]


def test_the_report_begins_with_the_answer(repo: Path, backends: list[str]) -> None:
    pytest.importorskip("minisweagent", reason="needs the extra `agent`")
    task = "`apply_discount` is wrong\n\n  File '/usr/lib/shop/cart.py', line 5, in checkout"
    walked = explore(Subject(repo, task), ScriptedGuide, repo.parent / "out")
    # What a traceback names, then where the name is defined; the build file answers nothing.
    assert reported_files(walked.report)[:2] == ["shop/cart.py", "shop/prices.py"]
    assert "pyproject.toml" not in reported_files(walked.report)
    assert "Entry points: pyproject.toml, line 4" in walked.report


def test_no_task_takes_more_steps_than_there_are(repo: Path, backends: list[str]) -> None:
    pytest.importorskip("minisweagent", reason="needs the extra `agent`")
    for number in range(12):
        (repo / "shop" / f"part_{number}.py").write_text(f"def name_{number}(): ...\n")
    task = "\n".join(
        f"`name_{number}` in shop/part_{number}.py\nKeyError: there is no such thing, {number}"
        f"\nValueError: nothing of the {('kind', 'sort', 'other')[number % 3]} can be done"
        for number in range(60)
    )
    walked = explore(Subject(repo, task), ScriptedGuide, repo.parent / "out")
    assert walked.exit_status == "Submitted"
    assert walked.steps <= 40
