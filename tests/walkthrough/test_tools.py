"""Calls of tools: what is refused, and what a hostile repository can do to those that read it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.git.program import git_environment
from swe_scaffold.walkthrough import toolbox
from swe_scaffold.walkthrough.chat_model import MAX_OBSERVATION
from swe_scaffold.walkthrough.tools import definitions, in_words, problem_of


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("read_file", {"path": "a"}, ""),
        ("list_dir", {}, ""),
        ("grep_search", {"pattern": "x", "regex": True}, ""),
        ("read_file", {"path": ["a'$(touch /repo/pwned)"]}, "path is no string"),
        ("grep_search", {"pattern": {"a": 1}}, "pattern is no string"),
        ("read_file", {"path": "a", "start": "1"}, "start is no integer"),
        ("read_file", {"path": "a", "start": True}, "start is no integer"),
        ("read_file", {}, "path is missing"),
        ("read_file", {"path": "a", "mode": "w"}, "no argument mode"),
        ("read_file", ["a"], "no JSON object"),
        ("write_file", {"path": "a"}, "no tool write_file"),
        (["read_file"], {}, "no tool"),
        ("bash", {"command": "ls"}, "no tool bash"),
    ],
)
def test_calls_are_checked_before_anything_is_done(name: Any, arguments: Any, problem: str) -> None:
    found = problem_of(name, arguments, bash=False)
    assert problem in found
    assert bool(found) == bool(problem)


def test_every_tool_offered_is_there_and_takes_what_it_says() -> None:
    offered = {tool["function"]["name"]: tool["function"] for tool in definitions(bash=False)}
    assert offered.keys() - {"report"} == toolbox.TOOLS.keys()
    for name, tool in offered.items():
        if name != "report":
            code = toolbox.TOOLS[name].__code__
            assert code.co_varnames[: code.co_argcount] == tuple(tool["parameters"]["properties"])
    assert problem_of("bash", {"command": "ls"}, bash=True) == ""
    assert in_words("read_file", {"path": "a b", "start": 3}) == 'read_file path="a b" start=3'


@pytest.fixture
def here(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tools' own code in the repository's folder, without a sandbox to save it."""
    monkeypatch.chdir(repo)
    for name, value in git_environment("safe.directory=*", "log.showSignature=false").items():
        monkeypatch.setenv(name, value)
    return repo


def call(name: str, **arguments: Any) -> str:
    found = toolbox.call(name, arguments)
    return str(found["text"])


