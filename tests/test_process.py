"""Programs within limits: what they wrote, how they ended, and that nothing of them stays."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.process import run_program


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_output_input_and_exit_code(tmp_path: Path) -> None:
    code = (
        "import os, sys; data = sys.stdin.buffer.read(); os.write(2, b'e')\n"
        "print(len(data), os.getcwd()); sys.exit(3)"
    )
    done = run_program(python(code), seconds=20, cwd=tmp_path, stdin=b"x" * 300_000)
    assert (done.returncode, done.stderr, done.ok) == (3, b"e", False)
    assert done.stdout.decode().split() == ["300000", os.fspath(tmp_path)]


def test_a_program_that_does_not_read_is_no_failure() -> None:
    assert run_program(["true"], seconds=20, stdin=b"x" * 3_000_000).ok


def test_the_environment_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    done = run_program(python("import os; print(os.environ)"), seconds=20)
    assert b"canary" not in done.stdout
    given = run_program(["/usr/bin/env"], seconds=20, environment={"A": "b"})
    assert given.stdout == b"A=b\n"


@pytest.mark.slow
def test_time_is_up_for_the_whole_group(tmp_path: Path) -> None:
    mark = tmp_path / "late"
    start = time.monotonic()
    done = run_program(["sh", "-c", f"(sleep 2; touch {mark}) & sleep 30"], seconds=0.3)
    assert done.timed_out
    assert not done.ok
    assert time.monotonic() - start < 2
    time.sleep(2.2)
    assert not mark.exists()


@pytest.mark.slow
def test_children_left_behind_do_not_outlive_their_program(tmp_path: Path) -> None:
    mark = tmp_path / "late"
    script = f"(sleep 1; touch {mark}) >/dev/null 2>&1 & echo done"
    done = run_program(["sh", "-c", script], seconds=20)
    assert done.stdout == b"done\n"
    time.sleep(1.2)
    assert not mark.exists()


def test_a_flood_is_cut(tmp_path: Path) -> None:
    done = run_program(["yes"], seconds=20, output_bytes=1000)
    assert done.cut
    assert len(done.stdout) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit is Linux's")
def test_memory_is_bounded() -> None:
    done = run_program(python("x = b'a' * 10**9"), seconds=20, memory_bytes=200 << 20)
    assert b"MemoryError" in done.stderr


def test_a_missing_program_is_named() -> None:
    with pytest.raises(EnvironmentFailure, match="no-such-program: cannot be started"):
        run_program(["no-such-program"], seconds=1)
