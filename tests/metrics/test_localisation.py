"""Places of patches and how well they were found: cases by hand, and what must hold for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.diffs import parse_patch, unified_diff
from swe_scaffold.metrics.localisation import (
    Overlap,
    first_hit_rank,
    line_overlap,
    localisation,
    recall_at,
)
from swe_scaffold.metrics.places import Lines, Places, changed_lines, changed_ranges, places_of

MODULE = '''\
import os


def first(value):
    """Doc."""
    return value


class Thing:
    @property
    def size(self):
        def inner():
            return 1
        return inner()

    def last(self):
        return 2
'''
PLACES = st.builds(
    lambda pairs: Places(
        frozenset(path for path, _, _ in pairs),
        tuple(Lines(path, first, first + extra) for path, first, extra in pairs),
        frozenset((path, str(first)) for path, first, _ in pairs),
    ),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30), st.integers(0, 6)), max_size=6),
)


def edited(old: str, new: str, *, path: str = "m.py", text: str = MODULE) -> str:
    assert text.count(old) == 1
    return unified_diff(path, text, text.replace(old, new))


def functions(patch: str, texts: dict[str, str] | None = None) -> tuple[set[str], str]:
    known = {"m.py": MODULE} if texts is None else texts
    places, _ = places_of(parse_patch(patch), (), known)
    names = {name for _, name in places.functions} if places.functions is not None else set()
    return names, places.functions_by


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    return value\n", "    return -value\n", {"first"}),
        ("            return 1\n", "            return 3\n", {"Thing.size.inner"}),
        ("        return inner()\n", "        return inner() + 1\n", {"Thing.size"}),
        ("    @property\n", "", {"Thing.size"}),
        ("import os\n", "import re\n", set()),
        # Added below a function's last line: inside by its indentation, outside by its own.
        ("    return value\n", "    return value\n    # more\n    print(value)\n", {"first"}),
        ("    return value\n", "    return value\n\n\nLIMIT = 3\n", set()),
        ("        return 2\n", "        return 2\n\n    def new(self):\n        return 3\n", set()),
        ('    """Doc."""\n', '    """Doc."""\n    value += 1\n', {"first"}),
    ],
)
def test_functions_are_those_around_changed_lines(old: str, new: str, expected: set[str]) -> None:
    assert functions(edited(old, new)) == (expected, "syntax")


def test_without_the_text_of_python_no_function_is_guessed() -> None:
    patch = edited("    return value\n", "    return 0\n").replace(
        " @@\n", " @@ def first(value):\n"
    )
    assert functions(patch, {}) == (set(), "no_text")
    assert functions(patch, {"m.py": "def broken(:\n"}) == (set(), "no_syntax")


def test_headings_stand_for_functions_of_other_languages() -> None:
    plain = edited("    return value\n", "    return 0\n", path="m.go")
    patch = plain.replace(" @@\n", " @@ func first(value int) {\n")
    assert functions(patch, {}) == ({"func first(value int) {"}, "headings")
    assert functions(plain, {}) == (set(), "no_headings")
    both = patch + edited("import os\n", "import re\n") + edited("return 2", "return 3")
    assert functions(both) == ({"func first(value int) {", "Thing.last"}, "syntax and headings")


def test_what_is_no_code_and_what_is_new_has_no_functions() -> None:
    new = "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+def f(): pass\n"
    assert functions(edited("import os\n", "x\n", path="m.rst") + new, {}) == (set(), "")


@pytest.mark.parametrize("context", [0, 1, 3, 9])
def test_hunks_do_not_depend_on_the_context_of_a_patch(context: int) -> None:
    lines = [f"{n}\n" for n in range(1, 61)]
    changed = [*lines]
    changed[9] = "ten\n"
    changed[16] = "seventeen\n"
    changed[39:39] = ["between 39 and 40\n"]
    import difflib

    diff = difflib.unified_diff(lines, changed, "a/x.txt", "b/x.txt", n=context)
    (file,) = parse_patch("".join(diff))
    # Lines 10 and 17 are one hunk of `git diff`: there are six lines between them.
    assert changed_ranges(file) == [Lines("x.txt", 7, 20), Lines("x.txt", 37, 42)]


def test_two_patches_that_make_one_file_meet() -> None:
    one, two = (
        parse_patch(f"--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+{text}\n") for text in ("a", "b")
    )
    scores = localisation(*places_of(one, two, {}))
    assert (scores.files.f1, scores.lines.f1) == (1.0, 1.0)


def test_numbers_by_hand() -> None:
    predicted = Places(frozenset("ab"), (Lines("a", 1, 5), Lines("a", 20, 25), Lines("b", 1, 9)))
    gold = Places(frozenset("ac"), (Lines("a", 5, 8), Lines("a", 9, 9), Lines("c", 1, 9)))
    scores = localisation(predicted, gold)
    assert scores.files == Overlap(2, 1, 2, 1)
    assert scores.lines == Overlap(3, 1, 3, 1)
    assert scores.functions is None
    assert (scores.files.precision, scores.files.recall, scores.files.f1) == (0.5, 0.5, 0.5)


def test_nothing_to_find_is_not_a_perfect_score() -> None:
    some, none = Places(frozenset("a")), Places(frozenset())
    missed, free = localisation(none, some).files, localisation(some, none).files
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)
    assert (free.precision, free.recall, free.f1) == (None, None, None)


@given(one=PLACES, two=PLACES)
def test_swapping_sides_swaps_precision_and_recall(one: Places, two: Places) -> None:
    there, back = localisation(one, two), localisation(two, one)
    pairs = [
        (there.files, back.files),
        (there.lines, back.lines),
        (there.functions or there.files, back.functions or back.files),
    ]
    for forward, backward in pairs:
        if forward.gold and forward.predicted:
            assert forward.precision == backward.recall
            assert forward.recall == backward.precision
            assert forward.f1 == backward.f1
        for value in (forward.precision, forward.recall, forward.f1):
            assert value is None or 0 <= value <= 1


@given(one=PLACES, two=PLACES)
def test_ranges_hit_where_they_share_a_line(one: Places, two: Places) -> None:
    lines = {(r.path, n) for r in two.lines for n in range(r.first, r.last + 1)}
    hits = sum(any((r.path, n) in lines for n in range(r.first, r.last + 1)) for r in one.lines)
    assert localisation(one, two).lines.predicted_hits == hits


@given(places=PLACES)
def test_a_place_finds_itself(places: Places) -> None:
    scores = localisation(places, places)
    assert {scores.files.f1, scores.lines.f1} == ({1.0} if places.files else {None})


def test_ranked_files() -> None:
    ranked = ["x", "x", "a", "y", "b"]
    assert first_hit_rank(ranked, {"a", "b"}) == 2
    assert first_hit_rank(ranked, {"z"}) is None
    assert recall_at(ranked, ["a", "b"], 2) == 0.5
    assert recall_at(ranked, ["a", "b"], 4) == 1.0
    assert recall_at(ranked, [], 4) is None


@given(PLACES, PLACES)
def test_lines_are_counted_each_once(ours: Places, theirs: Places) -> None:
    predicted, gold = (
        {(path, n) for path, first, last in side.lines for n in range(first, last + 1)}
        for side in (ours, theirs)
    )
    common = len(predicted & gold)
    expected = Overlap(len(predicted), common, len(gold), common)
    assert line_overlap(ours.lines, theirs.lines) == expected


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("1\n2\nX\n4\n5\n", [(3, 3)]),
        ("1\n2\nX\n3\n4\n5\n", [(2, 3)]),
        ("X\n1\n2\n3\n4\n5\n", [(1, 1)]),
        ("1\n2\n3\n4\n5\nX\n", [(5, 5)]),
        ("2\n3\n4\n", [(1, 1), (5, 5)]),
    ],
)
def test_lines_of_a_change_exist_before_it(new: str, expected: list[tuple[int, int]]) -> None:
    (file,) = parse_patch(unified_diff("a.txt", "1\n2\n3\n4\n5\n", new))
    assert [(first, last) for _, first, last in changed_lines(file)] == expected
    (made,) = parse_patch(unified_diff("a.txt", "", new))
    assert changed_lines(made) == []
