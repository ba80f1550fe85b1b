"""Digits follow the interval; what is no number is absent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.numbers import Estimate, decimals, finite, fixed, point, shown, whole


@pytest.mark.parametrize(
    ("estimate", "signed", "expected"),
    [
        (Estimate(1.23456, 1.1, 1.37), False, ("1.23", "[1.10, 1.37]")),
        (Estimate(1.23456, 1.2335, 1.2356), False, ("1.2346", "[1.2335, 1.2356]")),
        (Estimate(-0.5584, -0.585, -0.531), True, ("−0.558", "[−0.585, −0.531]")),
        (Estimate(0.02, -0.05, 0.09), True, ("+0.020", "[−0.050, +0.090]")),
        (Estimate(1234.5, 1100.0, 1400.0), False, ("1,234", "[1,100, 1,400]")),
        (Estimate(0.0, 0.0, 0.0), True, ("0.0000", "[0.0000, 0.0000]")),
        (Estimate(2.5), False, ("2.5", "")),
        (Estimate(0.123456), True, ("+0.1235", "")),
        (Estimate(3e12, 2e12, 4e12), False, ("3 × 10¹²", "[2 × 10¹², 4 × 10¹²]")),
    ],
)
def test_an_estimate_is_written(
    estimate: Estimate, signed: bool, expected: tuple[str, str]
) -> None:
    assert shown(estimate, signed=signed) == expected


def test_an_end_beside_zero_is_not_rounded_to_zero() -> None:
    assert shown(Estimate(-0.11, -0.22, -0.0004), signed=True)[1] == "[−0.2200, −0.0004]"


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_written_numbers_are_near_and_keep_their_sign(
    value: float, below: float, above: float, signed: bool
) -> None:
    estimate = Estimate(value, value - below, value + above)
    text, interval = shown(estimate, signed=signed)
    low, high = interval.strip("[]").split(", ")
    half = ((value + above) - (value - below)) / 2
    for end, written in ((value - below, low), (value, text), (value + above, high)):
        number = float(written.replace(",", "").replace("−", "-"))
        assert abs(number - end) <= max(0.051 * half, 0.5 * 10.0 ** -decimals(half)) + 1e-9
        assert number == 0 or math.copysign(1, number) == math.copysign(1, end)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (1.0, "1"),
        (0.0012, "0.0012"),
        (2e-5, "2 × 10⁻⁵"),
        (-1.5, "−1.5"),
        (12345.6, "12,346"),
        (1.234e9, "1.23 × 10⁹"),
        (99999.99, "100,000"),
        (1200.0, "1,200"),
    ],
)
def test_a_number_without_interval_is_written(value: float, expected: str) -> None:
    assert point(value) == expected


@pytest.mark.parametrize(("half", "digits"), [(0.1, 2), (0.099, 3), (12, 0), (0, 4), (1e-30, 6)])
def test_two_significant_digits_of_the_half_width(half: float, digits: int) -> None:
    assert decimals(half) == digits


def test_zero_has_no_sign() -> None:
    assert fixed(-0.0001, 2, signed=True) == "0.00"


@pytest.mark.parametrize("bad", [None, True, "1", math.nan, math.inf, 10**400, [], {}])
def test_what_is_no_number_is_absent(bad: object) -> None:
    assert finite(bad) is None
    assert whole(bad) is None
    assert Estimate.read({"value": bad, "ci": [0, 1]}) is None
    assert Estimate.read({"value": 1.0, "ci": [bad, 2]}) == Estimate(1.0)


@pytest.mark.parametrize("ci", [None, [], [1], [2, 1], [1, 2, 3], "12", {"a": 1}, 3])
def test_a_broken_interval_is_none(ci: object) -> None:
    found = Estimate.read({"value": 1.5, "ci": ci})
    assert found is not None
    assert found.interval is None
    assert not found.excludes_zero


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(1, 2, True), (0, 2, False), (-1, 0, False), (-2, -1, True)]
)
def test_touching_zero_is_not_excluding_it(low: float, high: float, excludes: bool) -> None:
    assert Estimate((low + high) / 2, low, high).excludes_zero is excludes


def test_a_value_outside_its_interval_excludes_nothing() -> None:
    assert not Estimate(-1.0, 1.0, 2.0).excludes_zero
