"""Health of answers: loops are seen and code is not taken for one, in linear time."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.distributions import wilson_interval
from swe_scaffold.metrics.health import (
    FLAGS,
    Health,
    compare_health,
    health,
    is_repetition,
    summarise_health,
    wants_patch,
)
from swe_scaffold.types import Message
from tests.chats import chat, pair

PATCH = """\
diff --git a/pkg/mod.py b/pkg/mod.py
--- a/pkg/mod.py
+++ b/pkg/mod.py
@@ -1,3 +1,3 @@
 def add(first, second):
-    return first - second
+    return first + second
 # the end
"""
LINES = "".join(f"    self.values[{n}] = compute({n * 7 % 11})\n" for n in range(40))


@pytest.mark.parametrize(
    "text",
    [
        "!!!!",
        "!" * 1000,
        "I will fix it now." + "!" * 1000,
        "haha" * 2,
        "The bug is in add. " * 30,
        PATCH + "+    return None\n" * 80,
        PATCH * 5,
        "    return first\n" * 50 + "The end of it.",
        "\n \n" + "so so so so so so" + "\n\n",
        "a" + "日本語" * 9,
    ],
)
def test_loops_are_seen(text: str) -> None:
    assert is_repetition(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "!!!",
        "no no",
        PATCH,
        PATCH * 3,
        LINES,
        PATCH + LINES,
        "=" * 70 + "\nA heading\n" + LINES + "=" * 70,
        "word " * 20 + LINES,
        "".join(chr(0x4E00 + n) for n in range(2000)) * 2,
    ],
)
def test_text_and_code_are_no_loops(text: str) -> None:
    assert not is_repetition(text)


def by_definition(text: str) -> bool:
    text = text.strip()
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            piece = text[start:end]
            for unit in range(1, len(piece) // 4 + 1):
                if 2 * len(piece) > len(text) and piece[unit:] == piece[:-unit]:
                    return True
    return False


@given(st.text("ab ", max_size=14))
def test_it_is_what_the_definition_says(text: str) -> None:
    assert is_repetition(text) == by_definition(text)


def test_half_is_not_enough() -> None:
    other = "abcdefghijklmnop"
    assert not is_repetition(other + "!" * len(other))
    assert is_repetition(other + "!" * (len(other) + 1))


def test_the_longest_unit_has_500_characters() -> None:
    unit = "".join(chr(0x4E00 + n) for n in range(501))
    assert not is_repetition(unit * 4)
    assert is_repetition(unit[:500] * 4)


def test_a_very_long_answer_takes_no_longer_than_what_is_looked_at() -> None:
    text = "".join(random.Random(0).choices("abc \n", k=4_000_000))
    start = time.perf_counter()
    assert not is_repetition(text)
    assert is_repetition(text + "!" * 100_000)
    # Comparing every unit over the whole text would take over ten times as long.
    assert time.perf_counter() - start < 5


def test_an_answer_is_judged() -> None:
    assert health(PATCH, stopped=True, expects_patch=True) == Health(True, False, False, True)
    assert health("!!!!", stopped=False, expects_patch=True) == Health(False, False, True, False)
    assert health(" \n", stopped=True, expects_patch=True) == Health(True, True, False, False)
    assert health(PATCH, stopped=True, expects_patch=False).parseable is None
    cut = PATCH.rstrip("\n")[:-3]
    assert health(cut, stopped=True, expects_patch=True).parseable is True
    assert health(cut, stopped=False, expects_patch=True).parseable is False


def test_a_row_wants_a_patch_where_its_gold_response_is_one() -> None:
    assert wants_patch(pair("p", PATCH))
    assert wants_patch(pair("p", "anything of the source `patch`"))
    summary = replace(pair("p", "It adds."), response_source="change_summary")
    assert not wants_patch(summary)
    assert wants_patch(replace(summary, response=PATCH))
    assert not wants_patch(chat(Message("user", "u"), Message("assistant", PATCH)))


def test_shares_have_their_intervals_and_their_own_n() -> None:
    rows = [
        Health(True, False, False, True),
        Health(True, False, True, False),
        Health(False, True, False, None),
    ]
    found = summarise_health(rows)
    assert tuple(found) == FLAGS
    assert (found["stopped"].value, found["stopped"].n) == (2 / 3, 3)
    assert (found["parseable"].value, found["parseable"].n) == (0.5, 2)
    assert found["repeated"].ci == wilson_interval(1, 3)
    nothing = summarise_health([])["stopped"]
    assert (nothing.value, nothing.ci, nothing.n) == (None, None, 0)
    assert nothing.reason


def test_two_models_stand_side_by_side() -> None:
    base = [Health(True, False, False, True), Health(False, False, True, False)]
    tuned = [Health(True, False, False, False), Health(True, False, False, True)]
    found = compare_health(base, tuned)
    assert (found["stopped"].base.value, found["stopped"].tuned.value) == (0.5, 1.0)
    assert (found["stopped"].only_base, found["stopped"].only_tuned) == (0, 1)
    assert (found["parseable"].only_base, found["parseable"].only_tuned) == (1, 1)
    # Nine of nine rows that differ stopped under the second model alone: 2 / 2^9.
    never, ever = [Health(False, False, False, None)] * 9, [Health(True, False, False, None)] * 9
    table = compare_health(never, ever)
    assert table["stopped"].p_value == 2 / 2**9
    assert (table["empty"].p_value, table["parseable"].p_value) == (1.0, None)
    with pytest.raises(UsageError, match="same rows"):
        compare_health(base, tuned[:1])
