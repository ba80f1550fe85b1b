"""Ways out of a sandbox that are no plain writes: calls, descriptors, pipes, sockets, keys."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import Sandbox, open_sandbox, python_folders, take_snapshot
from tests.sandbox.conftest import gone, left, shell

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# x86_64, aarch64; what each call is given beside its number.
CALLS: dict[str, tuple[int, int, str]] = {
    "keyctl": (250, 219, "0, -3, 0"),
    "add_key": (248, 217, "b'user', b'swe-scaffold-test', b'x', 1, -3"),
    "request_key": (249, 218, "b'user', b'swe-scaffold-test', None, 0"),
    "unshare_user": (272, 97, "0x10000000"),
    "unshare_cgroup": (272, 97, "0x02000000"),
    "setns": (308, 268, "0, 0"),
    "clone_newuser": (56, 220, "0x10000011, 0, 0, 0, 0"),
    "clone3": (435, 435, "bytes(64), 64"),
    "mount": (165, 40, "b'none', b'/tmp', b'tmpfs', 0, None"),
    "open_tree": (428, 428, "-100, b'.', 1"),
    "fsopen": (430, 430, "b'tmpfs', 0"),
    "ptrace": (101, 117, "0, 0, 0, 0"),
    "process_vm_readv": (310, 270, "PID, None, 0, None, 0, 0"),
    "pidfd_getfd": (438, 438, "0, 0, 0"),
    "io_uring_setup": (425, 425, "4, bytes(120)"),
    "userfaultfd": (323, 282, "1"),
    "bpf": (321, 280, "0, bytes(128), 128"),
    "perf_event_open": (298, 241, "bytes(128), 0, -1, -1, 0"),
    "name_to_handle_at": (303, 264, "-100, b'README.md', bytes(200), bytes(4), 0"),
    "open_by_handle_at": (304, 265, "0, bytes(200), 0"),
    "fanotify_init": (300, 262, "0x600, 0"),
    "syslog": (103, 116, "10, None, 0"),
    "prlimit": (302, 261, "PID, 0, bytes(16), None"),
    "setpriority": (141, 140, "0, PID, 15"),
    "sched_setaffinity": (203, 122, "PID, 8, b'\\x01' + bytes(7)"),
    "sched_setscheduler": (144, 119, "PID, 3, bytes(4)"),
    "ioprio_set": (251, 30, "1, PID, 3 << 13"),
    **{f"socket_{family}": (41, 198, f"{family}, 1, 0") for family in (1, 2, 10, 40)},
    "socket_netlink": (41, 198, "16, 3, 0"),
    "socketpair_inet": (53, 199, "2, 1, 0, bytes(8)"),
    "kill": (62, 129, "PID, 9"),
    "tkill": (200, 130, "PID, 9"),
    "tgkill": (234, 131, "PID, PID, 9"),
    "rt_sigqueueinfo": (129, 138, "PID, 9, b'\\x09' + bytes(7) + b'\\xff' * 4 + bytes(116)"),
}
SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo")
TRY = """
import ctypes, errno, fcntl, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
PID = int(sys.argv[1])
found = {}
for name, (number, given) in json.loads(sys.argv[2]).items():
    result = libc.syscall(number, *eval(f"({given},)"))
    if result == 0 and name.startswith("clone"):
        os._exit(0)
    found[name] = "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps(found))
