"""Tables by kind of row on the page of a run, and the health of its answers."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.metrics.health import Health, summarise_health
from swe_scaffold.report import run_page
from swe_scaffold.types import SpeedrunLabel
from tests.report import sample
from tests.report.reading import checked
from tests.report.test_run_page import section_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_run(tmp_path_factory.mktemp("runs") / "quickstart")


def report(*, noise: float = 0.1, move: float = -0.6, languages: int = 2) -> dict[str, Any]:
    names = ("python", "rust")
    base = [
        replace(row, language=names[number % languages], label=SpeedrunLabel.SUCCESS)
        for number, row in enumerate(sample.scores())
    ]
    return sample.evaluation(base, sample.moved(base, move, noise=noise), control=False)


def test_each_kind_of_row_has_its_nll_and_its_change(run: Path) -> None:
    text = checked(run_page(run, report())).text
    assert "By language, nats per response token" in text
    assert "By length of the response, nats per response token" in text
    slice_ = report()["unseen"]["slices"]["language"]["rust"]["nll"]
    assert re.search(rf"rust42{slice_['value']:.2f}\d*\[", text)
    assert "By label" not in text
    assert "By response source" not in text


def test_one_kind_is_no_table(run: Path) -> None:
    given = report(languages=1)
    for name in ("unseen", "comparison"):
        given[name]["slices"]["length"] = {}
    assert 'id="slices"' not in run_page(run, given)


def test_no_difference_shown_says_what_could_have_been_found(run: Path) -> None:
    page = section_of(run_page(run, report(move=0.0, noise=0.4)), "slices")
    assert page.count("no difference shown") == page.count("detectable: about") > 0


def test_a_model_alone_has_no_change(run: Path) -> None:
    given = report() | {"base": None, "comparison": None}
    page = section_of(run_page(run, given), "slices")
    assert "By language" in page
    assert "Tuned − base" not in page


def test_answers_are_told_with_their_intervals(run: Path) -> None:
    answers = [Health(n > 3, False, n <= 3, None) for n in range(8)]
    shares = {name: asdict(one) for name, one in summarise_health(answers).items()}
    health = {"shares": shares, "prompts": 10, "left_out": 2, "max_new_tokens": 64}
    text = checked(run_page(run, report() | {"health": health})).text
    assert "Answers to 10 prompts" in text
    assert "Mostly a repetition50 %[22, 78]8" in text
    assert "A patch that can be read0" in text
    assert "--generate 10" in text
    assert 'id="health"' not in run_page(run, report())
