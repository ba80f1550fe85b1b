"""Search/replace edits: applied exactly, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_scaffold.patches import extract_patch
from tests.test_diffs import TEXTS, git_apply

FILES = {"pkg/a.py": "one\ntwo\nthree\ntwo\n", "Makefile": "all:\n\tmake", "empty.py": ""}


def block_of(search: list[str], replace: list[str]) -> str:
    old, new = ("".join(f"{line}\n" for line in lines) for lines in (search, replace))
    return f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n"


def block(search: str, replace: str) -> str:
    return block_of(*(text.split("\n") if text else [] for text in (search, replace)))


EDIT = block("three", "3")
MAKE = block("\tmake", "\tmake -j")
TWO_DIVIDERS = block("three\n=======", "3")
PATCH = """\
diff --git a/pkg/a.py b/pkg/a.py
--- a/pkg/a.py
+++ b/pkg/a.py
@@ -1,4 +1,4 @@
 one
 two
-three
+3
 two
"""


@pytest.mark.parametrize(
    "answer",
    [
        f"pkg/a.py\n{EDIT}",
        f"pkg/a.py\n```python\n{EDIT}```\nDone.\n",
        f"```python\npkg/a.py\n{EDIT}```\n",
        f"Change this:\n\n```python\n### pkg/a.py\n{EDIT}```\n",
        f"**`pkg/a.py`**:\n\n```\n{EDIT}```\n",
        f"`./pkg/a.py`\n{EDIT}",
        f"File: pkg/a.py\n{EDIT}",
        f"pkg/a.py\n{EDIT.replace('SEARCH', 'SEARCH  ')}",
        f"pkg/a.py\n{block('three', '4')}```\n\n```\n{block('4', '3')}",
    ],
)
def test_the_path_stands_before_the_block_or_its_fence(answer: str) -> None:
    found = extract_patch(answer, FILES.get)
    assert (found.form, found.problem, found.patch) == ("search_replace", "", PATCH)


def test_git_makes_new_files_and_keeps_a_missing_last_line_feed(tmp_path: Path) -> None:
    answer = f"new/b.py\n{block('', 'x = 1')}\nMakefile\n{MAKE}\nempty.py\n{block('', 'y = 2')}"
    found = extract_patch(answer, FILES.get)
    assert found.problem == ""
    for name in ("Makefile", "empty.py"):
        (tmp_path / name).write_bytes(FILES[name].encode())
    git_apply(tmp_path, found.patch)
    made = {name: (tmp_path / name).read_text() for name in ("new/b.py", "Makefile", "empty.py")}
    assert made == {"new/b.py": "x = 1\n", "Makefile": "all:\n\tmake -j", "empty.py": "y = 2\n"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (f"pkg/a.py\n{block('four', '4')}", "search_not_found"),
        (f"pkg/a.py\n{block('Three', '3')}", "search_not_found"),
        (f"pkg/a.py\n{block('thre', '3')}", "search_not_found"),
        (f"pkg/a.py\n{block('hree', '3')}", "search_not_found"),
        (f"pkg/a.py\n{block('two', '2')}", "search_ambiguous"),
        (f"pkg/a.py\n{block('', 'x')}", "search_empty"),
        (f"pkg/a.py\n{block('three', 'three')}", "no_change"),
        (f"pkg/b.py\n{EDIT}", "no_file"),
        (f"Done\n{block('', 'x')}", "no_path"),
        (EDIT, "no_path"),
        (f"Here is the change:\n{EDIT}", "no_path"),
        (f"pkg/a.py\n{EDIT}\nAnd in the tests:\n{block('one', '1')}", "no_path"),
        (f"pkg/a.py\n{EDIT.replace('=======', '-------')}", "unparsable"),
        (f"pkg/a.py\n{TWO_DIVIDERS}", "divider_ambiguous"),
        (f"pkg/a.py\n{EDIT[:-18]}", "truncated"),
        (f"pkg/a.py\n{EDIT[:-18]}{EDIT}", "unparsable"),
        (f"pkg/a.py\n{EDIT}\n{PATCH}", "mixed_forms"),
    ],
)
def test_what_does_not_fit_exactly_is_refused(answer: str, problem: str) -> None:
    found = extract_patch(answer, FILES.get)
    assert (found.form, found.patch, found.problem) == ("search_replace", "", problem)


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../a.py", "a/../../b.py", "C:/a.py", "a\\b.py", "~/a.py", ".git/config"),
        *("a//b.py", "a/./b.py", "x/.GIT/hooks/a", "a\x1bb.py", "a/", "\ud800.py"),
    ],
)
def test_no_path_beyond_the_tree_is_asked_for(path: str) -> None:
    def read(name: str) -> str:
        raise AssertionError(name)

    for answer in (f"{path}\n{EDIT}", f"{path}\n{block('', 'x')}"):
        assert extract_patch(answer, read).problem == "unsafe_path"


def test_edits_need_the_files() -> None:
    found = extract_patch(f"pkg/a.py\n{EDIT}")
    assert (found.problem, found.detail) == ("needs_files", "pkg/a.py")


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(old=TEXTS, start=st.integers(0, 30), length=st.integers(1, 4), replace=TEXTS)
def test_git_makes_of_the_diff_what_the_edit_says(
    tmp_path: Path, old: str, start: int, length: int, replace: str
) -> None:
    lines = old.split("\n")
    if not lines[-1]:
        lines.pop()
    search = lines[start : start + length]
    replaced = replace.split("\n")[:-1]
    found = extract_patch(
        "f.py\n" + block_of(search, replaced),
        lambda _: old,
    )
    if found.problem:
        return
    (tmp_path / "f.py").write_bytes(old.encode())
    git_apply(tmp_path, found.patch)
    expected = "\n".join([*lines[:start], *replaced, *lines[start + length :]])
    made = (tmp_path / "f.py").read_bytes().decode()
    assert made == (f"{expected}\n" if (old.endswith("\n") and expected) or not old else expected)
