"""What a trajectory shows of files and lines, against a patch; and what the guide looks for."""

from __future__ import annotations

from typing import Any

from swe_scaffold.diffs import unified_diff
from swe_scaffold.metrics.places import Lines, Places
from swe_scaffold.walkthrough.seen import gold_places, inspected, localise, reported_files


def shown(path: str, first: int, last: int) -> dict[str, Any]:
    extra = {"path": path, "first": first, "last": last}
    return {"role": "tool", "tool_call_id": "c", "content": "", "extra": extra}


def trajectory(*messages: dict[str, Any], report: str = "") -> dict[str, Any]:
    return {"info": {"submission": report}, "messages": list(messages)}


def test_lines_shown_are_joined_and_files_in_the_order_of_reading() -> None:
    found = inspected(
        trajectory(
            shown("b.py", 10, 20), shown("a.py", 1, 5), shown("b.py", 21, 30), shown("b.py", 1, 3)
        )
    )
    assert [(file.path, file.ranges) for file in found] == [
        ("b.py", ((1, 3), (10, 30))),
        ("a.py", ((1, 5),)),
    ]


def test_a_walkthrough_is_held_against_a_patch() -> None:
    gold = Places(frozenset({"a.py", "c.py"}), (Lines("a.py", 4, 6), Lines("c.py", 1, 2)))
    found = localise(
        trajectory(shown("b.py", 1, 9), shown("a.py", 1, 5), report="See `b.py:3`, then a.py:4-6."),
        gold,
    )
    assert (found["seen_file_precision"], found["seen_file_recall"]) == (0.5, 0.5)
    # Of fourteen lines two are right, of the five that there are.
    assert (found["seen_line_precision"], found["seen_line_recall"]) == (2 / 14, 2 / 5)
    assert found["file_f1"] == 0.5
    assert (found["hit_at_1"], found["hit_at_5"], found["reciprocal_rank"]) == (0, 1, 0.5)
    nothing = localise(trajectory(), gold)
    assert (nothing["file_f1"], nothing["seen_line_recall"], nothing["reciprocal_rank"]) == (
        0,
        0,
        0,
    )
    assert nothing["file_precision"] is None


def test_only_what_is_there_can_be_found() -> None:
    old = "".join(f"{number}\n" for number in range(20))
    patch = unified_diff("a.py", old, old.replace("10\n", "ten\n"))
    new = unified_diff("new.py", "", "1\n").replace("--- a/new.py", "--- /dev/null")
    gold = gold_places(patch + new)
    assert gold is not None
    assert gold.files == {"a.py"}
    assert gold.lines == (Lines("a.py", 11, 11),)
    assert gold_places(new) is None
    assert gold_places("") is None


def test_a_report_names_files_with_lines_or_else_at_all() -> None:
    assert reported_files("`x/y.py:10`, README.md and z.go:3-9, again x/y.py:12") == [
        "x/y.py",
        "z.go",
    ]
    assert reported_files("Look at README.md and x/y.py.") == ["README.md", "x/y.py"]
    assert reported_files("Nothing, e.g. at all.") == []
