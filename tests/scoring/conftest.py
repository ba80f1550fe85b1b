"""A repository, its task, and predictions for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.histories import History

MODULE = "def add(a, b):\n    return a - b\n\n\ndef sub(a, b):\n    return a - b\n"
FIXED = MODULE.replace("a - b", "a + b", 1)
Write = Callable[..., Path]


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "repos" / "owner__name")
    history.commit("All", {"pkg/mod.py": MODULE, "tests/test_mod.py": "assert True\n", "f": "f\n"})
    (history.folder / "link.py").symlink_to("pkg/mod.py")
    history.commit("And a link")
    history.commit("Fix", {"pkg/mod.py": FIXED})
    return history


@pytest.fixture
def gold(history: History) -> str:
    return history.git("diff", "HEAD~1", "HEAD") + "\n"


@pytest.fixture
def tasks(history: History, gold: str, tmp_path: Path) -> Path:
    """Two tasks of one repository, one of another without a clone, one without a gold patch."""
    base = history.git("rev-parse", "HEAD~1")
    common = {"problem_statement": "add subtracts", "patch": gold, "base_commit": base}
    rows = [
        {"instance_id": "owner__name-1", "repo": "owner/name", **common},
        {"instance_id": "owner__name-2", "repo": "owner/name", **common},
        {"instance_id": "other__name2-1", "repo": "other/name2", **common},
        {"instance_id": "owner__name-4", "repo": "owner/name", **common, "patch": ""},
    ]
    return write_lines(tmp_path / "tasks.jsonl", rows)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def prediction(number: int, patch: str | None, **changes: Any) -> dict[str, Any]:
    named = {"instance_id": f"owner__name-{number}", "model_name_or_path": "m"}
    return {**named, "model_patch": patch, **changes}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(*rows: Mapping[str, Any], name: str = "preds.jsonl") -> Path:
        return write_lines(tmp_path / name, rows)

    return to_file
