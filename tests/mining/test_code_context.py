"""Code from local clones: the right commit, within the budget, and without a look at the answer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import MissingExtra
from swe_scaffold.mining.code_context import CodeContexts, Contextual, estimate_tokens
from swe_scaffold.mining.code_pieces import Span, around_lines, sections
from swe_scaffold.mining.retrieval import Index, Vocabulary, terms
from swe_scaffold.types import CodeContext, Origin, Task
from tests.histories import History

PARSER = '''\
"""Reading numbers."""

LIMIT = 3


def parse_number(text):
    """Turn digits into an integer."""
    sign = 1
    return int(text)


class Printer:
    def show_value(self, value):
        return str(value)

    def show_nothing(self):
        return ""
'''
FILES: dict[str, str | bytes | None] = {
    "pkg/parser.py": PARSER,
    "pkg/colours.py": "RED = 'red'\n\n\ndef mix(one, other):\n    return one + other\n",
    "pkg/long.c": "".join(f"int variable_{n};\n" for n in range(200)),
    "tests/test_parser.py": "from pkg.parser import parse_number  # negative sign digits\n",
    "docs/parser.md": "parse_number negative sign digits\n",
    "pkg/latin.py": b"# negative sign digits caf\xe9\n",
    "pkg/pixels.py": b"negative sign digits \0\n",
}
STATEMENT = "parse_number loses the sign of negative digits"


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A clone of owner/name: the state before, and the fix."""
    history = History(tmp_path / "repos" / "owner__name")
    history.commit("Everything", FILES)
    (history.folder / "pkg/link.py").symlink_to("parser.py")
    history.commit("And a link")
    fixed = PARSER.replace("int(text)", "sign * int(text)").replace('return ""', "return None")
    history.commit("The fix", {"pkg/parser.py": fixed, "pkg/new.py": "negative sign\n"})
    return history


def task(history: History, **changes: Any) -> Task:
    """The task of the last commit."""
    made = Task(
        instance_id="owner__name-1",
        repo="owner/name",
        problem_statement=STATEMENT,
        origin=Origin("tasks.jsonl", 1),
        patch=history.git("diff", "HEAD~1", "HEAD") + "\n",
        base_commit=history.git("rev-parse", "HEAD~1"),
        extra={"language": "Python"},
    )
    return replace(made, **changes)


def add(history: History, made: Task, mode: Any = "oracle", tokens: int = 5000) -> Contextual:
    return CodeContexts(history.folder.parents[0], mode=mode, tokens=tokens).add(made)


def test_oracle_shows_the_files_before_the_fix(history: History) -> None:
    made = task(history)
    result = add(history, made)
    assert result.task.context == (CodeContext("pkg/parser.py", 1, PARSER),)
    assert result.task.extra == {"language": "Python", "context": "oracle"}
    assert replace(result.task, context=(), extra=made.extra) == made
    assert (result.missing, result.left_out) == ("", 0)


def test_oracle_falls_back_to_the_functions_that_change(history: History) -> None:
    result = add(history, task(history), tokens=60)
    assert result.task.context == (
        CodeContext(
            "pkg/parser.py", 6, PARSER[PARSER.index("def parse") : PARSER.index("\n\nclass")]
        ),
        CodeContext("pkg/parser.py", 16, '    def show_nothing(self):\n        return ""\n'),
    )
    assert result.left_out == 1


def test_oracle_shows_lines_around_a_change_in_other_languages(history: History) -> None:
    text = str(FILES["pkg/long.c"])
    history.commit("Long", {"pkg/long.c": text.replace("int variable_100;", "long variable_100;")})
    result = add(history, task(history), tokens=300)
    (piece,) = result.task.context
    assert (piece.path, piece.start_line) == ("pkg/long.c", 86)
    assert piece.text == "".join(f"int variable_{n};\n" for n in range(85, 116))


