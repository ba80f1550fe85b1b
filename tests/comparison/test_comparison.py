"""Evaluations compared: the same rows or a refusal, seen rows, answers, and the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.comparison import Comparison, Gate, compare_evaluations
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.jsonl import loads_strict
from swe_scaffold.types import ExampleScore
from tests.comparison.conftest import score

Write = Callable[..., Path]
CONFIG = EvaluationConfig(iterations=199)


def rows(difference: float = 0.0, count: int = 40, **fields: Any) -> list[ExampleScore]:
    """Rows whose NLL is so much above the baseline's, per token, with some noise by row."""
    return [
        score(
            n, 60.0 + 20 * (difference + (0.02 if difference else 0) * (-1) ** (n // 2)), **fields
        )
        for n in range(count)
    ]


def compare(*places: Path, **options: Any) -> Comparison:
    return compare_evaluations(places, config=CONFIG, **options)


def test_a_model_is_compared_with_the_first(write_evaluation: Write) -> None:
    places = [write_evaluation(name, rows(d)) for name, d in (("a", 0), ("b", -0.3), ("c", 0.2))]
    result = compare(*places)
    better, worse = result.report["models"]
    assert result.passes is None
    assert (better["model"]["name"], worse["model"]["name"]) == ("b", "c")
    assert better["comparison"]["effect"]["value"] == pytest.approx(-0.3)
    assert (better["comparison"]["verdict"], worse["comparison"]["verdict"]) == ("better", "worse")
    assert better["comparison"]["effect"]["clusters"] == 10
    assert set(better["comparison"]["slices"]) == {
        *("group", "label", "response_source", "length", "language", "token_class")
    }
    # Two models: each p-value allows for the other.
    assert better["p_holm"] == pytest.approx(2 * better["comparison"]["sign_flip"]["p_value"])
    assert loads_strict(json.dumps(result.report, allow_nan=False), "report")
    again = compare(*places).report
    assert again == result.report


def test_other_rows_are_refused_or_left_out_on_request(write_evaluation: Write) -> None:
    whole = write_evaluation("whole", rows())
    fewer = write_evaluation("fewer", rows(-0.3)[:30])
    with pytest.raises(IntegrityError, match="10 rows are not in every evaluation") as error:
        compare(whole, fewer)
    assert "row-030" in error.value.message
    assert "--common" in error.value.hint
    result = compare(whole, fewer, common=True).report["data"]
    assert (result["rows"], result["only_in_some"]) == (30, 10)
    other = write_evaluation("other", rows(-0.3), data={"sha256": "e" * 64})
    with pytest.raises(IntegrityError, match="other data"):
        compare(whole, other)
    assert compare(whole, other, common=True).report["data"]["rows"] == 40
    shorter = write_evaluation("shorter", rows(-0.3), data={"max_length": 64})
    with pytest.raises(IntegrityError, match="at most 64 tokens, the baseline with 128"):
        compare(whole, shorter)


def test_rows_that_were_trained_on_are_refused_unless_asked_for(write_evaluation: Write) -> None:
    base = write_evaluation("base", rows(seen_in_training=None))
    tuned = rows(-0.3)
    tuned[:10] = [replace(row, nll_sum=1.0, seen_in_training=True) for row in tuned[:10]]
    place = write_evaluation("tuned", tuned)
    with pytest.raises(IntegrityError, match="10 of 40 rows were trained on") as error:
        compare(base, place)
    assert (error.value.where, error.value.exit_code) == ("tuned", 5)
    dropped = compare(base, place, seen="drop").report
    assert (dropped["data"]["rows"], dropped["data"]["seen_left_out"]) == (30, 10)
    assert dropped["models"][0]["comparison"]["effect"]["value"] == pytest.approx(-0.3, abs=0.01)
    included = compare(base, place, seen="include").report
    assert included["models"][0]["comparison"]["effect"]["value"] < -0.8
    all_seen = write_evaluation("all", rows(-0.3, seen_in_training=True))
    with pytest.raises(IntegrityError, match="no rows to compare"):
        compare(base, all_seen, seen="drop")


def test_two_tokenizers_are_compared_by_bytes(write_evaluation: Write) -> None:
    base = write_evaluation("base", rows())
    other = write_evaluation("other", rows(-0.3, tokens=17), data={"rendering": "s" * 64})
    report = compare(base, other).report
    assert report["data"]["per"] == "byte"
    effect = report["models"][0]["comparison"]["effect"]
    assert effect["unit"] == "bits/byte"
    assert effect["value"] == pytest.approx(-0.3 * 20 / 80 / 0.6931, rel=1e-3)


@pytest.mark.parametrize(
    ("difference", "gate", "passes"),
    [
        (-0.3, Gate("better"), True),
        (-0.3, Gate("better", 0.2), True),
        (-0.3, Gate("better", 0.4), False),
        (0.001, Gate("better"), False),
        (0.001, Gate("not-worse"), True),
        (0.3, Gate("not-worse"), False),
        (0.3, Gate("not-worse", 0.5), True),
    ],
)
def test_the_gate_is_the_interval(
    write_evaluation: Write, difference: float, gate: Gate, passes: bool
) -> None:
    places = write_evaluation("base", rows()), write_evaluation("tuned", rows(difference))
    result = compare(*places, gate=gate)
    assert result.passes is passes
    judgement = result.report["models"][0]["gate"]
    assert judgement["passes"] is passes
    assert judgement["reasons"]


def test_a_gate_never_passes_for_want_of_data(write_evaluation: Write) -> None:
    one = {"group": "one/only", "repo": "one/only"}
    places = write_evaluation("base", rows(**one)), write_evaluation("tuned", rows(-0.3, **one))
    result = compare(*places, gate=Gate("better"))
    assert result.passes is False
    assert "no interval: one cluster" in result.report["models"][0]["gate"]["reasons"][0]
    with pytest.raises(UsageError, match="--margin"):
        Gate("better", -0.1)
    with pytest.raises(UsageError, match="--margin"):
        Gate("not-worse", 0.0)


def answers(count: int, **flags: Any) -> list[dict[str, Any]]:
    fine = {"stopped": True, "empty": False, "repeated": False, "parseable": True}
    return [
        {"instance_id": f"row-{n:03d}", "sha256": f"sha-{n}", "text": "x", **fine, **flags}
        for n in range(count)
    ]


def test_a_better_likelihood_with_sick_answers_does_not_pass(write_evaluation: Write) -> None:
    base = write_evaluation("base", rows(), answers=answers(20))
    loud = {"stopped": False, "repeated": True, "parseable": False}
    sick = write_evaluation("sick", rows(-0.3), answers=answers(20, **loud))
    result = compare(base, sick, gate=Gate("better"))
    model = result.report["models"][0]
    assert model["comparison"]["verdict"] == "better"
    assert model["health"]["repeated"]["tuned"]["value"] == 1.0
    assert model["health"]["repeated"]["only_tuned"] == 20
    assert result.passes is False
    assert len(model["gate"]["reasons"]) == 3
    well = write_evaluation("well", rows(-0.3), answers=answers(20))
    assert compare(base, well, gate=Gate("better")).passes is True
    # The other way round, sick answers of the baseline are nothing against a model.
    assert (
        compare(
            sick, write_evaluation("best", rows(-0.6), answers=answers(20)), gate=Gate("better")
        ).passes
        is True
    )
    # Nor are answers to prompts of rows that are left out.
    half = write_evaluation("half", rows(-0.3)[:10], answers=answers(20))
    report = compare(base, half, common=True).report["models"][0]
    assert report["health"]["stopped"]["base"]["n"] == 10
    # Answers to other prompts are not paired.
    others = answers(40)[20:]
    apart = write_evaluation("apart", rows(-0.3), answers=others)
    assert compare(base, apart).report["models"][0]["health"] is None


def test_one_evaluation_is_not_enough(write_evaluation: Write, tmp_path: Path) -> None:
    place = write_evaluation("a", rows())
    with pytest.raises(UsageError, match="at least two"):
        compare(place)
    with pytest.raises(UsageError, match="no evaluation"):
        compare(place, tmp_path)
