"""The harness's reports as a ledger and as rates; handing over to a harness that is a script."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import DataError, EnvironmentFailure, IntegrityError, UsageError
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.distributions import wilson_interval
from swe_scaffold.scoring.harness import (
    FATES,
    compare_reports,
    hand_over,
    read_report,
    repository_of,
    resolved_rates,
)

ALL = Settings()
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def ids(*numbers: int, repo: str = "a__b") -> list[str]:
    return [f"{repo}-{number}" for number in numbers]


SCHEMA_2 = {
    "total_instances": 12,
    "submitted_instances": 9,
    "completed_ids": ids(1, 2, 3, 4, 5),
    "incomplete_ids": ids(10, 11, 12),
    "empty_patch_ids": ids(6),
    "submitted_ids": ids(1, 2, 3, 4, 5, 6, 7, 8, 9),
    "resolved_ids": ids(1, 2),
    "unresolved_ids": ids(3, 4, 5),
    "error_ids": ids(7, 8),
    "infra_failure_ids": ids(7),
    "ambiguous_failure_ids": ids(3),
    "schema_version": 2,
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def file(report: Any, name: str = "model.run.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(report), "utf-8")
        return path

    return file


def test_every_task_has_one_fate(write) -> None:
    report = read_report(write(SCHEMA_2))
    assert report.ledger() == {
        "resolved": 2,
        "not_applied": 0,
        "error": 2,
        "unresolved": 3,
        "empty": 1,
        "not_submitted": 3,
        "unknown": 1,
    }
    assert sum(report.ledger().values()) == report.total == 12
    assert report.fates["unknown"] == ("a__b-9",)
    assert (report.infrastructure, report.ambiguous) == (("a__b-7",), ("a__b-3",))
    assert list(report.fates) == list(FATES)


def test_an_older_report_and_a_total_that_names_fewer(write) -> None:
    old = {
        "no_generation": ids(1, 1),
        "generated": ids(1, 2, 3, 4, 5),
        "with_logs": ids(2, 3, 4, 5),
        "no_apply": ids(2),
        "applied": ids(3, 4, 5),
        "test_timeout": ids(3),
        "resolved": ids(4),
    }
    report = read_report(write(old))
    assert {name: len(found) for name, found in report.fates.items() if found} == {
        "resolved": 1,
        "not_applied": 1,
        "error": 1,
        "unresolved": 2,
    }
    smith = {"ids_resolved": ids(1), "ids_unresolved": ids(2), "resolved": 1, "total_instances": 9}
    assert read_report(write(smith)).ledger()["not_submitted"] == 7


def test_rates_are_of_all_and_of_submitted_tasks(write) -> None:
    rates = resolved_rates(read_report(write(SCHEMA_2)), ALL)
    assert (rates.of_all.value, rates.of_all.n) == (2 / 12, 12)
    assert rates.of_all.ci == pytest.approx(wilson_interval(2, 12))
    assert (rates.of_submitted.value, rates.of_submitted.n) == (2 / 8, 8)
    assert rates.of_submitted.ci == pytest.approx(wilson_interval(2, 8))
    assert rates.of_all_clustered.ci is None
    assert "one cluster" in (rates.of_all_clustered.reason or "")
    json.dumps(asdict(rates), allow_nan=False)


def test_the_cluster_is_the_repository_unless_told(write) -> None:
    names = [name for repo in ("a__b", "c__d-e", "f__g") for name in ids(1, 2, 3, 4, repo=repo)]
    report = read_report(write({"resolved_ids": names[:4], "unresolved_ids": names[4:]}))
    rates = resolved_rates(report, ALL)
    assert (rates.of_all_clustered.clusters, rates.of_all.clusters) == (3, 12)
    assert rates.of_all.ci is not None
    assert rates.of_all_clustered.ci is not None
    assert rates.of_all_clustered.ci[1] > rates.of_all.ci[1]
    groups = {name: name[-1] for name in names}
    assert resolved_rates(report, ALL, groups=groups).of_all_clustered.clusters == 4
    rows = resolved_rates(report, Settings(cluster_by="row")).of_all_clustered
    assert rows.clusters == 12


@pytest.mark.parametrize(
    ("instance_id", "repo"),
    [
        ("django__django-11001", "django__django"),
        ("scikit-learn__scikit-learn-1", "scikit-learn__scikit-learn"),
        ("pandas-dev__pandas.95280573.pr_53652", "pandas-dev__pandas"),
        ("mine", "mine"),
    ],
)
def test_a_repository_is_read_from_an_id(instance_id: str, repo: str) -> None:
    assert repository_of(instance_id) == repo


def test_two_reports_are_compared_on_what_both_submitted(write) -> None:
    first = read_report(write(SCHEMA_2))
    other = {"resolved_ids": ids(2, 3, 4), "unresolved_ids": ids(1, 20), "incomplete_ids": ids(5)}
    second = read_report(write(other, "other.json"))
    found = compare_reports(first, second, ALL)
    assert (found.common, found.only_first, found.only_second) == (4, 4, 1)
    assert (found.test.both, found.test.only_first, found.test.only_second) == (1, 1, 2)
    assert found.test.p_value == 1.0
    assert found.test.difference.value == pytest.approx(1 / 4)
    third = read_report(write({"resolved_ids": ids(99)}, "third.json"))
    with pytest.raises(IntegrityError, match="no task in common"):
        compare_reports(first, third, ALL)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"instance_id": "a", "model_patch": ""}, "no report"),
        ({"resolved": 3}, "no report"),
        ([], "0 rows"),
        ({"resolved_ids": [1]}, "not the id"),
        ({"resolved_ids": ids(1), "unresolved_ids": ids(1)}, "is resolved in"),
        ({"resolved_ids": ids(1), "infra_failure_ids": [None]}, "not the id"),
    ],
)
def test_what_is_no_report_is_refused(write, report: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_report(write(report))


@pytest.mark.skipif(not DATA.is_dir(), reason="the real reports are not beside this checkout")
def test_real_reports() -> None:
    folder = DATA / "trajectories" / "mini-swe-agent-deepseek"
    names = ("test_1-100", "dev", "dev_rerun")
    lite, dev, again = (
        read_report(folder / f"deepseek__deepseek-chat.deepseek_chat_{name}.json") for name in names
    )
    assert lite.ledger()["resolved"] == 61
    assert lite.ledger()["not_submitted"] == 200
    rates = resolved_rates(lite, ALL)
    assert (rates.of_all.value, rates.of_submitted.value) == (61 / 300, 0.61)
    found = compare_reports(dev, again, ALL).test
    assert (found.both, found.only_first, found.only_second, found.neither) == (7, 1, 1, 14)
    old = read_report(DATA / "predictions" / "20240402_sweagent_gpt4_report.json")
    assert (old.ledger()["resolved"], old.total) == (54, 299)


FAKE_HARNESS = """#!{python}
import json, os, pathlib, sys
pathlib.Path("called.json").write_text(json.dumps([sys.argv[1:], sorted(os.environ)]))
{body}
"""
REPORT = 'pathlib.Path("m.r1.json").write_text(json.dumps({"resolved_ids": ["a__b-1"]}))'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes `docker` and `swebench` the only programs on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HF_TOKEN", "secret")

    def install(**bodies: str) -> None:
        for name, body in bodies.items():
            script = FAKE_HARNESS if name == "swebench" else "#!{python}\n{body}\n"
            path = folder / name
            path.write_text(script.format(python=sys.executable, body=body), "utf-8")
            path.chmod(0o755)

    return install


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "preds.jsonl"
    path.write_text('{"instance_id": "a__b-1", "model_name_or_path": "m", "model_patch": ""}\n')
    return path


def test_the_harness_is_called_and_its_report_returned(programs, predictions, tmp_path) -> None:
    programs(docker="", swebench=REPORT)
    work = tmp_path / "work"
    path = hand_over(predictions, "verified", run_id="r1", report_dir=work, workers=2)
    assert path == work / "m.r1.json"
    assert read_report(path).ledger()["resolved"] == 1
    arguments, environment = json.loads((work / "called.json").read_text())
    assert arguments[:2] == ["eval", "verified"]
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    assert options == {
        "--predictions": str(predictions),
        "--run-id": "r1",
        "--split": "test",
        "--workers": "2",
        "--timeout": "1800",
        "--report-dir": str(work),
    }
    assert "HF_TOKEN" not in environment
    # The same run again: its report is written anew.
    os.utime(path, (1, 1))
    assert hand_over(predictions, "verified", run_id="r1", report_dir=work) == path


@pytest.mark.parametrize(
    ("there", "said", "hint"),
    [
        ({}, "docker and swebench are not installed", "where both are there: swebench eval"),
        ({"docker": ""}, "swebench is not installed", "pip install swebench"),
        ({"swebench": ""}, "docker is not installed", "swebench eval verified --predictions"),
        ({"docker": "raise SystemExit(1)", "swebench": ""}, "docker does not answer", "elsewhere"),
        ({"docker": "", "swebench": ""}, "wrote no report", ""),
        ({"docker": "", "swebench": "sys.exit('no\\x1b[31m image')"}, "harness failed: no", "eval"),
    ],
)
def test_what_is_missing_is_named_with_the_command(
    programs, predictions, tmp_path, there: dict[str, str], said: str, hint: str
) -> None:
    programs(**there)
    with pytest.raises(EnvironmentFailure, match=said) as caught:
        hand_over(predictions, "verified", run_id="r1", report_dir=tmp_path / "work")
    assert hint in caught.value.hint
    assert "\x1b" not in str(caught.value)


def test_what_the_harness_would_misread_is_refused(predictions, tmp_path) -> None:
    for dataset, run_id, path in (
        ("verified", "-x", predictions),
        ("verified", "a/b", predictions),
        ("--gold", "r1", predictions),
        ("verified", "r1", tmp_path / "none.jsonl"),
        ("verified", "r1", Path(__file__)),
    ):
        with pytest.raises(UsageError):
            hand_over(path, dataset, run_id=run_id, report_dir=tmp_path)
