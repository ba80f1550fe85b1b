"""Which system calls a sandboxed program may make, as a program for seccomp.

Both ways use it. Refused is what namespaces and Landlock leave open or make dangerous: sockets (one
in the repository may be somebody's, and some kinds know no namespaces) unless they are asked for,
keys of the session that started it, namespaces within, in which root's identity could write control
groups, tracing, mounts, io_uring. Landlock needs more: it knows nothing of modes, owners, times,
extended attributes, System V's shared memory, nor of who is watched, limited or slowed down.
"""

from __future__ import annotations

import platform
import struct

_Line = tuple[int, int, int, int]
_Numbers = tuple[int | None, int | None]

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW, _FAIL = 0x80000000, 0x7FFF0000, 0x00050000
_EPERM, _ENOTTY, _ENOSYS = 1, 25, 38
# Where the kernel lays down the call: its number, architecture, and lower halves of arguments.
_CALL, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
# Calls of the 32-bit kind within x86_64 begin here.
_X32 = 0x40000000
# The flags of clone that make a namespace.
_NAMESPACES = 0x7E020000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Numbers of system calls: x86_64, aarch64; None where an architecture has none.
_REFUSED: dict[str, _Numbers] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
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
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
_REFUSED_WITHOUT_NAMESPACES: dict[str, _Numbers] = {
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
    "inotify_add_watch": (254, 27),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
# Asked for by programs that then work well without it; their group is how they are killed.
_IGNORED: dict[str, _Numbers] = {"setsid": (112, 157), "setpgid": (109, 154)}
# Their first argument is a process: only 0, the one that calls.
_OF_ITSELF: dict[str, _Numbers] = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
_CLONE, _CLONE3, _IOCTL = (56, 220), (435, 435), (16, 29)
_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
# Requests of `ioctl` that only tell, or concern the descriptor alone. Others can change an inode
# through a descriptor opened for reading (flags, versions, subvolumes), or write into a terminal.
_REQUESTS = (
    *(0x5401, 0x802C542A, 0x540F, 0x5413, 0x541B),  # terminals: settings, group, size; bytes there
    *(0x5421, 0x5450, 0x5451, 0x5452),  # non-blocking, inherited or not, signalled
    *(0x80086601, 2),  # flags of an inode, size of a block
)
# Those of terminals that programs open themselves; never the one that types into another's.
_REQUESTS_OF_TERMINALS = (
    *(0x5402, 0x5403, 0x5404, 0x402C542B, 0x402C542C, 0x402C542D),  # settings
    *(0x5409, 0x540A, 0x540B, 0x5414),  # breaks, flow, waiting input, size
    *(0x540E, 0x5410, 0x5422, 0x5429),  # whose terminal it is
    *(0x80045430, 0x40045431, 0x80045439, 0x5441),  # a new pair
)


def is_known_architecture() -> bool:
    """Whether there is a table of this processor's system calls."""
    return platform.machine() in _ARCHITECTURES


def seccomp_program(*, namespaces: bool, interactive: bool = False) -> bytes:
    """Return the program that the kernel runs at every call, for this processor.

    Args:
        namespaces: Whether the program runs in namespaces of its own, with a tree mounted
            read-only; otherwise more is refused.
        interactive: Whether it may have sockets and terminals: in namespaces of its own they reach
            nobody else, but for sockets that stand in a folder it sees.
    """
    column, architecture = _ARCHITECTURES[platform.machine()]
    refused = _REFUSED if namespaces else {**_REFUSED, **_REFUSED_WITHOUT_NAMESPACES}
    program: list[_Line] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture)]
    program += [_answer(_KILL), (_LOAD, 0, 0, _CALL)]
    if column == 0:
        program += [(_AT_LEAST, 0, 1, _X32), _answer(_KILL)]
    for numbers in refused.values():
        program += _where(numbers[column], [_failure(_EPERM)])
    if not namespaces:
        for numbers in _IGNORED.values():
            program += _where(numbers[column], [_failure(0)])
    for numbers in _OF_ITSELF.values():
        program += _where(numbers[column], _only(_FIRST, (0,), _EPERM))
    # It keeps its flags where no filter can read them; programs fall back to clone.
    program += _where(_CLONE3[column], [_failure(_ENOSYS)])
    flags = [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _NAMESPACES), _failure(_EPERM)]
    program += _where(_CLONE[column], [*flags, _answer(_ALLOW)])
    requests = (*_REQUESTS, *(_REQUESTS_OF_TERMINALS if interactive else ()))
    program += _where(_IOCTL[column], _only(_SECOND, requests, _ENOTTY))
    interactive = interactive and namespaces
    kinds = (_AF_UNIX, _AF_INET, _AF_INET6) if interactive else ()
    program += _where(_SOCKET[column], _only(_FIRST, kinds, _EPERM))
    # A pair of sockets reaches nobody else, if it is of the kind for this machine.
    program += _where(_SOCKETPAIR[column], _only(_FIRST, (_AF_UNIX,), _EPERM))
    return b"".join(struct.pack("=HBBI", *line) for line in [*program, _answer(_ALLOW)])


def _where(number: int | None, then: list[_Line]) -> list[_Line]:
    """Return lines that answer one call, and leave all others as they are."""
    return [] if number is None else [(_EQUAL, 0, len(then), number), *then]


def _only(argument: int, allowed: tuple[int, ...], error: int) -> list[_Line]:
    """Return lines that allow some values of an argument."""
    lines: list[_Line] = [(_LOAD, 0, 0, argument)]
    for value in allowed:
        lines += [(_EQUAL, 0, 1, value), _answer(_ALLOW)]
    return [*lines, _failure(error)]


def _answer(what: int) -> _Line:
    return _RETURN, 0, 0, what


def _failure(error: int) -> _Line:
    return _answer(_FAIL | error)