@pytest.mark.parametrize("mode", ["oracle", "bm25"])
@pytest.mark.parametrize("tokens", [30, 60, 100, 1000])
def test_the_budget_is_held_as_counted(history: History, mode: Any, tokens: int) -> None:
    pytest.importorskip("bm25s")

    def count(text: str) -> int:
        return len(text) // 2

    contexts = CodeContexts(history.folder.parents[0], mode=mode, tokens=tokens, count=count)
    pieces = contexts.add(task(history)).task.context
    assert sum(count(piece.text) + count(piece.path) for piece in pieces) <= tokens


def test_nothing_fits(history: History) -> None:
    made = task(history)
    result = add(history, made, tokens=3)
    assert (result.missing, result.task) == ("over_budget", made)
    assert "3 tokens" in result.detail


def test_a_task_without_its_code_stays_as_it_was(history: History) -> None:
    made = task(history)
    only_new = made.patch[
        made.patch.index("diff --git a/pkg/new.py") : made.patch.index("diff --git a/pkg/parser.py")
    ]
    cases = [
        ({"repo": "other/thing"}, "no_clone"),
        ({"repo": ""}, "no_clone"),
        ({"repo": "../repos/owner__name"}, "no_clone"),
        ({"repo": "owner__name/.git"}, "no_clone"),
        ({"base_commit": ""}, "no_commit"),
        ({"base_commit": "0" * 40}, "no_commit"),
        ({"base_commit": "HEAD"}, "no_commit"),
        ({"base_commit": "--all"}, "no_commit"),
        ({"patch": ""}, "no_file"),
        ({"patch": only_new}, "no_file"),
        ({"patch": made.patch.replace("pkg/parser.py", "pkg/absent.py")}, "no_file"),
        ({"patch": made.patch.replace("-    return int(text)", "-    return 1")}, "patch_mismatch"),
        ({"patch": made.patch.replace("pkg/parser.py", "pkg/latin.py")}, "unreadable"),
        ({"patch": made.patch.replace("pkg/parser.py", "pkg/link.py")}, "unreadable"),
    ]
    for changes, reason in cases:
        odd = replace(made, **changes)  # type: ignore[arg-type]
        result = add(history, odd)
        assert (result.missing, result.task) == (reason, odd), changes
        assert result.detail


@pytest.mark.parametrize(
    "name", ["owner__name", "owner__name.git", "owner/name", "owner/name.git", "name", "name.git"]
)
def test_where_clones_are_found(history: History, tmp_path: Path, name: str) -> None:
    repos = tmp_path / "elsewhere"
    (repos / name).parent.mkdir(parents=True)
    if name.endswith(".git"):
        history.mirror(repos / name)
    else:
        history.git("clone", "-q", str(history.folder), str(repos / name))
    result = CodeContexts(repos, mode="oracle", tokens=5000).add(task(history))
    assert result.missing == ""


def test_the_clone_that_has_the_commit_is_used(history: History) -> None:
    other = History(history.folder.parent / "name.git")
    other.commit("Another name", {"a.py": "1\n"})
    mirror = history.folder.rename(history.folder.parent / "name")
    other.folder.rename(history.folder.parent / "owner__name")
    history.folder = mirror
    assert add(history, task(history)).missing == ""


def test_bm25_finds_the_file_without_the_patch(history: History) -> None:
    pytest.importorskip("bm25s")
    made = task(history)
    result = add(history, made, "bm25", 150)
    assert result.task.context[0] == CodeContext("pkg/parser.py", 1, PARSER)
    assert result.task.extra["context"] == "bm25"
    for patch in ("", "nonsense", made.patch.replace("parser", "colours")):
        again = add(history, replace(made, patch=patch), "bm25", 150)
        assert again.task.context == result.task.context
    shown = {piece.path for piece in add(history, made, "bm25", 90_000).task.context}
    assert shown == {"pkg/parser.py"}


def test_bm25_shows_the_best_parts_of_a_file_that_does_not_fit(history: History) -> None:
    pytest.importorskip("bm25s")
    (piece,) = add(history, task(history), "bm25", 45).task.context
    assert (piece.path, piece.start_line) == ("pkg/parser.py", 6)
    assert piece.text.startswith("def parse_number")


