"""Two patches beside each other: every changed line once, on the side it is on."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.diffs import unified_diff
from swe_scaffold.report.patch_pair import MOST_ALIGNED, pair_patches

OLD = "".join(f"line {number}\n" for number in range(20))


def patch(path: str, **changes: str) -> str:
    lines = OLD.split("\n")
    for number, text in changes.items():
        lines[int(number[1:])] = text
    return unified_diff(path, OLD, "\n".join(lines))


def test_files_and_lines_are_told_by_their_side() -> None:
    gold = patch("a.py", l3="three", l9="nine") + patch("b.py", l1="one")
    other = patch("c.py", l1="one") + patch("a.py", l3="three", l15="fifteen")
    found = pair_patches(gold, other, "")
    assert [(file.path, file.in_gold, file.in_prediction) for file in found.files] == [
        ("a.py", True, True),
        ("b.py", True, False),
        ("c.py", False, True),
    ]
    assert found.files[0].lines == (
        ("both", "-line 3"),
        ("both", "+three"),
        ("gold", "-line 9"),
        ("gold", "+nine"),
        ("prediction", "-line 15"),
        ("prediction", "+fifteen"),
    )
    assert [found.count(where) for where in ("both", "gold", "prediction")] == [2, 4, 4]


def test_a_missing_patch_leaves_gold_alone() -> None:
    found = pair_patches(patch("a.py", l3="three"), "", "I do not know")
    assert found.patches
    assert found.count("gold") == 2
    assert found.count("both") == found.count("prediction") == 0


def test_texts_are_compared_by_line() -> None:
    found = pair_patches("one\ntwo", "", "one\nthree")
    assert not found.patches
    assert found.files[0].lines == (("both", "one"), ("gold", "two"), ("prediction", "three"))


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_every_line_of_both_texts_is_there_once(gold: list[str], other: list[str]) -> None:
    lines = pair_patches("\n".join(gold), "", "\n".join(other) or "").files[0].lines
    assert [line for side, line in lines if side != "prediction"] == "\n".join(gold).split("\n")
    assert [line for side, line in lines if side != "gold"] == "\n".join(other).split("\n")


def test_huge_texts_take_no_time() -> None:
    gold, other = ("\n".join([letter] * 50 * MOST_ALIGNED) for letter in "ab")
    start = time.monotonic()
    assert pair_patches(gold, "", other).count("gold") == 50 * MOST_ALIGNED
    assert time.monotonic() - start < 5