"""


def python(sandbox: Sandbox, program: str, *arguments: object) -> tuple[int, str]:
    done = sandbox.run(["/usr/bin/python3", "-c", program, *map(str, arguments)])
    return done.returncode, done.stdout.decode("utf-8", "replace")


@contextmanager
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user outside; whoever can harm it could harm us."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        yield child
        time.sleep(0.1)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("unchanged")
def test_calls_that_lead_out_are_refused(sandbox: Sandbox) -> None:
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    calls = {name: (call[column], call[2]) for name, call in CALLS.items()}
    with victim() as child:
        before = resource.prlimit(child.pid, resource.RLIMIT_CPU)
        code, text = python(sandbox, TRY, child.pid, json.dumps(calls))
        assert code == 0, text
        assert resource.prlimit(child.pid, resource.RLIMIT_CPU) == before
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0)
    found = json.loads(text)
    assert found.keys() == calls.keys()
    # In namespaces the process outside is none at all.
    assert {name: said for name, said in found.items() if said not in ("EPERM", "ENOSYS")} == (
        dict.fromkeys(SIGNALS, "ESRCH") if sandbox.backend == "bwrap" else {}
    )


@pytest.mark.usefixtures("unchanged")
def test_what_ordinary_programs_need_still_works(sandbox: Sandbox) -> None:
    code, text = shell(
        sandbox,
        "set -e; nice -n 0 true || true; prlimit --nofile=64 true; (ulimit -n 100; true); nproc;"
        "setsid true; ls -l; seq 3 | sort | xargs -n1 -P2 echo; mktemp;"
        "python3 -c 'import multiprocessing as m; print(m.Pipe())';"
        "python3 -c 'import threading as t; x = t.Thread(target=print); x.start(); x.join()';"
        "python3 -c 'import asyncio; asyncio.run(asyncio.sleep(0))';"
        "python3 -c 'import os; os.isatty(0); os.set_inheritable(1, True)'; echo the end",
    )
    assert text.endswith("the end\n"), text
    assert code == 0


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "attempt",
    [
        "os.link('README.md', home + '/x'); open(home + '/x', 'w')",
        "os.rename('README.md', home + '/x')",
        "os.rename(home + '/made', 'made')",
        "os.link(home + '/made', 'made')",
        "os.open('.', os.O_TMPFILE | os.O_RDWR)",
        "os.open(f'/proc/self/fd/{reading}', os.O_RDWR)",
        "os.open(f'/dev/fd/{reading}', os.O_WRONLY)",
        "os.open('/proc/1/root' + os.getcwd() + '/README.md', os.O_WRONLY)",
        "os.open(home + '/to', os.O_WRONLY)",
        "os.ftruncate(reading, 0)",
        "os.posix_fallocate(reading, 0, 10)",
        "os.copy_file_range(other, reading, 1)",
        "os.sendfile(reading, other, 0, 1)",
        "os.pwrite(reading, b'x', 0)",
        "mmap.mmap(reading, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)",
        "os.chroot(home)",
        "os.mknod(home + '/device', 0o60666, os.makedev(254, 0))",
        "os.setuid(12345)",
        *(
            f"fcntl.ioctl({where}, {request}, bytes(128))"
            # Flags, projects, versions (two ways), verity, a new subvolume; a key into a terminal.
            for where, request in [
                *(("reading", 0x40086602), ("reading", 0x401C5820), ("reading", 0x40086604)),
                *(("reading", 0x40087602), ("reading", 0x40806685), ("folder", 0x5000940E)),
                ("reading", 0x5412),
            ]
        ),
    ],
)
def test_no_descriptor_or_link_is_a_way_to_write(sandbox: Sandbox, attempt: str) -> None:
    program = (
        "import fcntl, mmap, os; home = os.environ['HOME']; open(home + '/made', 'w').close();"
        "os.symlink(os.path.abspath('README.md'), home + '/to');"
        "reading, other = os.open('README.md', 0), os.open('pkg/a.py', 0);"
        f"folder = os.open('.', 0)\ntry:\n    {attempt}\nexcept OSError as e: print('no', e)"
    )
    code, text = python(sandbox, program)
    assert code == 0, text
    assert text.startswith("no "), text


@pytest.mark.usefixtures("unchanged")
def test_no_signal_comes_by_way_of_a_descriptor(sandbox: Sandbox) -> None:
    program = (
        "import fcntl, os, sys; r, w = os.pipe(); fcntl.fcntl(r, 8, int(sys.argv[1]));"
        "fcntl.fcntl(r, 10, 9); fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC); os.write(w, b'x')"
    )
    with victim() as child:
        python(sandbox, program, child.pid)


def test_a_socket_in_the_tree_cannot_be_reached(sandbox: Sandbox, repo: Path) -> None:
    before = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        # The whole path may be longer than an address may be.
        os.chdir(repo)
        try:
            server.bind("daemon.sock")
        finally:
            os.chdir(before)
        server.listen()
        server.settimeout(0.2)
        tree = take_snapshot(repo)
        code, text = python(
            sandbox,
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('daemon.sock')",
        )
        assert code != 0, text
        with pytest.raises(OSError, match="timed out"):
            server.accept()
        assert take_snapshot(repo).sha256 == tree.sha256


@pytest.mark.usefixtures("unchanged")
def test_nothing_is_written_into_a_pipe_of_the_tree(sandbox: Sandbox, repo: Path) -> None:
    sandbox = sandbox.hiding([os.fsdecode(name) for name in take_snapshot(repo).pipes])
    reading = os.open(repo / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        program = "import os; os.write(os.open('pipe', os.O_WRONLY | os.O_NONBLOCK), b'x')"
        code, text = python(sandbox, program)
        assert "PermissionError" in text
        assert code != 0
        assert os.read(reading, 10) == b""
    finally:
        os.close(reading)
    assert shell(sandbox, "cat README.md") == (0, "# demo\n")
    with pytest.raises(EnvironmentFailure, match="has 1,001 pipes and sockets"):
        sandbox.hiding(["pipe"] * 1001)


@pytest.mark.usefixtures("unchanged")
def test_a_crash_starts_no_program_of_the_host(sandbox: Sandbox) -> None:
    # core(5): a limit of 0 does not keep the kernel from running what core_pattern names.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    program = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    assert python(sandbox, program) == (0, "0 0\n" if most == 0 else "1 1\n")
    assert shell(sandbox, "kill -SEGV $$")[0] != 0


@pytest.mark.usefixtures("unchanged")
def test_where_memory_ends_the_sandbox_goes_first(sandbox: Sandbox) -> None:
    word = f"36{uuid.uuid4().int % 10**12:012}"
    dialogue = sandbox.converse(["/bin/sh", "-c", f"sleep {word} & read line; echo 1; wait"])
    try:
        assert dialogue.ask({}, seconds=20) == 1
        end, scores = time.monotonic() + 20, set[str]()
        while not scores and time.monotonic() < end:
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if f"sleep\0{word}\0".encode() == (folder / "cmdline").read_bytes():
                        scores.add((folder / "oom_score_adj").read_text())
        assert scores == {"1000\n"}
    finally:
        dialogue.close()
    assert gone(word)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "attempt",
    [
        # A child of its parent's: of whoever confines.
        "import ctypes, os, time; s = ctypes.CDLL(None).syscall; n = {number};"
        "s(n, 0x8011, 0, 0, 0, 0) or os.execlp('sleep', 'sleep', '3607.5')",
        "import os; os.fork() or os.fork() or os.execlp('sleep', 'sleep', '3607.5')",
        "import os; os.fork() or os.setsid() or os.setpgid(0, 0);"
        "os.execlp('sleep', 'sleep', '3607.5')",
    ],
)
def test_no_child_stays(sandbox: Sandbox, attempt: str) -> None:
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    python(sandbox, attempt.format(number=number))
    assert gone("3607.5")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("command", ["kill -STOP $$", "kill -STOP -1; sleep 3607.25"])
def test_what_has_stopped_is_ended_too(sandbox: Sandbox, command: str) -> None:
    assert not sandbox.run(["/bin/bash", "-c", f"sleep 3607.25 & {command}"], seconds=1).ok
    assert gone("3607.25")


@pytest.mark.slow
def test_nothing_is_left_of_what_is_ended_while_it_begins(
    backend: str, repo: Path, tmp_path: Path
) -> None:
    """Whenever a sandbox is ended, from its first millisecond on, all of it ends."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sandbox = open_sandbox(repo, backend=backend, environment={"TMPDIR": str(scratch)})
    word = f"36{uuid.uuid4().int % 10**12:012}"
    for number in range(100):
        assert sandbox.run(["/bin/sleep", word], seconds=number * 0.0006).timed_out
    assert gone(word)
    assert list(scratch.iterdir()) == []


