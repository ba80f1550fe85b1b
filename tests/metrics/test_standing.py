"""Where a row stands among others of its kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swe_scaffold.errors import IntegrityError
from swe_scaffold.metrics.standing import Standing, standing
from swe_scaffold.types import ExampleScore, SpeedrunLabel


def score(number: int, nll: float, *, tokens: int = 10, seen: bool | None = None) -> ExampleScore:
    return ExampleScore(
        instance_id=f"row-{number}",
        repo="r",
        group="r",
        label=SpeedrunLabel.SUCCESS,
        nll_sum=nll * tokens,
        tokens=tokens,
        bytes=40,
        prompt_tokens=5,
        sha256=f"{number}",
        seen_in_training=seen,
    )


def test_the_lowest_nll_per_token_is_first_whatever_the_length() -> None:
    rows = [score(0, 2.0), score(1, 1.0, tokens=1000), score(2, 3.0, tokens=1), score(3, 2.0)]
    places = [standing(row, rows).place for row in rows]
    assert places == [2, 1, 4, 2]
    assert standing(rows[1], rows) == Standing(1.0, 1, 4, "unseen")


def test_the_largest_fall_is_first_and_unpaired_rows_take_no_part() -> None:
    after = [score(0, 2.0), score(1, 2.5), score(2, 0.1)]
    before = [score(1, 3.0), score(0, 2.0)]
    assert standing(after[1], after, before) == Standing(-0.5, 1, 2, "unseen")
    assert standing(after[0], after, before) == Standing(0.0, 2, 2, "unseen")
    with pytest.raises(IntegrityError, match="'row-2'"):
        standing(after[2], after, before)


def test_rows_are_compared_with_their_own_kind() -> None:
    rows = [score(0, 2.0, seen=False), score(1, 1.0, seen=True), score(2, 3.0, seen=False)]
    assert standing(rows[0], rows) == Standing(2.0, 1, 2, "unseen")
    assert standing(rows[1], rows) == Standing(1.0, 1, 1, "trained")
    changed = replace(rows[2], nll_sum=0.0)
    assert standing(changed, [rows[0], changed]).place == 1
