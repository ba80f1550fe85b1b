"""Likeness of patches: difflib's number exactly, within bounded work, and agreement that is one."""

from __future__ import annotations

import difflib

from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.diffs import parse_patch, unified_diff
from swe_scaffold.metrics.similarity import change_similarity, same_lines, same_patch

OLD = "".join(f"line {n}\n" for n in range(1, 21))
TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "cd\n", "\n"]), max_size=12).map("".join)


def patch(old: str, new: str, path: str = "x.py") -> str:
    return unified_diff(path, OLD, OLD.replace(old, new))


def body(text: str) -> str:
    return text.split("+++ ")[1].partition("\n")[2].rstrip("\n")


def test_it_is_difflibs_ratio_averaged_over_files() -> None:
    ours, theirs = patch("line 5\n", "line five\n" * 40), patch("line 5\n", "line 55\n" * 40)
    expected = difflib.SequenceMatcher(None, body(ours), body(theirs), autojunk=False).ratio()
    one, two = parse_patch(ours), parse_patch(theirs)
    assert change_similarity(one, two) == expected
    other = parse_patch(theirs + patch("line 1\n", "", "y.py"))
    assert change_similarity(one, other) == expected / 2
    assert change_similarity((), two) == 0.0
    assert change_similarity((), ()) is None


def test_work_is_bounded_and_said() -> None:
    ours = parse_patch(patch("line 5\n", "a" * 3000 + "\n"))
    theirs = parse_patch(patch("line 5\n", "ab" * 3000 + "\n"))
    assert change_similarity(ours, theirs, max_steps=2_000_000) is None
    assert change_similarity(theirs, theirs, max_steps=0) == 1.0


@given(old=TEXTS, one=TEXTS, two=TEXTS)
def test_it_is_between_0_and_1_and_1_for_itself(old: str, one: str, two: str) -> None:
    ours, theirs = (parse_patch(unified_diff("x", old, text)) for text in (one, two))
    value = change_similarity(ours, theirs)
    assert value is None or 0 <= value <= 1
    assert change_similarity(ours, ours) == (1.0 if ours else None)
    assert same_patch(ours, ours) == same_lines(ours, ours) == bool(ours)
    if same_patch(ours, theirs):
        assert one == two
        assert same_lines(ours, theirs)


def test_the_same_change_is_the_same_however_it_is_written() -> None:
    full = parse_patch(patch("line 5\n", "five\n"))
    bare = parse_patch("--- x.py\n+++ x.py\n@@ -5 +5 @@ heading\n-line 5\n+five\n")
    moved = parse_patch("--- x.py\n+++ x.py\n@@ -6 +6 @@\n-line 5\n+five\n")
    unended = parse_patch(
        "--- x.py\n+++ x.py\n@@ -5 +5 @@\n-line 5\n+five\n\\ No newline at end of file\n"
    )
    assert same_patch(full, bare)
    assert (same_patch(full, moved), same_lines(full, moved)) == (False, True)
    assert not same_patch(full, unended)
    assert not same_lines(full, parse_patch(patch("line 5\n", "5\n")))
    assert not same_patch((), ())
