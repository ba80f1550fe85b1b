"""Whether a patch applies to some files, as `git apply --check` says, without any clone.

The files the patch touches are written into an empty temporary folder, git reads them there and
changes nothing: no repository is found from that folder, no hook, filter or configuration exists
for it, and git itself refuses names that lead out of it. Where the files come from and which names
a patch has is left to the rooms above.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swe_scaffold.errors import DataError
from swe_scaffold.files import atomic_write
from swe_scaffold.git.program import find_git, run_git
from swe_scaffold.process import Finished
from swe_scaffold.terminal import show

_SECONDS = 60.0
_OUTPUT_BYTES = 1 << 20
_MAX_PATH_BYTES, _MAX_NAME_BYTES = 1024, 255
_DETAIL_CHARS = 200
# Names that a file system which ignores case, or knows short names, takes for `.git`.
_GIT_FOLDER = re.compile(r"\.git[ .]*|git~[0-9]+", re.IGNORECASE)
# What git says begins so; the first that is found names the reason.
_SAID = (
    (re.compile(r"patch failed: "), "mismatch"),
    (re.compile(r": No such file or directory$|does not exist in index$"), "no_file"),
    (re.compile(r": already exists in working directory$"), "file_exists"),
    (re.compile(r"(?:corrupt|garbage in) .*at line \d+|patch fragment without header"), "corrupt"),
    (re.compile(r"No valid patches in input|unrecognized input"), "no_patch"),
    (re.compile(r"invalid path|beyond a symbolic link"), "unsafe_path"),
    (re.compile(r"without full index line|cannot apply binary patch"), "binary"),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What git says of a patch; `applies` is None where it could not say, and `reason` tells why.

    Reasons: `mismatch`, `no_file`, `file_exists`, `corrupt`, `no_patch`, `unsafe_path`, `binary`,
    `other`; without an answer `too_costly`. `detail` is git's own first line.
    """

    applies: bool | None
    reason: str = ""
    detail: str = ""


def is_safe_path(path: str) -> bool:
    """Whether a name stays below the folder it is joined to, and out of any `.git`."""
    if not path or path.startswith("/") or "\0" in path or "\\" in path:
        return False
    encoded = path.encode("utf-8", "surrogatepass")
    parts = encoded.split(b"/")
    if len(encoded) > _MAX_PATH_BYTES or max(map(len, parts)) > _MAX_NAME_BYTES:
        return False
    return not any(
        part in ("", ".", "..") or _GIT_FOLDER.fullmatch(part) for part in path.split("/")
    )


def try_patch(patch: str, files: Mapping[str, bytes]) -> Trial:
    """Ask git whether a patch applies to the files it touches.

    Args:
        patch: The patch, exactly as it would be given to git.
        files: Content by path before the patch; what is not among them does not exist.

    Raises:
        DataError: A path is not safe, or a file stands where another needs a folder.
        EnvironmentFailure: git is not installed, or the files cannot be written.
    """
    git = find_git()
    with tempfile.TemporaryDirectory(prefix="swe-scaffold-") as name:
        folder = Path(name)
        tree = folder / "tree"
        tree.mkdir()
        for path, data in files.items():
            if not is_safe_path(path):
                raise DataError("is not a path below a folder", where=show(path, width=80))
            with atomic_write(tree / path, durable=False) as stream:
                stream.write(data)
        done = run_git(
            [git, "apply", "--check", "--whitespace=nowarn", "-"],
            cwd=tree,
            seconds=_SECONDS,
            stdin=patch.encode("utf-8", "surrogatepass"),
            output_bytes=_OUTPUT_BYTES,
            # Above it no repository is looked for, wherever temporary folders are.
            environment={"GIT_CEILING_DIRECTORIES": str(folder.resolve())},
        )
    return read_answer(done, done.stderr)


def read_answer(done: Finished, said_by_git: bytes) -> Trial:
    """Return what `git apply` means by the way it ended and by its messages."""
    if done.ok:
        return Trial(True)
    if done.timed_out or done.cut or done.returncode < 0:
        return Trial(None, "too_costly", "git ran out of time or memory, or said too much")
    lines = said_by_git.decode("utf-8", "replace").strip().split("\n")
    said = [line.partition("error: ")[2] or line for line in lines if "error: " in line] or lines
    reason = next((name for form, name in _SAID if any(map(form.search, said))), "other")
    return Trial(False, reason, show(said[0], width=_DETAIL_CHARS))
