"""Pushing: only when asked, private unless asked, nothing but the export, no token in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("push_server.py")
TOKEN = "hf_secret_of_the_user"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every case in one process."""
    place = tmp_path_factory.mktemp("pushed")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SERVER), str(made / "run"), str(place)],
        env={
            **keep,
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(place / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout.replace('"token"', "")
    assert TOKEN not in done.stderr
    return json.loads(done.stdout.strip().split("\n")[-1])


def created(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [r["body"] for r in outcome["requests"] if r["path"] == "/api/repos/create"]


def test_a_new_repository_is_private_and_gets_the_export_alone(outcomes: Any) -> None:
    new = outcomes["new"]
    (body,) = created(new)
    assert (body["visibility"], body["name"], body["organization"]) == ("private", "new", "o")
    assert set(new["uploaded"]) == set(new["here"])
    assert all(new["uploaded"].values())
    assert {"model.safetensors", "README.md", "DATA_CARD.md", "manifest.json"} <= set(new["here"])
    assert new["url"].endswith("/o/new/commit/0123456789abcdef0123456789abcdef01234567")
    assert all(request["token"] for request in new["requests"])


def test_what_is_uploaded_is_said_before(outcomes: Any) -> None:
    said = outcomes["new"]["said"]
    listed = [line for line in said if line.startswith("to upload: ")]
    assert len(listed) == len(outcomes["new"]["here"])
    assert any(line.startswith("to upload: model.safetensors  ") for line in listed)
    assert said[-1].startswith(f"uploading {len(listed)} files, ")
    assert said[-1].endswith(" bytes, to o/new (private)")


def test_public_only_where_asked(outcomes: Any) -> None:
    assert created(outcomes["new, public"])[0]["visibility"] == "public"
    assert outcomes["new, public"]["url"]


def test_an_adapter_is_pushed_too(outcomes: Any) -> None:
    assert "adapter_model.safetensors" in outcomes["adapter"]["uploaded"]
    assert created(outcomes["adapter"])[0]["visibility"] == "private"


def test_a_private_repository_gets_a_further_commit(outcomes: Any) -> None:
    there = outcomes["there, private"]
    assert created(there) == []
    assert there["url"]
    assert there["said"][-1].endswith("to o/private (private, a further commit)")


@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        ("no token", "EnvironmentFailure", "HF_TOKEN: there is no token for the hub"),
        ("there, public", "IntegrityError", "the repository is public, and private was asked for"),
        ("there, private, public asked", "IntegrityError", "is private, and public was asked for"),
        ("forbidden", "EnvironmentFailure", "the hub answers with status 403"),
        ("offline", "UsageError", "needs the network, and the run is offline"),
        ("no name", "UsageError", "../new is not owner/name"),
        ("public alone", "UsageError", "--public: goes with --push alone"),
        ("plain http", "UsageError", "the token is sent over https only"),
    ],
)
def test_what_is_refused_before_any_work(outcomes: Any, case: str, kind: str, message: str) -> None:
    outcome = outcomes[case]
    assert outcome["kind"] == kind
    assert message in outcome["error"]
    assert outcome["here"] == []
    assert not [request for request in outcome["requests"] if request["method"] == "POST"]


def test_a_repository_that_came_out_otherwise_gets_nothing(outcomes: Any) -> None:
    wayward = outcomes["wayward"]
    assert "the repository is public, and private was asked for" in wayward["error"]
    assert wayward["uploaded"] == {}
    assert "model.safetensors" in wayward["here"]


def test_a_failed_upload_leaves_the_export(outcomes: Any) -> None:
    broken = outcomes["broken"]
    assert (broken["kind"], broken["code"]) == ("EnvironmentFailure", 4)
    assert broken["hint"].startswith("the export is complete in ")
    assert "model.safetensors" in broken["here"]


def test_nothing_is_asked_of_the_hub_unless_asked(outcomes: Any) -> None:
    assert outcomes["not asked"]["requests"] == []
    assert outcomes["not asked"]["url"] is None
