"""Run a program under Landlock and seccomp; started on its own, with nothing but Python.

    python -I -S confine.py REQUEST COMMAND ...

REQUEST is a JSON object: `read` and `write` (folders and files), `files` (single files to read),
`folder` (where to start), and `memory_bytes`, `processes`, `file_bytes`. What Landlock knows
nothing of, seccomp refuses: changing modes, owners, times, flags and extended attributes, sockets,
mounts and namespaces, tracing, io_uring. There is no namespace for processes: none can leave the
group it was started in, and what is left of it when the program ends is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import stat
import struct
import sys
import tempfile
from typing import NoReturn

# From here on no signal reaches a process outside.
LEAST_ABI = 6
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_MAKE_CHAR, _MAKE_BLOCK, _IOCTL = 1 << 6, 1 << 11, 1 << 15
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _SET_SUBREAPER, _SET_DEATH_SIGNAL = 38, 22, 36, 1
_DROP_BOUNDING, _CAPABILITIES = 24, 64
_KILL, _ALLOW, _REFUSE, _IGNORE = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AF_UNIX = 1

# Numbers of system calls: x86_64, aarch64; None where an architecture has none.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "perf_event_open": (298, 241),
    "kcmp": (312, 272),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "socket": (41, 198),
}
# Asked for by programs that then work well without it; their group is how they are killed.
_IGNORED = {"setsid": (112, 157), "setpgid": (109, 154)}
# Requests of `ioctl` that change an inode through a descriptor opened for reading: flags (chattr),
# projects, versions, verity, encryption; the last writes into the terminal.
_REFUSED_REQUESTS = (
    *(0x40086602, 0x40046602, 0x401C5820, 0x40087602, 0x40047602),
    *(0x40806685, 0x400C6615, 0x800C6613, 0x5412),
)
_IOCTL_CALL = (16, 29)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 53), "aarch64": (1, 0xC00000B7, 199)}
# Calls of the 32-bit kind within x86_64 begin here.
_X32 = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    return max(0, int(_libc.syscall(_CREATE, None, 0, 1)))


def is_known_architecture() -> bool:
    """Whether there is a table of this processor's system calls."""
    return platform.machine() in _ARCHITECTURES


def main() -> NoReturn:
    """Be the program: prepare, start the command, wait for it, leave nothing behind."""
    request, command = json.loads(sys.argv[1]), sys.argv[2:]
    scratch = tempfile.mkdtemp(prefix="swe-scaffold-")
    try:
        _check(_libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0), "subreaper")
        # Whoever started this may die: then so does this, and with it the group.
        _check(_libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0), "death signal")
        signal.signal(signal.SIGTERM, lambda *_: _leave(scratch, 128 + signal.SIGTERM))
        child = os.fork()
        if child == 0:
            _become(request, command, scratch)
        _, status = os.waitpid(child, 0)
        _leave(scratch, _exit_code(status))
    except OSError as error:
        sys.stderr.write(f"confine: {error}\n")
        _leave(scratch, 126)


def _become(request: dict[str, object], command: list[str], scratch: str) -> NoReturn:
    """Turn this process into the command, confined for good."""
    try:
        # Python ignores two of them, and what is ignored stays so in the program.
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        os.chdir(str(request["folder"]))
        _limit(request)
        _drop_capabilities()
        _check(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        ruleset = _ruleset(request, scratch)
        _check(_libc.syscall(_RESTRICT, ruleset, 0), "landlock")
        os.close(ruleset)
        _filter_calls()
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"confine: {error}\n")
    finally:
        os._exit(126)


def _limit(request: dict[str, object]) -> None:
    memory, processes, size = (
        int(str(request[key])) for key in ("memory_bytes", "processes", "file_bytes")
    )
    _lower(resource.RLIMIT_AS, memory)
    _lower(resource.RLIMIT_FSIZE, size)
    _lower(resource.RLIMIT_CORE, 0)
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


def _filter_calls() -> None:
    """Have the kernel refuse what `_REFUSED` lists, from here on and in all children."""
    column, audit, socketpair = _ARCHITECTURES[platform.machine()]
    refused = [numbers[column] for numbers in _REFUSED.values()]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if column == 0:
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in refused:
        if number is not None:
            program += _refuse_if(number)
    for numbers in _IGNORED.values():
        program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _IGNORE)]
    requests = [line for value in _REFUSED_REQUESTS for line in _refuse_if(value)]
    # Beyond the jump the number of the call is no longer at hand: what is no such request may.
    program += [(_EQUAL, 0, len(requests) + 2, _IOCTL_CALL[column]), (_LOAD, 0, 0, 24), *requests]
    program += [(_RETURN, 0, 0, _ALLOW)]
    # A pair of sockets reaches nobody else, if it is of the kind for this machine.
    program += [(_EQUAL, 1, 0, socketpair), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 16)]
    program += [(_EQUAL, 0, 1, _AF_UNIX), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    held = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("=Hxxxxxx", len(program)) + struct.pack("=Q", ctypes.addressof(held))
    _check(_libc.prctl(_SET_SECCOMP, 2, pointer, 0, 0), "seccomp")


def _refuse_if(value: int) -> list[tuple[int, int, int, int]]:
    return [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _REFUSE)]


def _leave(scratch: str, code: int) -> NoReturn:
    """Kill whoever is left, remove the scratch folder, and end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:
            children = [int(number) for number in listing.read().split()]
        for child in children:
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _check(value: int, what: str) -> int:
    if value < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return int(value)


if __name__ == "__main__":
    main()
