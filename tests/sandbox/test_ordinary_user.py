"""The sandbox for somebody who is not root: the same promises, in a process of such a user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from swe_scaffold.sandbox import take_snapshot
from tests.sandbox.conftest import left

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
TRY = """
import json, subprocess, sys
from pathlib import Path
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import Limits, open_sandbox

tree, backend = Path(sys.argv[1]), sys.argv[2]
try:
    sandbox = open_sandbox(tree, backend=backend, limits=Limits(seconds=5.0, processes=64))
except EnvironmentFailure as error:
    print(json.dumps(f"{error.message}"))
    sys.exit()
outcomes = {}
with subprocess.Popen(["sleep", "60"]) as victim:
    for command in json.loads(sys.argv[3]):
        done = sandbox.run(["/bin/bash", "-c", command.replace("VICTIM", str(victim.pid))])
        outcomes[command] = [done.returncode, done.stdout.decode("utf-8", "replace")]
    assert victim.poll() is None
    victim.kill()
print(json.dumps(outcomes))
"""
FAILING = [
    *("echo x >> own.txt", "touch new", "rm -f own.txt", "chmod 777 own.txt", "mv own.txt other"),
    *("truncate -s0 own.txt", "touch -t 200001010000 own.txt", "mkdir d", "cat /etc/shadow"),
    *("unshare -Ur sh -c 'mount -o remount,bind,rw . && touch new'", "ls /root", "ls /home"),
    "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9), 1)'",
    # A process outside, of the same user.
    *("kill -9 VICTIM", "prlimit --cpu=1 --pid VICTIM", "renice -n 9 VICTIM"),
    *("taskset -p 1 VICTIM", "chrt -b -p 0 VICTIM", "ionice -c 3 -p VICTIM", "ipcmk -M 1"),
    *("unshare -C true", "unshare -U true", "ipcmk -Q", "ls /proc/VICTIM/root"),
    # More processes than are allowed.
    "for i in $(seq 200); do sleep 2 & done 2>/dev/null; jobs | wc -l | grep -q '^200$'",
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that anybody can read: a checkout may lie in somebody's home."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "swe_scaffold", folder / "swe_scaffold", ignore=ignored)
    for part in (folder, *folder.parents):
        if part.is_relative_to(Path(tempfile.gettempdir())) and part != Path(tempfile.gettempdir()):
            part.chmod(part.stat().st_mode | 0o005)
    return folder


def as_nobody(python: str, *arguments: str, package: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(package),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def python(package: Path) -> str:
    """A Python that another user can start, and that can import the sandbox."""
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            if (
                as_nobody(name, "-c", "import swe_scaffold.sandbox", package=package).returncode
                == 0
            ):
                return name
        except OSError:
            continue
    pytest.skip("no Python here that another user can start")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
def test_an_ordinary_user_is_held_as_well(package: Path, python: str, backend: str) -> None:
    tree = package / f"tree-{backend}"
    tree.mkdir()
    (tree / "own.txt").write_text("mine\n")
    for path in (tree, tree / "own.txt"):
        os.chown(path, NOBODY, NOBODY)
    before = take_snapshot(tree)
    name = f"mark-{uuid.uuid4().hex}"
    mess = f"mkdir -p $HOME/{name}/a; mkdir -m 0 $HOME/{name}/a/b $HOME/{name}-c; echo made"
    commands = json.dumps(["cat own.txt", mess, *FAILING])
    done = as_nobody(python, "-c", TRY, str(tree), backend, commands, package=package)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    if isinstance(outcomes, str):
        pytest.skip(outcomes)
    assert outcomes.pop("cat own.txt") == [0, "mine\n"]
    assert outcomes.pop(mess) == [0, "made\n"]
    assert not left(f"{name}*")
    if backend == "bwrap":
        # There it is a namespace's own, and goes with it.
        assert {outcomes.pop(f"ipcmk {what}")[0] for what in ("-M 1", "-Q")} == {0}
    assert {command: found for command, found in outcomes.items() if found[0] == 0} == {}
    assert before.changes(take_snapshot(tree)) == []
