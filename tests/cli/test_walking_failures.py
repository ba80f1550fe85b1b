"""Walkthroughs that go wrong: one line says how, the exit code too, and what was seen is kept."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import open_sandbox, take_snapshot
from swe_scaffold.walkthrough.seen import steps_of
from tests.cli.conftest import Done, Run, python_command, require_walkthroughs, run_mini
from tests.prediction.chat_server import ChatServer, Handler, Seen, serving
from tests.sandbox.conftest import alive, gone, left

pytestmark = pytest.mark.slow

PRODUCTS = {f"walkthrough.{end}" for end in ("traj.json", "atif.json", "md", "html")}


@pytest.fixture
def repo(folder: Path) -> Iterator[Path]:
    """A repository that is the same after the test."""
    require_walkthroughs(folder)
    root = folder / "shop"
    root.mkdir()
    (root / "prices.py").write_text("def apply_discount(total, rate):\n    return total * rate\n")
    before = take_snapshot(root)
    yield root
    assert take_snapshot(root).sha256 == before.sha256


def calling(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": "c", "type": "function", "function": function}


def asked(run: Run, repo: Path, place: ChatServer, *more: object) -> Done:
    options = ["--api-base", place.url, "--model", "m", "--output", "o"]
    return run("walkthrough", repo, *options, *more)


def kept(folder: Path) -> dict[str, Any]:
    """The trajectory that is left: whole, of an unchanged tree."""
    found: dict[str, Any] = json.loads((folder / "o/walkthrough.traj.json").read_text())
    assert found["info"]["repository"]["unchanged"] is True
    assert "Traceback" not in json.dumps(found)
    return found


def is_one_line(done: Done | subprocess.CompletedProcess[str], problem: str) -> None:
    """One error, in one line, with at most a hint after it."""
    err = done.err if isinstance(done, Done) else done.stderr
    lines = [line for line in err.split("\n") if line and not line.startswith("step ")]
    assert lines[0].startswith("error: "), err
    assert problem in lines[0], err
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), err


def test_a_model_that_never_reports(run: Run, repo: Path, folder: Path) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        handler.complete("", tool_calls=[calling("read_file", path="prices.py")])

    with serving(behave) as place:
        done = asked(run, repo, place, "--max-steps", 7)
        assert done.code == 9
        is_one_line(done, "ended without a report (LimitsExceeded)")
        assert {path.name for path in (folder / "o").iterdir()} - {".lock"} == PRODUCTS
        found = kept(folder)
        assert found["info"]["exit_status"] == "LimitsExceeded"
        assert len(steps_of(found)) == len(place.seen) == 7
        assert "There is none" in (folder / "o/walkthrough.md").read_text()
        assert len(json.loads((folder / "o/walkthrough.atif.json").read_text())["steps"]) == 9
        told = asked(run, repo, place, "--max-steps", 2, "--overwrite", "--json", "-q")
    assert (told.code, told.err) == (9, "")
    assert told.value["submitted"] is False
    assert told.value["unchanged"] is True
    assert told.value["exit_status"] == "LimitsExceeded"


NONSENSE: dict[str, Callable[[Handler], None]] = {
    "words": lambda handler: handler.complete("I think it is fine."),
    "nothing": lambda handler: handler.complete(""),
    "null": lambda handler: handler.complete(None),
    "a shell": lambda handler: handler.complete("```bash\nrm -rf /\n```"),
    "half a call": lambda handler: handler.complete('<tool_call>{"name": "rep'),
    "no tool": lambda handler: handler.complete("", tool_calls=[calling("delete", path="/")]),
    "a list": lambda handler: handler.complete("", tool_calls=[calling("read_file", path=["x"])]),
    "no arguments": lambda handler: handler.complete(
        "", tool_calls=[{"function": {"name": "report", "arguments": "{"}}]
    ),
    "odd calls": lambda handler: handler.complete("", tool_calls=[{"function": []}, {}]),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_model_that_answers_nonsense(run: Run, repo: Path, folder: Path, kind: str) -> None:
    with serving(lambda handler, *_: NONSENSE[kind](handler)) as place:
        done = asked(run, repo, place, "--json")
    assert len(place.seen) == 3
    assert done.code == 9
    assert done.value["exit_status"] == "RepeatedFormatError"
    assert done.value["submitted"] is False
    found = kept(folder)
    assert [message["role"] for message in found["messages"]] == [
        *("system", "user"),
        *("assistant", "user") * 3,
        "exit",
    ]
    assert {path.name for path in (folder / "o").iterdir()} - {".lock"} == PRODUCTS


BROKEN: dict[str, tuple[Callable[[Handler], None], int, str]] = {
    "not JSON": (lambda handler: handler.reply(200, b"<html>"), 9, "malformed_answer"),
    "no choices": (lambda handler: handler.reply(200, b"{}"), 9, "malformed_answer"),
    "refused": (lambda handler: handler.reply(400, b'{"error": "no"}'), 9, "refused_by_server"),
    "no key": (lambda handler: handler.reply(401, b"{}"), 4, "status 401"),
    "elsewhere": (lambda handler: handler.reply(404, b"{}"), 4, "status 404"),
    "redirect": (lambda handler: handler.reply(302, b"", Location="http://x/"), 4, "status 302"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_breaks_in_the_middle(run: Run, repo: Path, folder: Path, kind: str) -> None:
    answer, code, problem = BROKEN[kind]

    def behave(handler: Handler, request: Seen, before: int) -> None:
        if len(request.body["messages"]) > 2:
            answer(handler)
        else:
            handler.complete("", tool_calls=[calling("read_file", path="prices.py")])

    with serving(behave) as place:
        done = asked(run, repo, place)
        assert done.code == code
        is_one_line(done, problem)
        told = asked(run, repo, place, "--json", "--overwrite", "-q")
    assert (told.code, told.err) == (code, "")
    assert problem in json.dumps(told.value)
    found = kept(folder)
    assert [step.command for step in steps_of(found)] == ['read_file path="prices.py"']
    assert "apply_discount" in steps_of(found)[0].output


@pytest.mark.slow
def test_a_server_that_goes_away(run: Run, repo: Path, folder: Path) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        if len(request.body["messages"]) > 2:
            handler.cut(b"", 10)
        else:
            handler.complete("", tool_calls=[calling("read_file", path="prices.py")])

    with serving(behave) as place:
        done = asked(run, repo, place)
    assert done.code == 4
    assert done.err.count("error: ") == 1
    assert "(3 tries)" in done.err
    assert len(steps_of(kept(folder))) == 1


def test_a_server_that_is_not_there_in_json(run: Run, repo: Path, folder: Path) -> None:
    with serving() as place:
        pass
    done = asked(run, repo, place, "--json", "-q")
    assert done.code == done.value["exit_code"] == 4
    assert done.value["where"] == place.url
    assert done.err == ""
    assert kept(folder)["info"]["exit_status"] == "EnvironmentFailure"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_walkthrough_stopped_in_a_command(
    repo: Path, folder: Path, backend: str, number: signal.Signals
) -> None:
    try:
        open_sandbox(repo, backend=backend)
    except EnvironmentFailure as error:
        pytest.skip(str(error))
    mark = f"mark-{uuid.uuid4().hex}"
    # Numbers that no other test's processes have.
    words = [f"36{uuid.uuid4().int % 10**12:012}" for _ in range(2)]
    hang = f"touch $HOME/{mark}; (setsid sleep {words[0]} &); trap '' TERM INT HUP;"
    hang += f" sleep {words[1]}"

    def behave(handler: Handler, request: Seen, before: int) -> None:
        first = len(request.body["messages"]) == 2
        call = calling("read_file", path="prices.py") if first else calling("bash", command=hang)
        handler.complete("", tool_calls=[call])

    with serving(behave) as place:
        options = ["--api-base", place.url, "--model", "m", "--output", "o"]
        options += ["--allow-bash", "--sandbox", backend]
        child = subprocess.Popen(
            python_command("walkthrough", repo, *options), cwd=folder, stderr=subprocess.PIPE
        )
        end = time.monotonic() + 60
        while time.monotonic() < end and not all(map(alive, words)):
            time.sleep(0.05)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    if number is signal.SIGKILL:
        # Nobody has said anything or looked at the tree again; but all has ended.
        assert child.returncode == -number
    else:
        assert child.returncode == 128 + number, err
        assert err.count(b"error: ") == 1
        kept(folder)
    assert b"Traceback" not in err
    assert all(map(gone, words))
    assert not left(mark)
    found = json.loads((folder / "o/walkthrough.traj.json").read_text())
    assert "apply_discount" in steps_of(found)[0].output


def test_a_file_that_may_not_grow(repo: Path, folder: Path) -> None:
    long = [calling("read_file", path="prices.py")] * 200

    def behave(handler: Handler, request: Seen, before: int) -> None:
        handler.complete("x" * 500, tool_calls=long[:1])

    with serving(behave) as place:
        options = ["--api-base", place.url, "--model", "m", "--output", "o"]
        done = subprocess.run(
            ["prlimit", "--fsize=30000", *python_command("walkthrough", repo, *options)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 4, done.stderr
    is_one_line(done, "walkthrough.traj.json: file size limit reached")
    found = json.loads((folder / "o/walkthrough.traj.json").read_text())
    assert len(steps_of(found)) > 3
    assert {path.name for path in (folder / "o").iterdir()} == {".lock", "walkthrough.traj.json"}


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    place = folder / "o"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if subprocess.run(line, check=False, capture_output=True).returncode:
        pytest.skip("a disk that is full takes the right to mount one")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(run: Run, repo: Path, small_disk: Path) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        handler.complete("x" * 500, tool_calls=[calling("read_file", path="prices.py")])

    with serving(behave) as place:
        done = asked(run, repo, place)
        assert done.code == 4, done.err
        is_one_line(done, "walkthrough.traj.json: no space left on device")
        found = json.loads((small_disk / "walkthrough.traj.json").read_text())
        assert len(steps_of(found)) > 3
        assert {path.name for path in small_disk.iterdir()} == {".lock", "walkthrough.traj.json"}
        told = asked(run, repo, place, "--overwrite", "--json", "-q")
    assert told.value["exit_code"] == told.code == 4


def test_an_output_that_cannot_be_made(run: Run, repo: Path, folder: Path) -> None:
    (folder / "file").write_text("")
    done = run("walkthrough", repo, "--output", "file/o")
    assert done.code == 4
    is_one_line(done, "part of this path is a file")


def without_landlock() -> bytes:
    """A program for seccomp after which the kernel knows no Landlock."""
    number, allow, missing = 444, 0x7FFF0000, 0x00050000 | 38
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, missing), (0x06, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


@contextlib.contextmanager
def poorer_machine(*, landlock: bool) -> Iterator[Callable[[list[str]], Any]]:
    """Run commands where bubblewrap is not installed, and maybe where there is no Landlock."""
    bwrap = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    if bwrap is None or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("needs bubblewrap to hide it")
    line = [bwrap, "--dev-bind", "/", "/", "--ro-bind", "/dev/null", bwrap]
    reading, writing = os.pipe()
    os.write(writing, without_landlock())
    os.close(writing)
    try:
        line += [] if landlock else ["--seccomp", str(reading)]
        if subprocess.run([*line[:4], "true"], check=False, capture_output=True).returncode:
            pytest.skip("bubblewrap does not work here")
        yield lambda command: subprocess.run(
            [*line, "--", *command],
            check=False,
            capture_output=True,
            text=True,
            pass_fds=(reading,),
        )
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("backend", "landlock", "problem"),
    [
        ("bwrap", True, "no sandbox works here (bwrap: bubblewrap is not installed)"),
        ("bwrap", False, "no sandbox works here (bwrap: bubblewrap is not installed)"),
        ("landlock", False, "(landlock: this kernel offers Landlock not at all"),
        ("auto", False, "(bwrap: bubblewrap is not installed; landlock: this kernel offers"),
    ],
)
def test_no_sandbox_no_session(
    repo: Path, folder: Path, backend: str, landlock: bool, problem: str
) -> None:
    with poorer_machine(landlock=landlock) as run:
        command = python_command("walkthrough", repo, "--sandbox", backend, "--output", "o")
        done = run(command)
    assert done.returncode == 4
    assert done.stdout == ""
    is_one_line(done, problem)
    assert "hint: install bubblewrap" in done.stderr
    assert {path.name for path in (folder / "o").iterdir()} == {".lock"}


def test_without_bubblewrap_landlock_is_taken(repo: Path, folder: Path) -> None:
    try:
        open_sandbox(repo, backend="landlock")
    except EnvironmentFailure as error:
        pytest.skip(str(error))
    with poorer_machine(landlock=True) as run:
        done = run(python_command("walkthrough", repo, "--output", "o", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["submitted"]
    assert kept(folder)["info"]["sandbox"]["backend"] == "landlock"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("environment.wraper_args=[]", "environment.wraper_args: unknown key"),
        ("environment.backend=docker", "environment.backend: there is no 'docker'"),
        ("environment.allow_bash=1", "environment.allow_bash: is no bool"),
        ("model.temprature=0", "temprature"),
    ],
)
def test_mini_refuses_a_misspelt_key(repo: Path, folder: Path, setting: str, problem: str) -> None:
    done = run_mini(repo, folder / "w.traj.json", "-t", "x", "-c", setting)
    assert done.returncode != 0
    assert problem in done.stdout + done.stderr
    assert not (folder / "w.traj.json").exists()