def in_time(function: Any, *given: Any, **named: Any) -> Any:
    """Return what a function does in a thread, or fail where it hangs."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function(*given, **named)), daemon=True)
    thread.start()
    thread.join(10)
    assert found, "it hangs"
    return found[0]


def test_files_are_shown_with_their_lines(here: Path) -> None:
    assert call("read_file", path="shop/prices.py", start=4, lines=2) == (
        "shop/prices.py (lines 4 to 5 of 10)\n"
        "     4\tclass PriceList:\n     5\t    def total_price(self, items):"
    )
    assert "class PriceList" in call("outline", path="shop/prices.py")
    assert "     9-10\tdef apply_discount(total, rate)" in call("outline", path="shop/prices.py")
    top = call("list_dir")
    assert "shop/" in top.split("\n")
    assert "leak.py -> " in top
    assert "pipe.py  (not a regular file)" in top
    assert "prices.py" in call("list_dir", depth=2)


def test_searching_finds_text_and_expressions(here: Path) -> None:
    found = call("grep_search", pattern="apply_discount")
    assert found.startswith("5 matching lines in 3 files")
    assert "shop/cart.py:1: from shop.prices import apply_discount" in found
    assert "3 matching lines" in call("grep_search", pattern=r"^def \w+", regex=True)
    assert "2 matching lines in 1 files" in call(
        "grep_search", pattern="apply_discount", glob="cart.py"
    )
    assert call("grep_search", pattern="(", regex=True).startswith("error: pattern: ")


@pytest.mark.parametrize("path", ["leak.py", "up/secret.txt", "../secret.txt", "/etc/passwd", "up"])
def test_nothing_leads_out(here: Path, path: str) -> None:
    for name, arguments in (
        ("read_file", {"path": path}),
        ("outline", {"path": path}),
        ("list_dir", {"path": path}),
        ("grep_search", {"pattern": "SECRET", "path": path}),
    ):
        text = call(name, **arguments)
        assert text.startswith(f"error: {path} leads out of the repository"), (name, text)
    assert "SECRET" not in call("grep_search", pattern="TOP-").split("\n", 1)[-1]


def test_pipes_devices_and_binaries_are_named_and_not_read(here: Path) -> None:
    assert "no regular file" in in_time(call, "read_file", path="pipe.py")
    assert "is binary" in call("read_file", path="binary.dat")
    assert "files not searched" in in_time(call, "grep_search", pattern="PriceList")


def test_names_that_are_no_text_reach_nobody_unchanged(here: Path) -> None:
    for text in (call("list_dir", depth=2), call("grep_search", pattern="PriceList")):
        assert "\x1b" not in text
        text.encode("utf-8")
        assert r"\xdcff\xdcfe\x1b[31m" in text


def test_git_shows_commits(here: Path) -> None:
    assert call("git_log").endswith("Begin")
    shown = call("git_show", revision="HEAD", path="shop/cart.py")
    assert "+def checkout(cart):" in shown
    assert "README" not in shown
    for revision in ("--output=x", "-p", "HEAD; touch x", "a b", ""):
        assert call("git_show", revision=revision).startswith("error: ")
    assert call("git_log", path="--output=x").startswith("error: ")


def test_much_is_cut_and_says_so(here: Path) -> None:
    (here / "long.txt").write_text("x" * 5000 + "\n" + "y\n" * 5000)
    text = call("read_file", path="long.txt", lines=10_000)
    assert "[4600 more characters]" in text
    assert text.startswith("long.txt (lines 1 to 400 of 5001)")
    text = call("grep_search", pattern="y")
    assert text.startswith("5")
    assert "the first 80 shown" in text
    many = here / "many"
    many.mkdir()
    for number in range(400):
        (many / f"{number:04}").write_text("")
    assert "[100 more entries not shown]" in call("list_dir", path="many")
    huge = here / "huge.txt"
    with huge.open("wb") as stream:
        stream.truncate(toolbox.MAX_FILE + 1)
    assert "larger than 4 MiB" in call("read_file", path="huge.txt")


def test_what_cannot_be_searched_is_no_empty_answer(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolbox, "MAX_FILES", 3)
    assert call("grep_search", pattern="x") == "error: more than 3 files: name a folder"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert call("list_dir", path="shop") == "error: shop cannot be read"


def test_what_is_recorded_as_shown_is_shown(here: Path) -> None:
    (here / "wide.txt").write_text(("w" * 300 + "\n") * 300)
    found = toolbox.call("read_file", {"path": "wide.txt", "lines": 300})
    assert found["text"].count("\n") == found["last"] - found["first"] + 1 < 300
    assert len(found["text"]) <= MAX_OBSERVATION


def test_whatever_is_asked_is_answered(here: Path) -> None:
    for name, arguments in (
        ("read_file", {"path": "no"}),
        ("read_file", {"path": "shop"}),
        ("read_file", {"path": "a\0b"}),
        ("read_file", {"path": "README.md", "start": 1000}),
        ("list_dir", {"path": "README.md"}),
        ("grep_search", {"pattern": ""}),
        ("grep_search", {"pattern": "a\nb"}),
        ("outline", {"path": "binary.dat"}),
        ("nothing", {}),
        ("read_file", {"nothing": 1}),
    ):
        found = toolbox.call(name, arguments)
        assert found["ok"] is False, name
        assert found["text"].startswith("error: "), name
    (here / "deep.py").write_text("(" * 100_000)
    assert toolbox.call("outline", {"path": "deep.py"})["ok"]
    (here / "empty").mkdir()
    assert call("list_dir", path="empty") == "(empty)"
