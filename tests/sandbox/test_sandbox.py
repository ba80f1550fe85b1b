"""What a program in a sandbox can do: read the tree, and nothing else; for both ways."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from swe_scaffold.errors import EnvironmentFailure, UsageError
from swe_scaffold.sandbox import Limits, Sandbox, open_sandbox, take_snapshot
from tests.sandbox.conftest import CANARY, gone, left, shell


@pytest.mark.usefixtures("unchanged")
def test_the_tree_can_be_read(sandbox: Sandbox) -> None:
    code, text = shell(sandbox, "cat README.md; grep -rn 'def f' pkg; pwd; ls /usr/bin | wc -l")
    assert code == 0, text
    assert "# demo" in text
    assert "pkg/a.py:1:def f():" in text
    assert sandbox.mount in text


WRITES = [
    *("echo x >> README.md", "touch new", "rm -f README.md", "mkdir d", "mv README.md R"),
    *("ln -s a b", "ln README.md hard", "truncate -s0 README.md", "chmod 777 README.md"),
    *("chown 1:1 README.md", "touch -t 200001010000 README.md", "cp README.md R2", "mkfifo p"),
    *("git commit --allow-empty -qm y", "git checkout -q -b z", "git config a.b c"),
    *("sed -i s/demo/x/ README.md", "dd if=/dev/zero of=README.md bs=1 count=1", "mknod n c 1 3"),
    *("setfattr -n user.x -v 1 README.md", "echo x > /usr/evil", "echo x > /etc/evil"),
    *(
        "mount -o remount,rw .",
        "mount -t tmpfs none pkg",
        "rmdir up",
        "exec 3>>README.md; echo x >&3",
    ),
    "unshare -Ur sh -c 'mount -o remount,bind,rw . && touch new'",
    'python3 -c \'import os; os.setxattr("README.md", "user.x", b"1")\'',
    'python3 -c \'open("README.md", "r+").write("x")\'',
    *(
        "chattr +d README.md",
        "chattr +A pkg",
        "echo x > /dev/evil",
        "echo 500 > /proc/self/oom_score_adj",
    ),
    "python3 -c 'import os; os.utime(\"README.md\", (1, 1))'",
    "python3 -c 'import os; os.open(\"README.md\", os.O_RDWR | os.O_TRUNC)'",
]


# As root, the kernel takes these files for the host's root's to write, whatever the namespace: a
# program named in core_pattern runs outside. What they hold is written back.
BACK = 'v=$(cat {0}); [ -n "$v" ] && printf %s "$v" > {0}'
SYSCTL = BACK.format("/proc/sys/kernel/core_pattern")
WRITES += [
    SYSCTL,
    BACK.format("/proc/sys/vm/swappiness"),
    BACK.format("/proc/sys/kernel/domainname"),
    f"unshare -Urpf --mount-proc sh -c '{SYSCTL}'",
    f"unshare -Urm sh -c 'mount -o remount,rw /proc; {SYSCTL}'",
    f"unshare -Urm sh -c 'mount -o remount,bind,rw /proc; {SYSCTL}'",
    f"unshare -Urm sh -c 'umount -l /proc; mount -t proc proc /proc; {SYSCTL}'",
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("command", WRITES)
def test_no_write_gets_through(sandbox: Sandbox, command: str) -> None:
    code, text = shell(sandbox, command)
    assert code != 0, text


@pytest.mark.usefixtures("unchanged")
def test_the_scratch_folder_can_be_written_and_goes_with_the_command(sandbox: Sandbox) -> None:
    assert shell(sandbox, "echo x > $HOME/kept && cat $HOME/kept") == (0, "x\n")
    assert shell(sandbox, "cat $HOME/kept")[0] != 0


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "command",
    [
        *("cat link", "cat up/secret.txt", "cat ../outside/secret.txt", "ls ../outside"),
        *("cat /etc/shadow", "ls /root", "ls /home", "cat /proc/1/environ | tr '\\0' '\\n'"),
    ],
)
def test_nothing_else_can_be_read(sandbox: Sandbox, command: str) -> None:
    code, text = shell(sandbox, command)
    assert "SECRET" not in text
    assert "root:" not in text
    assert CANARY not in text
    assert code != 0 or "environ" in command


def test_what_is_named_can_be_read_wherever_it_is(backend: str, repo: Path, tmp_path: Path) -> None:
    more = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (more / "said").write_text("yes\n")
        sandbox = open_sandbox(repo, backend=backend, readable=[more])
        assert shell(sandbox, f"cat {more}/said") == (0, "yes\n")
        assert shell(sandbox, f"echo no > {more}/said")[0] != 0
        assert (more / "said").read_text() == "yes\n"
    finally:
        shutil.rmtree(more)


@pytest.mark.usefixtures("unchanged")
def test_the_environment_has_no_secrets(sandbox: Sandbox) -> None:
    _, text = shell(sandbox, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "PATH=" in text
    assert CANARY not in text


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_there_is_no_network(sandbox: Sandbox, kind: str) -> None:
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        if kind == "SOCK_STREAM":
            server.listen()
        place = f"('127.0.0.1', {server.getsockname()[1]})"
        lines = f"import socket; s = socket.socket(socket.AF_INET, socket.{kind}); "
        code, _ = shell(sandbox, f"python3 -c \"{lines}s.connect({place}); s.send(b'leak')\"")
        assert code != 0 or kind == "SOCK_DGRAM"
        with pytest.raises(OSError, match="timed out"):
            server.accept() if kind == "SOCK_STREAM" else server.recv(10)


@pytest.mark.usefixtures("unchanged")
def test_no_socket_of_the_host_can_be_reached(sandbox: Sandbox, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0swe-scaffold-test-socket")
        server.listen()
        server.settimeout(0.2)
        name = "chr(0) + 'swe-scaffold-test-socket'"
        code, _ = shell(
            sandbox, f'python3 -c "import socket; socket.socket(socket.AF_UNIX).connect({name})"'
        )
        assert code != 0
        with pytest.raises(OSError, match="timed out"):
            server.accept()


@pytest.mark.usefixtures("unchanged")
def test_a_pipe_that_nobody_reads_ends_its_writer_without_a_word(sandbox: Sandbox) -> None:
    assert shell(sandbox, "seq 1000000 | sort | head -n 1") == (0, "1\n")


def test_a_flood_of_output_is_cut(sandbox: Sandbox) -> None:
    done = sandbox.run(["/bin/bash", "-c", "yes"])
    assert done.cut
    assert len(done.stdout) <= sandbox.view.limits.output_bytes


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "command",
    [
        "python3 -c 'x = bytearray(8 << 30)'",
        "head -c 1G /dev/zero > $HOME/big",
        "head -c 1G /dev/zero > /dev/shm/big",
    ],
)
def test_memory_and_disk_have_limits(sandbox: Sandbox, command: str) -> None:
    assert shell(sandbox, command)[0] != 0


def test_what_is_in_memory_has_a_limit_together(sandbox: Sandbox) -> None:
    if sandbox.backend != "bwrap":
        pytest.skip("under Landlock the scratch folder is on disk")
    for folder in ("$HOME", "/dev/shm"):
        code, text = shell(sandbox, f"for i in 1 2 3; do head -c 50M /dev/zero > {folder}/$i; done")
        assert code != 0, folder
        assert "No space left" in text


def test_nothing_is_left_of_what_was_ended(sandbox: Sandbox) -> None:
    name = f"mark-{uuid.uuid4().hex}"
    mark = f"echo x > $HOME/{name}"
    assert sandbox.run(["/bin/sh", "-c", f"{mark}; sleep 30"], seconds=0.5).timed_out
    assert sandbox.run(["/bin/sh", "-c", f"{mark}; yes"]).cut
    dialogue = sandbox.converse(["/bin/sh", "-c", f"{mark}; read line; echo 1; sleep 30"])
    assert dialogue.ask({}, seconds=10) == 1
    assert sandbox.backend == "bwrap" or left(name)
    dialogue.close()
    assert not left(name)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "command",
    [
        "sleep 3601.5",
        "setsid sleep 3601.5",
        "trap '' TERM INT HUP; sleep 3601.5",
        "setsid sh -c 'trap \"\" TERM; sleep 3601.5' & wait",
        'python3 -c \'import os; os.fork() or os.setsid(); os.execlp("sleep", "sleep", "3601.5")\'',
    ],
)
def test_what_takes_too_long_is_killed_with_all_its_children(
    sandbox: Sandbox, command: str
) -> None:
    start = time.monotonic()
    done = sandbox.run(["/bin/bash", "-c", command], seconds=1.0)
    assert done.timed_out
    assert time.monotonic() - start < 8
    assert gone("3601.5")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "command",
    [
        "sleep 3602.5 & echo done",
        "(setsid sleep 3602.5 &); echo done",
        "nohup sleep 3602.5 >/dev/null 2>&1 & echo done",
    ],
)
def test_children_in_the_background_end_with_the_command(sandbox: Sandbox, command: str) -> None:
    assert shell(sandbox, command) == (0, "done\n")
    assert gone("3602.5")


@pytest.mark.usefixtures("unchanged")
def test_no_process_outside_can_be_signalled(sandbox: Sandbox) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        code, _ = shell(sandbox, f"kill -9 {child.pid}")
        time.sleep(0.1)
        assert child.poll() is None
        assert code != 0
    finally:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("unchanged")
def test_a_fork_bomb_ends(repo: Path, backend: str) -> None:
    # It doubles ten times a second: it is to end, and not to bring the machine down before.
    sandbox = open_sandbox(repo, backend=backend, limits=Limits(processes=32))
    bomb = "f() { sleep 0.1; f | f & }; f; sleep 3603.5"
    assert not sandbox.run(["/bin/bash", "-c", bomb], seconds=0.8).ok
    assert gone("3603.5")


def test_a_copy_may_be_written_and_nothing_beside_it(backend: str, repo: Path) -> None:
    copy = repo.parent / "copy"
    shutil.copytree(repo, copy, symlinks=True, ignore=shutil.ignore_patterns("pipe"))
    sandbox = open_sandbox(copy, backend=backend, writable=True)
    assert shell(sandbox, "echo x > new && rm README.md && cat new") == (0, "x\n")
    assert (copy / "new").read_text() == "x\n"
    assert shell(sandbox, "touch ../beside")[0] != 0
    assert shell(sandbox, f"touch {repo}/beside")[0] != 0
    assert (repo / "README.md").is_file()


def test_a_folder_that_is_none_and_a_way_that_is_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError):
        open_sandbox(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        open_sandbox(tmp_path / "file")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(EnvironmentFailure, match="bubblewrap is not installed") as failed:
        open_sandbox(tmp_path, backend="bwrap")
    assert "apt install bubblewrap" in failed.value.hint


def test_a_snapshot_tells_content_mode_link_and_name(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir(mode=0o755)
    (root / "a").write_text("a")
    (root / "a").chmod(0o644)
    (root / "b").symlink_to("a")
    os.mkfifo(root / "pipe")
    before = take_snapshot(root)
    assert (before.files, before.size, before.unread) == (1, 1, 0)
    assert take_snapshot(root).sha256 == before.sha256

    def change(what: str) -> list[str]:
        return before.changes(take_snapshot(root)) if what else []

    root.chmod(0o700)
    assert change("mode of the folder itself") == ["."]
    root.chmod(0o755)
    (root / "a").chmod(0o600)
    assert change("mode") == ["a"]
    (root / "a").chmod(0o644)
    (root / "a").write_text("b")
    assert change("content") == ["a"]
    (root / "a").write_text("a")
    (root / "b").unlink()
    (root / "b").symlink_to("c")
    assert change("link") == ["b"]
    (root / "b").unlink()
    assert change("gone") == ["b"]
    (root / os.fsdecode(b"\xff\xfe")).write_text("")
    assert len(change("new")) == 2


def test_a_snapshot_names_pipes_and_devices(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s"))
    try:
        os.mknod(tmp_path / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        (tmp_path / "zero").write_text("")
    found = take_snapshot(tmp_path)
    assert found.pipes == (b"d/pipe",)
    assert found.devices in ((b"zero",), ())
    assert (found.devices == ()) == (tmp_path / "zero").is_file()


def test_holes_are_content_and_cost_no_time(tmp_path: Path) -> None:
    """A file of a tebibyte that is one hole; and zeros are zeros, written or not."""

    def digest(name: str, size: int, *parts: tuple[int, bytes]) -> str:
        folder = tmp_path / name
        folder.mkdir()
        with (folder / "file").open("wb") as stream:
            stream.truncate(size)
            for offset, data in parts:
                stream.seek(offset)
                stream.write(data)
        found = take_snapshot(folder)
        assert found.size == size
        return found.sha256

    mib = 1 << 20
    start = time.monotonic()
    sizes = [0, 1, mib - 1, mib, mib + 1, 1 << 40, (1 << 40) + 1]
    assert len({digest(f"hole {size}", size) for size in sizes}) == len(sizes)
    assert time.monotonic() - start < 5
    plain = digest("plain", 5 * mib + 3, (3 * mib + 1, b"x"))
    assert digest("same", 5 * mib + 3, (0, bytes(2 * mib)), (3 * mib, b"\0x")) == plain
    assert digest("other byte", 5 * mib + 3, (3 * mib + 1, b"y")) != plain
    assert digest("other place", 5 * mib + 3, (2 * mib + 1, b"x")) != plain
    assert digest("longer", 5 * mib + 4, (3 * mib + 1, b"x")) != plain
