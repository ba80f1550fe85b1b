"""Diffs: what git applies, what a reader relies on, and text that is only almost a diff."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_scaffold.diffs import (
    FilePatch,
    files_touched,
    line_classes,
    parse_patch,
    unified_diff,
)

GIT_PATCH = """\
Some words before the patch.

diff --git a/pkg/one.py b/pkg/one.py
index 1111111..2222222 100644
--- a/pkg/one.py
+++ b/pkg/one.py
@@ -1,4 +1,3 @@ def first():
 keep
--- a comment in SQL
-gone
+++ plus
 keep
@@ -10 +9,2 @@
 last
+more
\\ No newline at end of file
diff --git a/old name.py b/new name.py
similarity index 100%
rename from old name.py
rename to new name.py
diff --git a/fresh.py b/fresh.py
new file mode 100644
--- /dev/null
+++ b/fresh.py
@@ -0,0 +1 @@
+x = 1
diff --git a/dead.py b/dead.py
deleted file mode 100644
--- a/dead.py
+++ /dev/null
@@ -1 +0,0 @@
-x = 1
--\x20
2.39.5
"""

MARKERS = ["-- x", "++ y", "@@ -1 +1 @@", "\\ No newline"]
PIECES = st.sampled_from(["a", "b", "", *MARKERS, "x\x0cy", "p\u2028q", "r\r", "\t", "é"])
ENDS = st.sampled_from(["", "\n"])
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, st.lists(PIECES, max_size=30), ENDS)
CHARACTERS = st.text(st.sampled_from("ab \n\r\x0b\x0c\x1c\x85\u2028\u2029é-+\\@"), max_size=60)


def git_apply(folder: Path, patch: str, *flags: str) -> None:
    result = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", *flags, "-"],
        cwd=folder,
        input=patch.encode(),
        capture_output=True,
        check=False,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)},
    )
    assert result.returncode == 0, (result.stderr.decode(), patch)


def joined(text: str, wanted: str) -> list[str]:
    return [text[start:end] for start, end, name in line_classes(text) if name == wanted]


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(old=st.one_of(TEXTS, CHARACTERS), new=st.one_of(TEXTS, CHARACTERS))
def test_git_applies_what_unified_diff_writes(tmp_path: Path, old: str, new: str) -> None:
    patch = unified_diff("pkg/some file.py", old, new)
    assert (patch == "") == (old == new)
    if patch:
        target = tmp_path / "pkg" / "some file.py"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(old.encode())
        git_apply(tmp_path, patch)
        assert target.read_bytes() == new.encode()


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(st.text("ab", max_size=16), st.integers(0, 16), st.text("ab", max_size=2), st.booleans())
def test_git_applies_changes_among_lines_that_repeat(
    tmp_path: Path, lines: str, place: int, put: str, ends: bool
) -> None:
    end = "\n" if ends else ""
    old, new = ("\n".join(text) + end for text in (lines, lines[:place] + put + lines[place + 1 :]))
    if patch := unified_diff("f.py", old, new):
        (tmp_path / "f.py").write_bytes(old.encode())
        git_apply(tmp_path, patch)
        assert (tmp_path / "f.py").read_bytes() == new.encode()


@settings(max_examples=200, deadline=None, database=None)
@given(old=st.one_of(TEXTS, CHARACTERS), new=st.one_of(TEXTS, CHARACTERS))
def test_a_written_diff_reads_back_line_for_line(old: str, new: str) -> None:
    patch = unified_diff("a.py", old, new)
    for file in parse_patch(patch):
        assert (file.old_path, file.new_path) == ("a.py", "a.py")
        assert file.hunks
        assert all(hunk.complete for hunk in file.hunks)
    assert all(name != "other" for _, _, name in line_classes(patch))
    removed, added = joined(patch, "removed"), joined(patch, "added")
    assert len(added) - len(removed) == count_lines(new) - count_lines(old)
    assert all(line.startswith("-") for line in removed)
    assert all(line.startswith("+") for line in added)


def count_lines(text: str) -> int:
    return text.count("\n") + (text != "" and not text.endswith("\n"))


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(GIT_PATCH.split("\n")), max_size=40).map("\n".join),
        st.lists(st.sampled_from(GIT_PATCH.split("\n")), max_size=40).map("\r\n".join),
    )
)
def test_line_classes_cover_any_text_exactly(text: str) -> None:
    spans = line_classes(text)
    assert "".join(text[start:end] for start, end, _ in spans) == text
    assert [start for start, _, _ in spans] == [0, *(end for _, end, _ in spans)][: len(spans)]
    assert all(start < end for start, end, _ in spans)
    parse_patch(text)


def test_hunk_counts_and_not_prefixes_class_a_line() -> None:
    assert joined(GIT_PATCH, "removed") == ["--- a comment in SQL\n", "-gone\n", "-x = 1\n"]
    assert joined(GIT_PATCH, "added") == ["+++ plus\n", "+more\n", "+x = 1\n"]
    assert joined(GIT_PATCH, "context") == [" keep\n", " keep\n", " last\n"]
    assert joined(GIT_PATCH, "other") == [
        "Some words before the patch.\n",
        "\n",
        "-- \n",
        "2.39.5\n",
    ]
    assert "\\ No newline at end of file\n" in joined(GIT_PATCH, "header")


def test_parse_names_files_and_hunks() -> None:
    one, renamed, fresh, dead = parse_patch(GIT_PATCH)
    assert [(h.old_start, h.old_count, h.new_start, h.new_count) for h in one.hunks] == [
        (1, 4, 1, 3),
        (10, 1, 9, 2),
    ]
    assert one.hunks[0].lines[1] == "--- a comment in SQL"
    assert one.hunks[1].lines[-1] == "\\ No newline at end of file"
    assert all(hunk.complete for hunk in one.hunks)
    assert renamed == FilePatch("old name.py", "new name.py")
    assert (fresh.old_path, fresh.path) == ("/dev/null", "fresh.py")
    assert (dead.new_path, dead.path) == ("/dev/null", "dead.py")
    assert files_touched(GIT_PATCH) == (
        "pkg/one.py",
        "old name.py",
        "new name.py",
        "fresh.py",
        "dead.py",
    )


@pytest.mark.parametrize(
    ("header", "paths"),
    [
        ("--- a/x.py\n+++ b/x.py\n", ("x.py",)),
        ("--- x.py\t2024-01-01 00:00:00\n+++ x.py\t2024-01-02 00:00:00\n", ("x.py",)),
        ("diff -u src/x.py src/x.py\n--- src/x.py\r\n+++ src/x.py\r\n", ("src/x.py",)),
        ("diff --git x.py x.py\n--- x.py\n+++ x.py\n", ("x.py",)),
        ('--- "a/caf\\303\\251.py"\n+++ "b/caf\\303\\251.py"\n', ("café.py",)),
        ("diff --git a/a b.py b/a b.py\n--- a/a b.py\t\n+++ b/a b.py\t\n", ("a b.py",)),
        ("--- a/same/x.py\n+++ a/same/x.py\n", ("a/same/x.py",)),
    ],
)
def test_names_are_read_from_git_and_plain_headers(header: str, paths: tuple[str, ...]) -> None:
    text = f"{header}@@ -1 +1 @@\n-x\n+y\n"
    assert files_touched(text) == paths
    assert joined(text, "other") == []


@pytest.mark.parametrize("name", ['quo"te.py', "back\\slash.py", "tab\there.py", "ünï.py"])
def test_odd_names_survive_git_and_our_own_reader(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old\n")
    patch = unified_diff(name, "old\n", "new\n")
    git_apply(tmp_path, patch)
    assert (tmp_path / name).read_text() == "new\n"
    assert files_touched(patch) == (name,)


def test_a_diff_cut_short_keeps_what_is_there() -> None:
    text = "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n one\n-two\n"
    (file,) = parse_patch(text)
    assert file.hunks[0].lines == (" one", "-two")
    assert not file.hunks[0].complete
    follows = f"{text}diff --git a/y b/y\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-p\n+q\n"
    assert files_touched(follows) == ("x", "y")


def test_prose_that_resembles_a_diff_is_not_one() -> None:
    prose = (
        "--- a rule\n+ first point\n- second point\n@@ -1 +1 @@\n+++ more\n\n--- a\n+++ b\nend\n"
    )
    assert parse_patch(prose) == ()
    assert {name for _, _, name in line_classes(prose)} == {"other"}


def test_context_that_lost_its_space_is_still_context() -> None:
    text = "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n one\n\n-two\n+three\n"
    assert joined(text, "context") == [" one\n", "\n"]
    assert parse_patch(text)[0].hunks[0].complete