KEYS = """
import ctypes, json, platform, sys
from pathlib import Path
from swe_scaffold.sandbox import open_sandbox
keyctl, add_key = {"x86_64": (250, 248), "aarch64": (219, 217)}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
mine = libc.syscall(keyctl, 1, None), libc.syscall(add_key, b"user", b"token", b"SECRET", 6, -3)
read = f"from ctypes import *; s = CDLL(None).syscall; t = b'user', b'token', 0"
read += f"; k = s({keyctl}, 10, -3, *t); b = create_string_buffer(6)"
read += f"; s({keyctl}, 11, k, b, 6); print(k, b.raw)"
done = open_sandbox(Path(sys.argv[1]), backend=sys.argv[2]).run(["/usr/bin/python3", "-c", read])
buffer = ctypes.create_string_buffer(6)
libc.syscall(keyctl, 11, mine[1], buffer, 6)
print(json.dumps([min(mine), buffer.raw.decode(), done.stdout.decode()]))
"""


@pytest.mark.usefixtures("unchanged")
def test_keys_of_the_session_that_started_it_are_out_of_reach(backend: str, repo: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", KEYS, str(repo), backend]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    mine, kept, found = json.loads(done.stdout)
    if mine < 0:
        pytest.skip("no keys can be kept here")
    assert kept == "SECRET"
    assert "SECRET" not in found
    assert found.startswith("-1 ")


@pytest.mark.usefixtures("unchanged")
def test_no_control_group_of_the_host_can_be_written(sandbox: Sandbox) -> None:
    # A group's `cgroup.kill`, written by root's identity, ends the session that started it.
    program = (
        "import ctypes, os; l = ctypes.CDLL(None); l.unshare(0x12020000);"
        "place = os.environ['HOME'] + '/g'; os.mkdir(place)\n"
        "for kind in ('cgroup2', 'cgroup'):\n"
        "    print(l.mount(b'none', place.encode(), kind.encode(), 0, None), os.listdir(place))"
    )
    assert python(sandbox, program) == (0, "-1 []\n-1 []\n")


@pytest.mark.usefixtures("unchanged")
def test_no_shared_memory_is_left_behind(sandbox: Sandbox) -> None:
    key = int(uuid.uuid4().hex[:7], 16)
    program = (
        "import ctypes, sys; l = ctypes.CDLL(None); k = int(sys.argv[1]);"
        "print(l.shmget(k, 4096, 0o1600), l.semget(k, 1, 0o1600), l.msgget(k, 0o1600))"
    )
    python(sandbox, program, key)
    for kind in ("shm", "sem", "msg"):
        listed = Path("/proc/sysvipc", kind).read_text().split("\n")
        assert not [line for line in listed if line.split()[:1] == [str(key)]]


@pytest.mark.usefixtures("unchanged")
def test_nobody_outside_can_be_watched(sandbox: Sandbox, tmp_path: Path) -> None:
    program = (
        "import ctypes, sys; l = ctypes.CDLL(None);"
        "print(l.inotify_add_watch(l.inotify_init(), sys.argv[1].encode(), 0xfff))"
    )
    for folder in (tmp_path / "outside", "/root", "/etc/ssl"):
        assert python(sandbox, program, folder) == (0, "-1\n")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "mess",
    [
        "mkdir -m 0 {0}-locked; mkdir {0}-half; umask 777; mkdir {0}-half/x {0}-half/y",
        "mkdir {0}; cd {0}; python3 -c 'import os\n"
        'for _ in range(1200): os.mkdir("d" * 9); os.chdir("d" * 9)\'',
        "ln -s / {0}; mkfifo {0}-pipe; printf x > {0}-$'\\xff\\n'",
    ],
)
def test_the_scratch_folder_goes_whatever_is_in_it(sandbox: Sandbox, mess: str) -> None:
    name = f"mark-{uuid.uuid4().hex}"
    command = mess.format(f"$HOME/{name}") + "; echo done"
    done = sandbox.run(["/bin/bash", "-c", command], seconds=30)
    assert (done.returncode, done.stdout) == (0, b"done\n")
    assert not left(f"{name}*")