def test_parts_are_shown_in_the_order_of_the_file(history: History) -> None:
    pytest.importorskip("bm25s")
    made = task(history, problem_statement="show_value of value, str of value; parse_number")
    pieces = add(history, made, "bm25", 70).task.context
    assert [piece.start_line for piece in pieces] == sorted(piece.start_line for piece in pieces)
    assert {"def parse_number(text):\n", "    def show_value(self, value):\n"} <= {
        line + "\n" for piece in pieces for line in piece.text.split("\n")
    }


def test_bm25_without_a_common_word(history: History) -> None:
    pytest.importorskip("bm25s")
    made = task(history, problem_statement="zebra?")
    result = add(history, made, "bm25")
    assert (result.missing, result.task) == ("no_file", made)


def test_what_is_remembered_changes_nothing(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bm25s")
    bases = history.git("rev-list", "HEAD").split("\n")
    tasks = [task(history, base_commit=base) for base in [*bases, *bases]]
    fresh = [add(history, made, "bm25", 120).task.context for made in tasks]
    one = CodeContexts(history.folder.parents[0], mode="bm25", tokens=120)
    assert [one.add(made).task.context for made in tasks] == fresh
    for name, value in (("_MAX_TERMS", 3), ("_TREES", 1)):
        monkeypatch.setattr(f"swe_scaffold.mining.code_context.{name}", value)
        small = CodeContexts(history.folder.parents[0], mode="bm25", tokens=120)
        assert [small.add(made).task.context for made in tasks] == fresh


def test_a_tree_too_large_is_said(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swe_scaffold.mining.code_context.MAX_TREE_FILES", 2)
    assert add(history, task(history), "bm25").missing == "tree_too_large"


def test_without_the_package_the_install_line_is_said(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtra, match="bm25s"):
        add(history, task(history), "bm25")
    assert add(history, task(history)).missing == ""


def test_nothing_of_a_clone_runs(history: History, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n", "utf-8")
    script.chmod(0o755)
    made = task(history)
    for name in ("core.fsmonitor", "diff.external", "core.pager"):
        history.git("config", name, str(script))
    assert add(history, made).missing == ""
    assert not marker.exists()


def test_terms_are_words_and_the_parts_of_names() -> None:
    assert terms("parseNumber(HTTPServer, snake_case2)") == [
        *("parse", "number", "parsenumber", "http", "server", "httpserver"),
        *("snake", "case", "2", "snake_case2"),
    ]
    assert terms("x" * 81) == []


def test_equal_documents_keep_their_order() -> None:
    pytest.importorskip("bm25s")
    vocabulary = Vocabulary(budget=2)
    documents = [vocabulary.read(str(n), text) for n, text in enumerate(["b a", "a", "c", "a"])]
    assert Index(documents).rank(vocabulary.numbers("a")) == [1, 3, 0]
    assert Index(documents).rank([]) == []
    assert Index([]).rank(vocabulary.numbers("a")) == []
    assert vocabulary.known("0") is None
    assert vocabulary.known("3") == documents[3]


@pytest.mark.parametrize("path", ["a.py", "a.c"])
@pytest.mark.parametrize("text", [PARSER, "", "x", "def f(): pass\ndef g(): pass", "(\n" * 95])
def test_sections_cover_every_line_once(path: str, text: str) -> None:
    lines = [n for span in sections(path, text) for n in range(span.first, span.last + 1)]
    assert lines == list(range(1, text.count("\n") + 1 + (not text.endswith("\n") and text != "")))


def test_a_very_long_function_is_shown_around_the_change() -> None:
    text = "def f():\n" + "    pass\n" * 200
    assert around_lines("a.py", text, [100]) == [Span(85, 115)]
    assert around_lines("a.py", PARSER, [8, 9, 17]) == [Span(6, 9), Span(16, 17)]


def test_the_estimate_rounds_up() -> None:
    assert [estimate_tokens("x" * n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
