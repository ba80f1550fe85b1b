"""The files of a commit as a folder: all of them, as they are, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.git import open_repository
from swe_scaffold.mining import checkouts
from swe_scaffold.mining.checkouts import Checkout, write_tree
from tests.histories import History

FILES: dict[str, str | bytes | None] = {
    "README.md": "Hello\r\n",
    "pkg/a.py": b"A = 1\n",
    "pkg/bytes.bin": bytes(range(256)),
    "pkg/large.txt": b"x" * (3 << 20),
    ".gitattributes": "* export-ignore\n*.py filter=evil text eol=crlf\n",
}


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "clone")
    history.write(FILES)
    (history.folder / "run.sh").write_text("exit 0\n")
    (history.folder / "run.sh").chmod(0o755)
    (history.folder / "link").symlink_to("pkg/a.py")
    (history.folder / "away").symlink_to("/etc/passwd")
    history.commit("Everything")
    return history


def write(history: History, folder: Path, revision: str = "HEAD") -> Checkout:
    repository = open_repository(history.folder)
    folder.mkdir()
    return write_tree(repository, repository.resolve(revision), folder)


def test_files_are_what_was_committed(history: History, tmp_path: Path) -> None:
    first = history.git("rev-parse", "HEAD")
    history.commit("Another", {"pkg/a.py": "A = 2\n", "README.md": None})
    made = write(history, tmp_path / "tree", first)
    assert made == Checkout(6, 2, {})
    for name, content in FILES.items():
        expected = content.encode() if isinstance(content, str) else content
        assert (tmp_path / "tree" / name).read_bytes() == expected
    assert os.access(tmp_path / "tree/run.sh", os.X_OK)
    assert not os.access(tmp_path / "tree/README.md", os.X_OK)
    assert str((tmp_path / "tree/link").readlink()) == "pkg/a.py"
    assert str((tmp_path / "tree/away").readlink()) == "/etc/passwd"
    assert not (tmp_path / "tree/.git").exists()


def test_a_file_over_the_limit_is_counted(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkouts, "MAX_FILE_BYTES", 2 << 20)
    made = write(history, tmp_path / "tree")
    assert made == Checkout(5, 2, {"too_large": 1})
    monkeypatch.setattr(checkouts, "MAX_TREE_BYTES", 200)
    with pytest.raises(DataError, match="of files, more than"):
        write(history, tmp_path / "other")


def test_nothing_is_written_through_a_link_or_outside(history: History, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    blob = history.git("hash-object", "-w", "--stdin", stdin=b"evil\n")
    target = history.git("hash-object", "-w", "--stdin", stdin=str(outside).encode())
    inner = history.git("mktree", stdin=f"100644 blob {blob}\tfile.py\n".encode())
    config = history.git("mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
    # Git refuses to make such a tree from files; objects can say anything.
    tree = b"".join(
        [
            b"120000 door\0" + bytes.fromhex(target),
            b"40000 door\0" + bytes.fromhex(inner),
            b"40000 ..\0" + bytes.fromhex(inner),
            b"40000 .GIT\0" + bytes.fromhex(config),
            b"100644 good.py\0" + bytes.fromhex(blob),
        ]
    )
    made = history.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=tree)
    commit = history.git("commit-tree", "-m", "hostile", made)
    written = write(history, tmp_path / "tree", commit)
    assert written == Checkout(1, 1, {"in_the_way": 1, "unsafe_path": 2})
    assert not list(outside.iterdir())
    assert {path.name for path in (tmp_path / "tree").iterdir()} == {"door", "good.py"}
    assert not (tmp_path / "file.py").exists()


def test_a_clone_that_lacks_a_file_says_so(history: History, tmp_path: Path) -> None:
    blob = history.git("rev-parse", "HEAD:pkg/a.py")
    (history.folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert write(history, tmp_path / "tree").left_out == {"unreadable": 1}
