"""The sentence at the top claims what the interval shows, and nothing more."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.numbers import claim
from swe_scaffold.report.material import HoldOut, Material
from swe_scaffold.report.verdict import control, headline, warnings
from tests.report import sample

CLAIMS = ("lower", "higher", "better", "worse", "below zero", "above zero", "likelier")


def material(report: dict[str, Any], *hold_out: HoldOut) -> Material:
    return Material("run", Path("run"), (), hold_out, {}, report, None)


def report_with(effect: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    comparison = None if effect is None else {"effect": effect, **more.pop("comparison", {})}
    return {"comparison": comparison, "compared_rows": "unseen", **more}


def effect(value: float, ci: Any, **more: Any) -> dict[str, Any]:
    return {"value": value, "ci": ci, "n": 40, "clusters": 10, "level": 0.95, **more}


@pytest.mark.parametrize(
    ("value", "ci", "kind", "lead"),
    [
        (-0.5, [-0.6, -0.4], "better", "Lower loss than the base on unseen rows."),
        (0.5, [0.4, 0.6], "worse", "Higher loss than the base on unseen rows."),
        (-0.5, [-1.1, 0.1], "none", "No difference from the base shown on unseen rows."),
        (0.1, [0.0, 0.2], "none", "No difference from the base shown on unseen rows."),
        (-5e-7, [-6e-7, -4e-7], "none", "No difference from the base shown on unseen rows."),
        (-0.5, None, "silent", "No claim: there is no interval."),
    ],
)
def test_the_interval_decides(value: float, ci: list[float] | None, kind: str, lead: str) -> None:
    sentence = headline(material(report_with(effect(value, ci))))
    assert (sentence.kind, sentence.lead) == (kind, lead)


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10))
def test_no_claim_without_an_interval_on_one_side(value: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    sentence = headline(material(report_with(effect(value, [low, high]))))
    if sentence.kind == "better":
        assert high < 0
        assert value < 0
    elif sentence.kind == "worse":
        assert low > 0
        assert value > 0
    else:
        words = f"{sentence.lead} {sentence.text}".lower()
        assert not [word for word in CLAIMS if word in words]


@given(st.floats(-10, -1e-3), st.floats(0, 5), st.floats(0, 5))
def test_what_the_metrics_call_better_is_called_so(mid: float, below: float, above: float) -> None:
    high = mid + above
    kind = claim({"effect": effect(mid, [mid - below, high])})
    assert kind == ("better" if high < 0 else "none")


@pytest.mark.parametrize("recorded", ["worse", "no difference shown", "splendid"])
def test_a_recorded_verdict_never_adds_to_the_interval(recorded: str) -> None:
    report = report_with(effect(-0.5, [-0.6, -0.4]), comparison={"verdict": recorded})
    sentence = headline(material(report))
    assert sentence.kind == "none"
    assert "do not agree" in sentence.text


def test_a_recorded_verdict_beyond_the_interval_is_told() -> None:
    report = report_with(effect(-0.5, [-0.6, 0.4]), comparison={"verdict": "better"})
    assert headline(material(report)).kind == "none"
    assert [text for text in warnings(material(report)) if "beyond" in text]


@pytest.mark.parametrize("compared", ["trained", None, "all"])
def test_rows_seen_in_training_never_stand_for_new_ones(compared: str | None) -> None:
    report = {**report_with(effect(-0.5, [-0.6, -0.4])), "compared_rows": compared}
    sentence = headline(material(report))
    assert "unseen" not in sentence.lead + sentence.text
    assert sentence.text.endswith("This says nothing about new rows.")


def test_no_difference_comes_with_what_could_have_been_found() -> None:
    report = report_with(
        effect(-0.02, [-0.09, 0.05]), comparison={"minimum_detectable_effect": 0.0702}
    )
    assert "A true difference of 0.070 would" in headline(material(report)).text


def test_few_clusters_are_told_in_the_sentence_itself() -> None:
    few = sample.scores(20, groups=["a", "b", "c"])
    for by in (-0.4, 0.0):
        report = sample.evaluation(few, sample.moved(few, by))
        sentence = headline(material(report))
        assert sentence.text.endswith("Few clusters (3 < 8): the interval is a rough guide.")
    alone = {**report, "comparison": None}
    assert "Few clusters (3 < 8): the interval is a rough guide." in warnings(material(alone))


def test_one_cluster_gives_no_claim() -> None:
    one = sample.scores(12, groups=["only"])
    report = sample.evaluation(one, sample.moved(one, -0.9))
    sentence = headline(material(report))
    assert sentence.kind == "silent"
    assert "one cluster holds every example" in sentence.text


def test_without_a_comparison_the_loss_stands_alone() -> None:
    report = {**sample.evaluation(), "comparison": None, "base": None, "compared_rows": None}
    sentence = headline(material(report))
    assert (sentence.kind, sentence.lead) == ("silent", "Not compared with the base.")
    assert "84 unseen rows in 14 groups" in sentence.text


def test_without_an_evaluation_the_hold_out_is_a_point() -> None:
    first, last = HoldOut(0, 2.5, 10), HoldOut(20, 1.25, 10)
    assert headline(material({}, first, last)).text == (
        "The hold-out loss went from 2.5 at step 0 to 1.25 at step 20: "
        "single numbers without an interval."
    )
    assert headline(material({}, last)).kind == "silent"
    assert headline(material({})).text == "There is no hold-out number either."


def test_another_adapter_is_told() -> None:
    files = {"adapter_model.safetensors": {"sha256": "1" * 64}}
    found = Material("run", Path("run"), (), (), {"files": files}, sample.evaluation(), None)
    assert warnings(found)[0].startswith("This evaluation is of other weights")


def shuffled(value: float, ci: Any) -> dict[str, Any]:
    return {"shuffled_prompts": {"comparison": {"effect": effect(value, ci)}, "left_out": 0}}


def test_the_prompt_control_obeys_its_interval() -> None:
    leads = {}
    for name, low, high in (("used", -0.4, -0.1), ("misled", 0.1, 0.4), ("open", -0.1, 0.4)):
        found = control(shuffled((low + high) / 2, [low, high]))
        assert found is not None
        leads[name] = found.lead
    assert leads == {
        "used": "Responses are likelier after their own prompt.",
        "misled": "Responses are less likely after their own prompt.",
        "open": "No use of the prompt is shown.",
    }
    alone = control(shuffled(-1.0, None))
    assert alone is not None
    assert alone.lead == "Prompt control: no interval."
    assert control({"shuffled_prompts": None}) is None


def test_a_control_without_result_says_why() -> None:
    part = {"comparison": None, "left_out": 4, "reason": "no group has two prompts"}
    found = control({"shuffled_prompts": part})
    assert found is not None
    assert found.text == "No group has two prompts."


@pytest.mark.parametrize("bad", [math.nan, math.inf, "x", None, True])
def test_an_effect_that_is_no_number_claims_nothing(bad: Any) -> None:
    assert claim({"effect": effect(bad, [-2, -1])}) == "silent"
    assert claim({"effect": effect(-1.0, [-2, bad])}) == "silent"
