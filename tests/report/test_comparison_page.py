"""The page of a comparison: what the intervals show, beside what could have been found."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from swe_scaffold.metrics.comparison import compare
from swe_scaffold.metrics.health import Health, compare_health
from swe_scaffold.metrics.shares import holm
from swe_scaffold.report.comparison_page import comparison_page
from swe_scaffold.types import ExampleScore, SpeedrunLabel
from tests.report import sample
from tests.report.reading import checked
from tests.report.test_run_page import HOSTILE, SPELT


def scores() -> list[ExampleScore]:
    rows = sample.scores()
    return [
        replace(
            one,
            language="rust" if number % 3 else "python",
            response_source="patch",
            label=SpeedrunLabel.SUCCESS,
        )
        for number, one in enumerate(rows)
    ]


def about(name: str, **more: Any) -> dict[str, Any]:
    return {
        "model": {"name": name, "dtype": "float32", "device": "cpu", "base_sha256": "b" * 64},
        "evaluation": f"runs/{name} x/evaluation/5d41/evaluation.json",
        "key": name * 20,
        "prompts_shortened": 0,
        "shuffled_prompts": None,
        "notes": [],
        **more,
    }


def answers(worse: int) -> list[Health]:
    return [Health(n > worse, False, n <= worse, None) for n in range(20)]


def report(*moves: float, gate: bool = True) -> dict[str, Any]:
    """A report with the keys that `compare` writes."""
    base = scores()
    pairs = [
        compare(base, list(sample.moved(base, move, noise=0.02)), **sample.STATISTICS)
        for move in moves
    ]
    adjusted = holm({str(n): pair.sign_flip.p_value for n, pair in enumerate(pairs)})
    health = compare_health(answers(2), answers(9))
    models = [
        {
            **about(f"model{number}"),
            "comparison": asdict(pair),
            "p_holm": adjusted[str(number)],
            "health": {name: asdict(one) for name, one in health.items()},
            "gate": {
                "passes": pair.verdict == "better",
                "wanted": "better",
                "limit": 0.0,
                "reasons": ["the upper end of the difference is what it is"],
            }
            if gate
            else None,
        }
        for number, pair in enumerate(pairs)
    ]
    return {
        "schema": 1,
        "kind": "comparison",
        "settings": dict(sample.SETTINGS),
        "data": {
            "sha256": sample.DATA_SHA256,
            "rows": len(base),
            "seen": "drop",
            "seen_left_out": 3,
            "only_in_some": 0,
            "per": "token",
        },
        "baseline": about("baseline", notes=["nothing is known of its past"]),
        "models": models,
        "passes": None,
    }


def sections(text: str) -> list[str]:
    return [a["id"] for tag, a in checked(text).elements if tag == "section"]


def test_one_model_is_told_in_words_numbers_and_a_plot() -> None:
    text = comparison_page(report(-0.6))
    page = checked(text)
    assert sections(text) == [
        *("model-1", "model-1-groups", "model-1-slices", "model-1-health", "data", "commands")
    ]
    assert "Lower loss than the baseline. Over 84 rows in 14 groups, model\u00a0−" in page.text
    assert "The gate “better”: passes." in page.text
    assert "which lies below zero" in page.text
    assert "The same for all rows: label success, response source patch." in page.text
    assert sample.DATA_SHA256 in page.text
    assert "baseline: nothing is known of its past." in page.text
    command = text.partition("<pre")[2] and re.search(r"swe-scaffold compare[^<]*", text)
    assert command is not None
    assert command[0].split(" \\\n    ") == [
        "swe-scaffold compare &#x27;runs/baseline x/evaluation/5d41&#x27; "
        "&#x27;runs/model0 x/evaluation/5d41&#x27;",
        "--seen drop",
        "--gate better",
        "--set evaluation.iterations=199",
    ]


def test_no_difference_stands_beside_what_could_have_been_found() -> None:
    base = scores()
    noise = list(sample.moved(base, 0.0, noise=0.3))
    given = report(-0.6)
    given["models"][0]["comparison"] = asdict(compare(base, noise, **sample.STATISTICS))
    page = checked(comparison_page(given))
    assert "No difference from the baseline shown." in page.text
    assert "would be found in 80\u00a0% of such comparisons." in page.text
    assert "Detectable, about" in page.text
    shown = page.text.count("no difference shown")
    assert shown
    assert page.text.count("detectable: about 0.") >= shown - 1


def test_an_interval_for_few_clusters_can_withhold_the_claim() -> None:
    given = report(-0.6)
    comparison = given["models"][0]["comparison"]
    for entry in (comparison, comparison["slices"]["language"]["rust"]):
        wide = {**entry["effect"], "ci": [-2.0, 0.5], "ci_method": "a wider one"}
        entry.update(effect_small_sample=wide, verdict="no difference shown")
    text = checked(comparison_page(given)).text
    assert "No difference from the baseline shown." in text
    assert "lies below zero; the interval for few or unequal clusters, [−2.0,\u00a0+0.5]" in text
    assert "For few or unequal clusters: a wider one" in text
    assert "no difference shownfor few clusters [−2.0, +0.5]detectable: about" in text


def test_several_models_have_a_table_and_a_section_each() -> None:
    text = comparison_page(report(-0.6, 0.4, gate=False))
    page = checked(text)
    assert sections(text)[:2] == ["overview", "model-1"]
    assert "model-2-groups" in sections(text)
    assert "p adjusted for all models (Holm)" in page.text
    assert "Higher loss than the baseline." in page.text
    assert "Rows whose NLL rose most from baseline to model" in page.text
    assert "The gate" not in page.text
    assert comparison_page(report(-0.6, 0.4, gate=False)) == text


def test_other_tokenizers_are_compared_in_bytes() -> None:
    given = report(-0.6)
    given["data"]["per"] = "byte"
    given["models"][0]["comparison"]["perplexity_ratio"] = None
    text = checked(comparison_page(given)).text
    assert "bits per byte of response" in text
    assert "only bits per byte can be compared" in text
    assert "Perplexity" not in text


def test_the_answers_stand_side_by_side() -> None:
    text = checked(comparison_page(report(-0.6))).text
    assert "Mostly a repetition15 %[5, 36]50 %[30, 70]070.016" in text
    assert "Greedy answers to 20 prompts" in text


def _hostile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hostile(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_hostile(one) for one in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_names_are_spelt_out() -> None:
    given = report(-0.6)
    slices = given["models"][0]["comparison"]["slices"]
    slices["language"] = {f"{HOSTILE}{key}": one for key, one in slices["language"].items()}
    assert SPELT in checked(comparison_page(_hostile(given))).text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: report.pop("models"),
        lambda report: report.update(baseline=None, data=[]),
        lambda report: report["models"][0].update(comparison={"effect": None}),
        lambda report: report["models"][0]["comparison"].update(
            slices={"label": {"a": 1, "b": None}, "group": []}, sign_flip="x"
        ),
        lambda report: report["models"][0].update(health={"stopped": None}, gate=[1]),
        lambda report: report["models"].append("none"),
    ],
)
def test_what_is_missing_is_left_out(spoil: Callable[[dict[str, Any]], Any]) -> None:
    given = copy.deepcopy(report(-0.6))
    spoil(given)
    checked(comparison_page(given))
