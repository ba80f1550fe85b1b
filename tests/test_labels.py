"""Labels: an explicit outcome decides, else the numbers of a trajectory, else an answer."""

from __future__ import annotations

from typing import Any

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.labels import (
    LabelThresholds,
    SpeedrunLabel,
    label_conversation,
    label_outcome,
    read_outcome,
)
from swe_scaffold.types import Outcome

SUCCESS, FAILURE = SpeedrunLabel.SUCCESS, SpeedrunLabel.FAILURE


@pytest.mark.parametrize(
    ("row", "label"),
    [
        pytest.param({"patch": "x"}, SUCCESS, id="a patch is success"),
        pytest.param({"change_summary": "x"}, SUCCESS, id="a summary is success"),
        pytest.param({"response": "x"}, SUCCESS, id="a built row's response is success"),
        pytest.param({"patch": " \n\t"}, FAILURE, id="white space is no patch"),
        pytest.param({"test_patch": "x"}, FAILURE, id="a test patch alone is failure"),
        pytest.param({}, FAILURE, id="nothing is failure"),
        pytest.param({"resolved": False, "patch": "x"}, FAILURE, id="resolved beats the patch"),
        pytest.param({"resolved": True}, SUCCESS, id="resolved needs no patch"),
        pytest.param({"outcome": "failed", "pass_rate": 1.0}, FAILURE, id="outcome beats numbers"),
        pytest.param({"resolved": None, "patch": "x"}, SUCCESS, id="null says nothing"),
        pytest.param({"resolved": "", "patch": "x"}, SUCCESS, id="blank says nothing"),
        pytest.param({"resolved": "Yes"}, SUCCESS, id="words are read"),
        pytest.param({"resolved": 0, "patch": "x"}, FAILURE, id="numbers are read"),
        pytest.param({"pass_rate": 0.6}, SUCCESS, id="pass_rate at its bound"),
        pytest.param({"pass_rate": 0.59, "patch": "x"}, FAILURE, id="pass_rate below"),
        pytest.param({"turns": 18}, SUCCESS, id="turns at their bound"),
        pytest.param({"turns": 19, "patch": "x"}, FAILURE, id="turns above"),
        pytest.param({"turns": 18.5, "patch": "x"}, FAILURE, id="a little above is above"),
        pytest.param({"response_tokens": 2048}, SUCCESS, id="tokens at their bound"),
        pytest.param({"response_tokens": "2049"}, FAILURE, id="tokens above"),
        pytest.param({"pass_rate": 1, "turns": 99}, FAILURE, id="all present numbers must hold"),
        pytest.param({"pass_rate": None, "turns": 3}, SUCCESS, id="absent numbers are ignored"),
        pytest.param({"label": "failure", "resolved": True}, FAILURE, id="a label is kept"),
        pytest.param({"label": "success", "pass_rate": 0}, SUCCESS, id="a label is not recomputed"),
    ],
)
def test_label_of_a_row(row: dict[str, Any], label: SpeedrunLabel) -> None:
    assert label_conversation(row) is label


@pytest.mark.parametrize(
    "row",
    [
        {"label": "maybe"},
        {"resolved": "perhaps"},
        {"resolved": 2},
        {"resolved": [True]},
        {"pass_rate": "high"},
        {"pass_rate": True},
        {"pass_rate": float("nan")},
        {"turns": 10**400},
        {"turns": "1e999"},
    ],
    ids=str,
)
def test_unreadable_outcomes_are_refused_by_name(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(row))):
        label_conversation(row)


def test_thresholds_can_be_moved() -> None:
    strict = LabelThresholds(min_pass_rate=0.9, max_turns=2, max_response_tokens=10)
    assert label_conversation({"pass_rate": 0.8}) is SUCCESS
    assert label_conversation({"pass_rate": 0.8}, strict) is FAILURE
    assert label_outcome(Outcome(turns=3), has_answer=True, thresholds=strict) is FAILURE


def test_outcome_keeps_what_is_known_apart_from_what_is_not() -> None:
    assert read_outcome({"turns": "7", "pass_rate": ""}) == Outcome(turns=7)
    assert read_outcome({}) == Outcome()
