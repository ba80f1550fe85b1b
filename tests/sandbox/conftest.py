"""A repository, a sandbox of each kind, and whether anything is left of what ran in one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import Limits, Sandbox, bubblewrap, landlock, open_sandbox, take_snapshot

CANARY = "hunter2-canary-value"
SECONDS = 3.0


def usable(backend: str, tmp: Path) -> str:
    """Return why a backend cannot be tried on this machine, or nothing."""
    refusal = {"bwrap": bubblewrap, "landlock": landlock}[backend].refusal()
    if refusal:
        return refusal
    try:
        open_sandbox(tmp, backend=backend)
    except EnvironmentFailure as error:
        return error.message
    return ""


@pytest.fixture(params=["bwrap", "landlock"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = str(request.param)
    if reason := usable(name, tmp_path_factory.mktemp("probe")):
        pytest.skip(f"{name}: {reason}")
    return name


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a history, links that lead out, a pipe, and what markers would do."""
    root = tmp_path / "repo"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("def f():\n    return 1\n")
    (root / "README.md").write_text("# demo\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("TOP-SECRET\n")
    (root / "link").symlink_to(outside / "secret.txt")
    (root / "up").symlink_to("../outside", target_is_directory=True)
    for line in (["init", "-q"], ["add", "pkg", "README.md"], ["commit", "-qm", "x"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        subprocess.run(["git", *identity, *line], cwd=root, check=True)
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def sandbox(backend: str, repo: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    limits = Limits(seconds=SECONDS, memory_bytes=1 << 30)
    return open_sandbox(repo, backend=backend, limits=limits)


@pytest.fixture
def unchanged(repo: Path) -> Iterator[None]:
    """The tree is what it was when the test has ended."""
    before = take_snapshot(repo)
    yield
    after = take_snapshot(repo)
    assert before.changes(after) == []
    assert after.sha256 == before.sha256


def shell(sandbox: Sandbox, command: str) -> tuple[int, str]:
    done = sandbox.run(["/bin/bash", "-c", command])
    return done.returncode, done.stdout.decode("utf-8", "replace")


def left(name: str) -> list[Path]:
    """What is left of scratch folders on disk, which no TMPDIR of ours moves."""
    return [
        path for top in ("/tmp", "/var/tmp") for path in Path(top).glob(f"swe-scaffold-*/{name}")
    ]


def gone(word: str) -> bool:
    """Whether soon no process of this machine has a word among its arguments."""
    end = time.monotonic() + 30
    while alive(word):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def alive(word: str) -> bool:
    """Whether any process of this machine has a word among its arguments."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False
