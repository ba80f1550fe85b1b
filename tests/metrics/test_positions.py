"""How responses begin: hand-computed numbers, and a rule that fires exactly where it says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.positions import ResponseStart, find_fights, summarise_starts

THINK, DIFF, BLANK = 7, 3, 9


def start(
    number: int, *, first: float = 8.0, token: int = DIFF, sure: float = 0.95, base: int = THINK
) -> ResponseStart:
    """A response whose later tokens cost one nat each."""
    return ResponseStart(
        cluster=f"repo{number % 4}",
        nll=(first + number / 100, 1.0),
        rest_nll=10.0,
        rest_tokens=10,
        first=token,
        likeliest=((base, sure), (base + 1, 0.01)),
    )


FIGHTING = [start(number) for number in range(20)]


def test_positions_and_shares_are_those_of_the_rows() -> None:
    rows = [
        ResponseStart("a", (4.0, 1.0), 6.0, 2, DIFF, ((DIFF, 0.5),)),
        ResponseStart("b", (2.0,), 0.0, 0, DIFF, ((THINK, 0.9),)),
        ResponseStart("b", (0.0, 3.0), 3.0, 3, THINK, ((THINK, 0.7),)),
    ]
    summary = summarise_starts(rows)
    first, second = summary.positions
    assert (first.position, first.n, first.mean, first.median) == (1, 3, 2.0, 2.0)
    assert (second.position, second.n, second.mean) == (2, 2, 2.0)
    assert first.p10 == pytest.approx(0.4)
    assert summary.first.value == 2.0
    assert summary.rest.value == 9.0 / 5
    assert summary.rest.n == 2
    # (4 - 3) and (0 - 1), over the two rows that have later tokens.
    assert summary.excess.value == 0.0
    assert summary.agreement.value == pytest.approx(2 / 3)
    assert [(entry.token, entry.rows) for entry in summary.of_data] == [(DIFF, 2), (THINK, 1)]
    assert summary.of_data[0].probability == pytest.approx((math.exp(-4) + math.exp(-2)) / 2)
    assert [(entry.token, entry.rows) for entry in summary.of_model] == [(THINK, 2), (DIFF, 1)]
    assert summary.of_model[0].probability == pytest.approx(0.8)


def test_the_interval_is_clustered() -> None:
    spread = [replace(start(n), nll=(float(n % 4),)) for n in range(20)]
    alone = [replace(row, cluster=str(number)) for number, row in enumerate(spread)]
    wide, narrow = summarise_starts(spread).first, summarise_starts(alone).first
    assert wide.ci is not None
    assert narrow.ci is not None
    assert wide.clusters == 4
    assert wide.ci[1] - wide.ci[0] > 2 * (narrow.ci[1] - narrow.ci[0])


def test_data_that_fight_the_template_are_found() -> None:
    (fight,) = find_fights(FIGHTING, blank=())
    assert (fight.kind, fight.token, fight.rows) == ("sure", THINK, 20)
    assert fight.probability == pytest.approx(0.95)
    assert len(find_fights(FIGHTING[:8], blank=())) == 1
    assert find_fights(FIGHTING[:7], blank=()) == ()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([start(n, sure=0.79) for n in range(20)], id="the base is not sure"),
        pytest.param(
            [start(n, base=THINK if n < 17 else DIFF) for n in range(20)], id="not on most rows"
        ),
        pytest.param(
            [start(n, token=DIFF if n < 17 else THINK) for n in range(20)], id="some data agree"
        ),
        pytest.param([start(n, first=2.5) for n in range(20)], id="the rest is as unlikely"),
        pytest.param(
            [start(n, first=0.1, token=THINK) for n in range(20)], id="the base says the same"
        ),
    ],
)
def test_each_part_of_the_rule_is_needed(rows: list[ResponseStart]) -> None:
    assert find_fights(rows, blank=()) == ()


def test_an_excess_that_hangs_on_one_cluster_is_no_claim() -> None:
    rows = [start(n, first=60.0 if n % 4 == 0 else 1.5) for n in range(20)]
    assert (summarise_starts(rows).excess.value or 0) > 2
    assert find_fights(rows, blank=()) == ()


def test_blank_beginnings_the_base_never_writes_are_found() -> None:
    rows = [start(n, token=BLANK if n < 10 else DIFF, sure=0.3) for n in range(20)]
    (fight,) = find_fights(rows, blank={BLANK})
    assert (fight.kind, fight.token, fight.rows) == ("blank", BLANK, 10)
    assert find_fights(rows, blank=()) == ()
    likely = [replace(row, nll=(6.9, 1.0)) for row in rows]
    assert find_fights(likely, blank={BLANK}) == ()
    few = [start(n, token=BLANK if n < 9 else DIFF, sure=0.3) for n in range(20)]
    assert find_fights(few, blank={BLANK}) == ()


def test_nothing_is_no_summary() -> None:
    with pytest.raises(UsageError):
        summarise_starts([])
