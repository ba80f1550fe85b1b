"""Numbers and tables for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from swe_scaffold.cli.tables import counts, facts, level, number, place, table


def metric(
    value: float | None, ci: tuple[float, float] | None, reason: str = ""
) -> dict[str, object]:
    return {"value": value, "ci": ci, "reason": reason, "level": 0.95}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (metric(1.23456, (1.2, 1.3)), "1.235 [1.200, 1.300]"),
        (metric(-0.5, (-0.51, -0.49)), "-0.500 [-0.510, -0.490]"),
        (metric(381.6, (372.3, 391.2)), "381.6 [372.3, 391.2]"),
        (metric(2.0, (2.0, 2.0)), "2.0000 [2.0000, 2.0000]"),
        (metric(3e30, (1e30, 9e30)), "3e+30 [1e+30, 9e+30]"),
        (metric(2.5, None, "one example"), "2.5 (no interval: one example)"),
        (metric(None, None, "overflow"), "none (overflow)"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_carries(
    value: dict[str, object], shown: str
) -> None:
    assert number(value) == shown


def test_a_table_aligns_numbers_to_the_right_and_neutralises_text() -> None:
    text = table(["name\x1b", "count"], [["a", 5], ["long\nname", "1,234"]])
    assert text.split("\n") == [
        "name\\x1b    count",
        "----------  -----",
        "a               5",
        "long\\nname  1,234",
    ]


def test_facts_are_aligned_and_neutralised() -> None:
    text = facts("file\x1b", [("rows", 5), ("long name", "a\nb"), ("none", "")])
    assert text == "file\\x1b\n  rows       5\n  long name  a\\nb\n  none"


def test_paths_are_never_cut() -> None:
    path = Path("a" * 200) / ("b" * 200)
    assert str(path) in table(["x", ""], [["adapter", path]])
    assert str(path) in facts("x", [("adapter", path)])
    assert place(path) == str(path)


def test_small_words() -> None:
    assert counts({"a": 3, "b\x1b": 2}) == "a 3, b\\x1b 2"
    assert counts({}) == "none"
    assert level(metric(1, None)) == "95 %"
    assert level({"level": 0.999}) == "99.9 %"
    assert table(["only", "headers"], []) == "only  headers\n----  -------"
