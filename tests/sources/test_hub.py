"""Hub data sets, from a hub on this machine: splits, cache, every failure in one quick line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("huggingface_hub")

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("hub_server.py")
# One batch after the other; what is in one batch runs at the same time.
CALLS: list[dict[str, list[dict[str, Any]]]] = [
    {
        "401": [{"name": "status/401"}],
        "403": [{"name": "status/403"}],
        "404": [{"name": "nobody/nothing"}],
        "429": [{"name": "status/429"}],
        "500": [{"name": "status/500"}],
        "slow": [{"name": "slow/start"}],
        "slow files": [{"name": "slow/files"}],
        "script": [{"name": "good/script"}],
        "climbs": [{"name": "good/climbs"}],
        "half": [{"name": "bad/half"}],
        "forged": [{"name": "bad/forged"}],
        "plain": [{"name": "good/plain"}],
        "card": [{"name": "good/card"}, {"name": "good/card", "split": "hard"}],
        "no split": [{"name": "good/card", "split": "gold"}],
        "named": [{"name": "good/named"}],
    },
    {"offline": [{"name": "good/named", "offline": True}]},
    {"offline, new": [{"name": "good/unknown", "offline": True}]},
    {"offline, other split": [{"name": "good/named", "split": "test", "offline": True}]},
    {"refused, cached": [{"name": "good/named", "hub": "gone"}]},
    {"refused": [{"name": "good/unknown"}]},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "calls.json").write_text(json.dumps(CALLS), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(SERVER), str(folder / "home"), str(folder / "calls.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("401", "private|status 401"),
        ("403", "status 403"),
        ("404", "no such repository"),
        ("429", "status 429"),
        ("500", "status 500"),
        ("slow", "does not answer|cannot be reached"),
        ("slow files", "sends nothing"),
        ("refused", "cannot be reached"),
        ("offline, new", "offline"),
        ("offline, other split", "lacks|offline"),
    ],
)
def test_a_failure_is_one_quick_line_with_a_way_on(
    run: tuple[dict[str, Any], str], case: str, reason: str
) -> None:
    outcome = run[0][case]
    assert outcome["kind"] == "EnvironmentFailure", outcome
    assert any(part in outcome["error"] for part in reason.split("|")), outcome
    assert "\n" not in outcome["error"]
    assert "--dataset path/to/tasks.jsonl" in outcome["hint"]
    assert outcome["seconds"] < (2 if case.startswith("offline") else 15)


def test_a_cut_transfer_is_not_taken_for_the_file(run: tuple[dict[str, Any], str]) -> None:
    assert run[0]["half"]["kind"] == "EnvironmentFailure", run[0]["half"]


def test_a_file_of_another_hash_is_refused(run: tuple[dict[str, Any], str]) -> None:
    outcome = run[0]["forged"]
    assert outcome["kind"] == "IntegrityError", outcome
    assert outcome["error"].startswith("bad/forged/train.jsonl: does not match the SHA-256")


def test_splits_come_from_file_names(run: tuple[dict[str, Any], str]) -> None:
    outcome = run[0]["named"]
    assert outcome["ids"] == ["a__b-2", "a__b-3"]
    assert outcome["notes"] == [
        "using split train of good/named (also there: test), revision 0123456789ab"
    ]
    assert outcome["inputs"] == [f"good/named/data/train-0000{n}-of-00002.jsonl" for n in (0, 1)]


def test_splits_come_from_the_card_first(run: tuple[dict[str, Any], str]) -> None:
    assert run[0]["card.0"]["ids"] == ["a__b-1"]
    assert "using split dev of good/card (also there: hard)" in run[0]["card.0"]["notes"][0]
    assert run[0]["card.1"]["ids"] == ["a__b-2", "a__b-3"]


def test_one_format_is_read_where_there_are_two(run: tuple[dict[str, Any], str]) -> None:
    assert run[0]["plain"]["inputs"] == ["good/plain/rows.jsonl"]


def test_data_that_is_not_there_is_told(run: tuple[dict[str, Any], str]) -> None:
    assert run[0]["no split"]["hint"] == "there is: hard, dev"
    assert "refs/convert/parquet" in run[0]["script"]["hint"]


def test_names_that_climb_out_of_the_repository_are_not_read(
    run: tuple[dict[str, Any], str],
) -> None:
    assert run[0]["climbs"]["kind"] in {"DataError", "EnvironmentFailure"}


@pytest.mark.parametrize("case", ["offline", "refused, cached"])
def test_a_complete_cache_is_used(run: tuple[dict[str, Any], str], case: str) -> None:
    assert run[0][case]["ids"] == ["a__b-2", "a__b-3"]
    assert run[0][case]["seconds"] < 15


def test_nothing_is_printed_and_no_token_shown(run: tuple[dict[str, Any], str]) -> None:
    assert "hf_secret" not in run[1] + json.dumps(run[0])
    assert "Traceback" not in run[1]
    assert run[1] == ""