def test_modules_in_the_tree_are_not_imported(backend: str, repo: Path) -> None:
    for name in ("json", "os", "ctypes", "sitecustomize", "usercustomize", "confine", "encodings"):
        (repo / f"{name}.py").write_text("raise SystemExit('imported')\n")
    before = take_snapshot(repo)
    sandbox = open_sandbox(repo, backend=backend)
    assert shell(sandbox, "echo fine") == (0, "fine\n")
    done = sandbox.run(["/usr/bin/python3", "-I", "-S", "-c", "import json; print(json.dumps(1))"])
    assert (done.returncode, done.stdout) == (0, b"1\n")
    assert before.changes(take_snapshot(repo)) == []


LOOPBACK = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"hello")).start()
print(socket.create_connection(server.getsockname()).recv(9))
for kind in (socket.AF_VSOCK, socket.AF_NETLINK, socket.AF_PACKET):
    try:
        socket.socket(kind, socket.SOCK_DGRAM)
        print("open", kind)
    except OSError:
        pass
import fcntl, pty, termios
here, there = pty.openpty()
fcntl.ioctl(here, termios.TIOCSWINSZ, bytes(8))
try:
    fcntl.ioctl(there, termios.TIOCSTI, b"x")
    print("typed")
except OSError:
    print("a terminal")
client = socket.socket(socket.AF_UNIX)
try:
    client.connect("somebody.sock")
    print("reached")
except OSError:
    print("alone")
"""


def test_sockets_that_are_asked_for_reach_nobody_outside(repo: Path, backend: str) -> None:
    if backend != "bwrap":
        pytest.skip("Landlock has no network of its own")
    with socket.socket(socket.AF_UNIX) as outside:
        # Paths of sockets are short, those of tests are long.
        here = Path.cwd()
        os.chdir(repo)
        outside.bind("somebody.sock")
        os.chdir(here)
        outside.listen()
        sandbox = open_sandbox(repo, backend="bwrap", readable=python_folders(), interactive=True)
        found = take_snapshot(repo)
        assert found.sockets == (b"somebody.sock",)
        sandbox = sandbox.hiding([os.fsdecode(name) for name in found.sockets])
        python = os.path.realpath(sys.executable)
        done = sandbox.run([python, "-I", "-S", "-c", LOOPBACK])
        assert done.stdout == b"b'hello'\na terminal\nalone\n"
        refused = open_sandbox(repo, backend="bwrap", readable=python_folders())
        assert b"Operation not permitted" in refused.run([python, "-c", LOOPBACK]).stdout
