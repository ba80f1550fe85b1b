"""Sandbox and session for somebody who is not root: the same promises, as such a user."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from pathlib import Path

import pytest

from swe_scaffold.sandbox import take_snapshot
from tests.sandbox.conftest import gone, left

pytestmark = pytest.mark.slow

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
            # The packages of this interpreter, should that one lack them.
            "PYTHONPATH": os.pathsep.join([str(package), sysconfig.get_path("purelib")]),
            "HOME": "/nonexistent",
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


WALK = """
import json, sys
from pathlib import Path
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.walkthrough import Subject, explore
from swe_scaffold.walkthrough.chat_model import ChatModel, tool_call
from swe_scaffold.walkthrough.seen import steps_of

calls = json.loads(sys.argv[4])

class Recited(ChatModel):
    def answer(self, messages):
        return {"tool_calls": [tool_call(1, *calls.pop(0))]}

try:
    walked = explore(
        Subject(Path(sys.argv[1])), lambda: Recited("recited", bash=True), Path(sys.argv[2]),
        backend=sys.argv[3], allow_bash=True, seconds=5.0, processes=64,
    )
except EnvironmentFailure as error:
    print(json.dumps(error.message))
    sys.exit()
found = [[step.returncode, step.output] for step in steps_of(walked.trajectory)]
print(json.dumps([walked.ok, walked.report, walked.trajectory["info"]["repository"], found]))
"""
FATAL = "#!/bin/sh\nkill -9 $PPID\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
def test_a_session_of_an_ordinary_user_is_held_as_well(
    package: Path, python: str, backend: str
) -> None:
    imports = "from swe_scaffold.walkthrough import require_agent; require_agent()"
    if as_nobody(python, "-c", imports, package=package).returncode:
        pytest.skip("no Python here that another user can start has mini-swe-agent")
    tree, output = package / f"walked-{backend}", package / f"out-{backend}"
    secret = package / f"secret-{backend}"
    secret.write_text("TOP-SECRET\n")
    secret.chmod(0o644)
    for folder in (tree, output):
        folder.mkdir()
    (tree / "own.txt").write_text("mine\nCOMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n")
    (tree / "closed.txt").write_text("closed\n")
    (tree / "leak").symlink_to(secret)
    os.mkfifo(tree / "pipe")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for line in (["init", "-q"], ["add", "own.txt"], ["commit", "-qm", "Begin"]):
        subprocess.run(["git", *identity, *line], cwd=tree, check=True)
    (tree / "fatal.sh").write_text(FATAL)
    (tree / "fatal.sh").chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "diff.external", "gpg.program"):
        subprocess.run(["git", "config", key, "./fatal.sh"], cwd=tree, check=True)
    for path in (tree, output, *tree.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (tree / "closed.txt").chmod(0)
    before = take_snapshot(tree)
    calls = [
        ("read_file", {"path": "own.txt"}),
        ("git_log", {}),
        ("git_show", {"revision": "HEAD"}),
        ("read_file", {"path": "leak"}),
        ("read_file", {"path": "pipe"}),
        ("read_file", {"path": "closed.txt"}),
        ("bash", {"command": f"cat leak {secret} ../secret-{backend}"}),
        ("bash", {"command": "echo x > pipe"}),
        ("bash", {"command": "chmod 644 closed.txt"}),
        ("bash", {"command": "trap '' TERM; setsid sleep 3606.5"}),
        *(
            ("bash", {"command": command})
            for command in FAILING
            # In namespaces, shared memory is their own.
            if not re.search("VICTIM|ipcmk", command)
        ),
        ("report", {"text": "done"}),
    ]
    given = [str(tree), str(output), backend, json.dumps(calls)]
    done = as_nobody(python, "-c", WALK, *given, package=package)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if isinstance(found, str):
        pytest.skip(found)
    ok, report, told, steps = found
    assert (ok, report) == (True, "done")
    assert told["sha256_before"] == told["sha256_after"]
    # What its user may not read is counted, and not what is in it.
    assert told["unread"] == 1
    assert [code for code, _ in steps[:3]] == [0, 0, 0]
    assert [text for code, text in steps[3:-1] if code == 0] == []
    assert "Begin" in steps[1][1]
    assert "TOP-SECRET" not in json.dumps(steps)
    assert gone("3606.5")
    assert before.changes(take_snapshot(tree)) == []
