"""A small project with a history, its mined tasks, and predictions that try things."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swe_scaffold.cache import Cache
from swe_scaffold.scoring import Execution, Options, score_predictions
from tests.histories import History
from tests.scoring.conftest import write_lines

REPO = "owner/name"
CALC = "def add(a, b):\n    return a - b\n\n\ndef sub(a, b):\n    return a - b\n"
FIXED = CALC.replace("a - b", "a + b", 1)
TESTS = "from calc import add, sub\n\n\ndef test_sub():\n    assert sub(3, 2) == 1\n"
MORE_TESTS = f"{TESTS}\n\ndef test_add():\n    assert add(3, 2) == 5\n"
COMMAND = "python -m pytest -q"


def make_history(folder: Path) -> History:
    """Five commits: one that tests show right, one without tests, two that show nothing."""
    history = History(folder)
    history.commit("All of it", {"src/calc.py": CALC, "tests/test_calc.py": TESTS, "notes": "x\n"})
    history.commit(
        "Fix the sum of two numbers\n\nadd() subtracts its second argument.",
        {"src/calc.py": FIXED, "tests/test_calc.py": MORE_TESTS},
    )
    history.commit(
        "Multiply without being asked for tests", {"src/more.py": "def mul(a, b): return a * b\n"}
    )
    history.commit(
        "Divide with the help of a library",
        {
            "src/div.py": "import not_installed_here\n",
            "tests/test_div.py": "import div\n\n\ndef test_div():\n    assert div\n",
        },
    )
    history.commit(
        "Say more about what was right before",
        {"src/more.py": "def mul(a, b):\n    return b * a\n", "tests/test_more.py": "from more "
         "import mul\n\n\ndef test_mul():\n    assert mul(2, 3) == 6\n"},
    )  # fmt: skip
    return history


def diff(path: str, before: str, after: str) -> str:
    """Return the change of a file as git writes it."""
    lines = [text.splitlines(keepends=True) for text in (before, after)]
    old = f"a/{path}" if before else "/dev/null"
    text = "".join(difflib.unified_diff(*lines, old, f"b/{path}"))
    mode = "" if before else "new file mode 100644\n"
    return f"diff --git a/{path} b/{path}\n{mode}{text}"


def calc(start: str = "", after: str = FIXED) -> str:
    """Return a prediction that puts something at the beginning of the module."""
    return diff("src/calc.py", CALC, start + after)


def predict(path: Path, patches: Mapping[str, str | None] | list[str], name: str = "") -> Path:
    """Write predictions: by task, or as several samples of one."""
    if isinstance(patches, Mapping):
        rows = [row(key, patch) for key, patch in patches.items()]
    else:
        rows = [{**row(name, patch), "sample": number} for number, patch in enumerate(patches)]
    return write_lines(path, rows)


def row(name: str, patch: str | None) -> dict[str, Any]:
    """Return one prediction."""
    return {"instance_id": name, "model_name_or_path": "m", "model_patch": patch}


def execute(
    predictions: Path, tasks: Path, repos: Path | None, cache: Cache | None = None, **more: Any
) -> dict[str, Any]:
    """Score with tests and return the report of the runs."""
    execution = Execution(more.pop("command", COMMAND), cache=cache, **more)
    done = score_predictions(predictions, str(tasks), Options(repos=repos, execution=execution))
    assert done.executed is not None
    return dict(json.loads(done.executed.read_text("utf-8")), summary=done.report)


def fates(report: Mapping[str, Any]) -> dict[tuple[str, int], tuple[str, str]]:
    """Return what became of each prediction, and why."""
    rows = report["predictions"]["rows"]
    return {(r["instance_id"], r["sample"]): (r["fate"], r["reason"]) for r in rows}
