"""Writing files, logs and folders; names, locks, leftovers. Faults: test_files_under_fault.py."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swe_scaffold.errors import (
    EnvironmentFailure,
    IntegrityError,
    LockedError,
    UsageError,
)
from swe_scaffold.files import (
    AppendLog,
    atomic_folder,
    atomic_write,
    disk_errors,
    folder_lock,
    remove,
    remove_leftovers,
    require_different,
    require_writable,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)

ROOT = Path(__file__).resolve().parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def write_and_raise(path: Path, error: BaseException) -> None:
    with atomic_write(path) as stream:
        stream.write(b"new" * 1_000_000)
        raise error


def test_a_stopped_writer_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_text(tmp_path / "out", "old")
    for error in (KeyboardInterrupt(), ValueError(), SystemExit()):
        with pytest.raises(type(error)):
            write_and_raise(tmp_path / "out", error)
        with pytest.raises(type(error)), atomic_folder(tmp_path / "folder") as folder:
            write_and_raise(folder / "a", error)
    assert content(tmp_path) == {"out": b"old"}
    assert names(tmp_path) == ["out"]


def test_errors_of_the_block_pass_as_they_are(tmp_path: Path) -> None:
    for error in (
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        FileNotFoundError(errno.ENOENT, "No such file", "input.jsonl"),
        LockedError("held"),
    ):
        with pytest.raises(type(error)) as caught:
            write_and_raise(tmp_path / "out", error)
        assert caught.value is error
    assert names(tmp_path) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "taken").mkdir()
    cases: list[tuple[Callable[[], object], str, str]] = [
        (lambda: write_bytes(tmp_path / "file" / "x", b""), "file/x", "a file, not a folder"),
        (lambda: require_writable(tmp_path / "file"), "file", "a file is in the way"),
        (lambda: require_writable(tmp_path / "file" / "x"), "file/x", "a file, not a folder"),
        (lambda: write_bytes(tmp_path / "loop", b""), "loop", "a symbolic link is in the way"),
        (lambda: write_bytes(tmp_path / "taken", b""), "taken", "is a folder, not a file"),
    ]
    for call, place, message in cases:
        with pytest.raises(EnvironmentFailure, match=message) as caught:
            call()
        assert caught.value.where == str(tmp_path / place)
        assert caught.value.exit_code == 4
    assert names(tmp_path) == ["file", "loop", "taken"]


def test_devices_pipes_and_sockets_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        (tmp_path / "null").symlink_to(os.devnull)
        for name in ("pipe", "socket", "null"):
            with pytest.raises(EnvironmentFailure, match="is not a regular file"):
                write_bytes(tmp_path / name, b"")
    assert (tmp_path / "null").is_symlink()


def test_a_link_at_the_destination_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"old")
    for name, target in (("link", "elsewhere"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(target)
        write_bytes(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
    (tmp_path / "log").symlink_to("elsewhere")
    (tmp_path / ".lock").symlink_to("elsewhere")
    with pytest.raises(EnvironmentFailure, match="a symbolic link is in the way"):
        AppendLog(tmp_path / "log")
    with pytest.raises(EnvironmentFailure, match="symbolic link"), folder_lock(tmp_path):
        pass
    found = content(tmp_path)
    assert found.pop("link") == found.pop("dangling") == b"new"
    assert set(found.values()) == {b"old"}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_mode_bits_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", {})
        with atomic_folder(tmp_path / "folder") as folder:
            write_bytes(folder / "b", b"")
        AppendLog(tmp_path / "log.jsonl").close()
        with folder_lock(tmp_path):
            pass
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    written = dict.fromkeys(("a.json", "b", "log.jsonl", ".lock"), 0o666 & ~mask)
    assert modes == {"folder": 0o777 & ~mask, **written}


def test_text_and_json_are_written_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "out"
    write_text(path, "é\r\n\u2028")
    assert path.read_bytes() == "é\r\n\u2028".encode()
    odd = os.fsdecode(b"name-\xff")
    value = {"b": [1, 2.5, None, True], "a": "é\u2028<\ufeff", "file": odd}
    write_json(path, value)
    data = path.read_bytes()
    assert json.loads(data) == value
    assert data.startswith(b'{\n  "b": [\n    1,')
    assert data.endswith(b'"name-\\udcff"\n}\n')
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert path.read_bytes() == data
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()


def test_streams_of_any_kind_can_stand_on_an_atomic_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "out") as stream:
        for part in (b"a", memoryview(b"b" * 1_000_000), bytearray(b"c")):
            stream.write(part)
        text = io.TextIOWrapper(stream, "utf-8", newline="")
        text.write("é\n")
        text.detach()
    assert (tmp_path / "out").read_bytes() == b"a" + b"b" * 1_000_000 + b"c\xc3\xa9\n"


def test_a_resumed_log_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    log = AppendLog(path)
    log.append({"step": 1, "text": "é"})
    size = log.sync()
    log.append({"step": 2})
    assert path.stat().st_size > size  # a kill here loses nothing
    log.close()
    with path.open("ab") as stream:
        stream.write(b'{"step": 3, "tor')
    log = AppendLog(path, keep=size)
    log.append({"step": 2, "again": True})
    log.close()
    assert path.read_text() == '{"step": 1, "text": "é"}\n{"step": 2, "again": true}\n'
    with path.open("ab") as stream:
        stream.write(b'{"step": 3, "tor')
    AppendLog(path, keep=None).close()
    assert path.read_text().count("\n") == 2
    assert path.read_bytes().endswith(b"}\n")
    AppendLog(path).close()
    AppendLog(path, keep=None).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("keep", [9, 100])
def test_a_log_that_does_not_fit_its_checkpoint_is_refused_untouched(
    tmp_path: Path, keep: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n')
    with pytest.raises(IntegrityError, match="were recorded" if keep > 18 else "no line ends") as e:
        AppendLog(path, keep=keep - (keep == 9))
    assert e.value.where == str(path)
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'


HOLD = """
import sys, time
from pathlib import Path
from swe_scaffold.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(10)
"""


def test_a_folder_has_one_writer_and_its_lock_dies_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=rf"\(pid {holder.pid}, since 20.*Z\)") as caught:
            folder_lock(folder).__enter__()
        assert (caught.value.exit_code, caught.value.where) == (8, str(folder))
        with folder_lock(folder, name=".other.lock"):
            pass
        holder.kill()
        holder.wait()
        with folder_lock(folder):
            assert str(os.getpid()) in (folder / ".lock").read_text()
            with pytest.raises(LockedError, match=f"pid {os.getpid()}"), folder_lock(folder):
                pass
    with pytest.raises(RuntimeError), folder_lock(folder):
        raise RuntimeError
    with folder_lock(folder):
        pass


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "kept", "old")
    for name in (".tmp-out-0011223344556677", ".tmp-~old~0011223344556677~kept"):
        write_text(tmp_path / name, "left")
    (tmp_path / ".tmp-step-1-00").mkdir()
    (tmp_path / ".tmp-step-1-00" / "a").touch()
    (tmp_path / ".tmp-link").symlink_to("kept")
    assert len(remove_leftovers(tmp_path)) == 4
    assert content(tmp_path) == {"kept": b"old"}
    assert remove_leftovers(tmp_path / "missing") == []


def test_a_folder_that_was_about_to_be_replaced_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".tmp-~old~0011223344556677~step-10"
    aside.mkdir()
    (aside / "weights").write_bytes(b"old")
    assert remove_leftovers(tmp_path) == []
    assert content(tmp_path) == {"step-10/weights": b"old"}


def test_remove_takes_files_folders_links_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder/a"):
        (tmp_path / name).touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    for name in ("file", "folder", "link", "missing"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["kept"]


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")
    for name in ("a", "link", "hard", "../" + tmp_path.name + "/a"):
        with pytest.raises(UsageError, match="would overwrite its own input") as caught:
            require_different(tmp_path / name, [tmp_path / "missing", tmp_path / "a"])
        assert caught.value.where == str(tmp_path / name)
    require_different(tmp_path / "new", [tmp_path / "a", tmp_path / "new"])


def test_a_folder_can_be_tried_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_only_errors_of_the_file_system_are_translated(tmp_path: Path) -> None:
    passing = [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        io.UnsupportedOperation("not writable"),
        IntegrityError("differs"),
        EnvironmentFailure("the hub does not answer", where="hub"),
        ValueError("bad"),
    ]
    for error in passing:
        with pytest.raises(type(error)) as same, disk_errors(tmp_path):
            raise error
        assert same.value is error
    for number, message in (
        (errno.ENOSPC, "no space left on device"),
        (errno.EDQUOT, "disk quota exceeded"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "input/output error"),
    ):
        with pytest.raises(EnvironmentFailure) as caught, disk_errors(tmp_path / "out"):
            raise OSError(number, os.strerror(number))
        assert str(caught.value) == f"{tmp_path}/out: {message}"
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value.__cause__, OSError)
    for name, place in (("/etc/other", "/etc/other"), (f"{tmp_path}/.tmp-out-1", f"{tmp_path}/x")):
        with pytest.raises(EnvironmentFailure) as caught, disk_errors(tmp_path / "x"):
            raise OSError(errno.EIO, "bad", name)
        assert caught.value.where == place
