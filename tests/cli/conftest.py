"""Commands run in this process, in a folder of their own, on a few hand-made rows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.cli import main
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import open_sandbox

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "configs/scaffold_readonly.mini.yaml"
PATCH = """\
diff --git a/pkg/mod.py b/pkg/mod.py
--- a/pkg/mod.py
+++ b/pkg/mod.py
@@ -1,3 +1,3 @@
 def add(first, second):
-    return first - second{number}
+    return first + second{number}
 # the end
"""
HOSTILE = "\x1b[31mred\x1b[0m\x07\u202e\u200b\x9b1m <|im_end|> \u00e9"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The one JSON document on stdout."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Run = Callable[..., Done]


def task(number: int, **changes: Any) -> dict[str, Any]:
    """One SWE-bench-style task of a small repository."""
    return {
        "instance_id": f"owner__repo{number % 4}-{number}",
        "repo": f"owner/repo{number % 4}",
        "problem_statement": f"add({number}, 1) returns a wrong value\n\nIt should be {number}+1.",
        "patch": PATCH.format(number=number),
    } | changes


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def require_walkthroughs(folder: Path) -> None:
    """Skip the test where mini-swe-agent or every sandbox is missing."""
    pytest.importorskip("minisweagent", reason="needs the extra `agent`")
    try:
        open_sandbox(folder)
    except EnvironmentFailure as error:
        pytest.skip(str(error))


def run_mini(repo: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mini-swe-agent's own command with our configuration, at home nowhere."""
    home = output.parent / "home"
    home.mkdir()
    line = [sys.executable, "-m", "minisweagent.run.mini", "-c", str(MINI), *arguments]
    return subprocess.run(
        [*line, "-o", str(output), "--exit-immediately"],
        cwd=repo,
        env={
            **os.environ,
            "COLUMNS": "400",
            "HOME": str(home),
            "MSWEA_CONFIGURED": "true",
            "MSWEA_GLOBAL_CONFIG_DIR": str(home / "mini"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of the test; what a command sets in the environment ends with it."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def command(*arguments: object, prog: str = "swe-scaffold") -> Done:
    """Run a command in this process and return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments], prog=prog)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture
def run() -> Run:
    """`command`, by a name that reads well."""
    return command


@pytest.fixture
def tasks(folder: Path) -> Path:
    """Twenty tasks of four repositories, one of them without any response."""
    rows = [task(number) for number in range(19)]
    return write_rows(folder / "tasks.jsonl", [*rows, task(19, patch="", test_patch=" ")])


@pytest.fixture
def rows(folder: Path, tasks: Path, run: Run) -> Path:
    """The same, built, with a hold-out."""
    output = folder / "data" / "rows.jsonl"
    flags = ["--emit-test", "--set", "dataset.dev_split=0.7", "-q"]
    done = run("build", "--dataset", tasks, "--output", output, *flags)
    assert done.code == 0, done.err
    return output


def python_command(*arguments: object) -> list[str]:
    """The command line of a process of its own, without an installed script."""
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "from swe_scaffold.cli import main; sys.exit(main())"
    )
    return [sys.executable, "-c", start, *map(str, arguments)]
