"""Run a program under Landlock and seccomp; started on its own, with nothing but Python.

    python -I -S confine.py REQUEST COMMAND ...

REQUEST is a JSON object: `read` and `write` (folders and files), `files` (single files to read),
`folder` (where to start), `calls` (a descriptor with the program of `calls` for seccomp), `parent`
(who starts it), and `memory_bytes`, `processes`, `file_bytes`. There is no namespace for processes:
none can leave the group it was started in, and what is left of it when the program ends is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
import tempfile
import time
from typing import NoReturn

# From here on no signal reaches a process outside.
LEAST_ABI = 6
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_MAKE_CHAR, _MAKE_BLOCK, _IOCTL = 1 << 6, 1 << 11, 1 << 15
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _SET_SUBREAPER, _SET_DEATH_SIGNAL = 38, 22, 36, 1
_DROP_BOUNDING, _CAPABILITIES = 24, 64
_AWAITED = {signal.SIGTERM, signal.SIGCHLD}
_PAUSE_SECONDS = 0.0005

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    return max(0, int(_libc.syscall(_CREATE, None, 0, 1)))


def main() -> NoReturn:
    """Be the program: prepare, start the command, wait for it, leave nothing behind."""
    # Waited for, not handled: a handler's turn could come when nobody is woken for it any more.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, command = json.loads(sys.argv[1]), sys.argv[2:]
    scratch = tempfile.mkdtemp(prefix="swe-scaffold-")
    try:
        _check(_libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0), "subreaper")
        # Whoever started this may die: then so does this, and with it the group.
        _check(_libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0), "death signal")
        if os.getppid() != request["parent"]:
            _leave(scratch, 128 + signal.SIGTERM)
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _become(request, command, scratch)
        while signal.sigwait(_AWAITED) == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                _leave(scratch, _exit_code(status))
        _leave(scratch, 128 + signal.SIGTERM)
    except OSError as error:
        sys.stderr.write(f"confine: {error}\n")
        _leave(scratch, 126)


def _become(request: dict[str, object], command: list[str], scratch: str) -> NoReturn:
    """Turn this process into the command, confined for good."""
    try:
        # Python ignores two of them, and what is ignored stays so in the program.
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        calls = _read_calls(int(str(request["calls"])))
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        os.chdir(str(request["folder"]))
        _go_first()
        _limit(request)
        _drop_capabilities()
        _check(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        ruleset = _ruleset(request, scratch)
        _check(_libc.syscall(_RESTRICT, ruleset, 0), "landlock")
        os.close(ruleset)
        _filter_calls(calls)
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"confine: {error}\n")
    finally:
        os._exit(126)


def _read_calls(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()


def _go_first() -> None:
    """Have the kernel end this process before others where all memory is used."""
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")
        os.close(score)


def _limit(request: dict[str, object]) -> None:
    memory, processes, size = (
        int(str(request[key])) for key in ("memory_bytes", "processes", "file_bytes")
    )
    _lower(resource.RLIMIT_AS, memory)
    _lower(resource.RLIMIT_FSIZE, size)
    # With 1 no program of the host is started for one that crashes; with 0 it is.
    _lower(resource.RLIMIT_CORE, 1)
    # All of the user's threads count, not only those in here.
    _lower(resource.RLIMIT_NPROC, _threads_of_user() + processes)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))


def _threads_of_user() -> int:
    count, user = 0, os.getuid()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def _drop_capabilities() -> None:
    """Give up what root may do beyond its own files; an ordinary user has none of it."""
    if os.geteuid() != 0:
        return
    for capability in range(_CAPABILITIES):
        _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0)
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, struct.pack("=6I", *(0,) * 6)), "capabilities")


def _ruleset(request: dict[str, object], scratch: str) -> int:
    """Return the descriptor of a Landlock ruleset: what it does not name is refused."""
    handled = (1 << 16) - 1
    # Files; TCP both ways; abstract sockets and signals.
    attributes = struct.pack("=3Q", handled, 3, 3)
    ruleset = _check(_libc.syscall(_CREATE, attributes, len(attributes), 0), "landlock")
    look = _EXECUTE | _READ_FILE | _READ_DIR
    everything = handled & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL)
    rules = [(path, look) for path in _paths(request, "read")]
    rules += [(path, _READ_FILE) for path in _paths(request, "files")]
    rules += [(path, everything) for path in [scratch, *_paths(request, "write")]]
    rules += [("/dev/null", _READ_FILE | _WRITE_FILE)]
    for path, access in rules:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            # What is only true of folders is refused for a file.
            access &= _EXECUTE | _READ_FILE | _WRITE_FILE | 1 << 14
        rule = struct.pack("=Qi", access & handled, place)
        _check(_libc.syscall(_ADD, ruleset, 1, rule, 0), f"landlock: {path}")
        os.close(place)
    return ruleset


def _paths(request: dict[str, object], key: str) -> list[str]:
    found = request.get(key)
    return [str(path) for path in found] if isinstance(found, list) else []


def _filter_calls(program: bytes) -> None:
    """Have the kernel refuse calls, from here on and in all children."""
    held = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("=Hxxxxxx", len(program) // 8)
    pointer += struct.pack("=Q", ctypes.addressof(held))
    _check(_libc.prctl(_SET_SECCOMP, 2, pointer, 0, 0), "seccomp")


def _leave(scratch: str, code: int) -> NoReturn:
    """Kill whoever is left, remove the scratch folder, and end."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:
            children = [int(number) for number in listing.read().split()]
        for child in children:
            os.kill(child, signal.SIGKILL)
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if not ended:
            # The list need not be whole while children come and go.
            time.sleep(_PAUSE_SECONDS)
    with contextlib.suppress(OSError):
        _remove(scratch)
    os._exit(code)


def _remove(scratch: str) -> None:
    """Remove a folder, however deep it is and whatever its folders forbid."""
    top = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    while names := os.listdir(top):
        for name in names:
            if not _unlinked(name, top):
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                for deeper in os.listdir(inner):
                    if not _unlinked(deeper, inner):
                        new = os.urandom(16).hex()
                        os.rename(deeper, new, src_dir_fd=inner, dst_dir_fd=top)
                os.close(inner)
                os.rmdir(name, dir_fd=top)
    os.close(top)
    os.rmdir(scratch)


def _unlinked(name: str, folder: int) -> bool:
    """Remove what is no folder; make one ready to be emptied."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        os.chmod(name, 0o700, dir_fd=folder)
        return False
    return True


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _check(value: int, what: str) -> int:
    if value < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return int(value)


if __name__ == "__main__":
    main()
