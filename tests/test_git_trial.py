"""Does a patch apply: git's answer, for honest patches and for those that reach for other files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.git.trial import is_safe_path, try_patch
from tests.histories import History

FILES = {"a/x.py": b"one\ntwo\nthree\n"}


def patch(path: str = "a/x.py", old: str = "two", new: str = "TWO") -> str:
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
    return f"{head}@@ -1,3 +1,3 @@\n one\n-{old}\n+{new}\n three\n"


NEW = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+x\n"
BINARY = "diff --git a/i b/i\nindex 1234567..89abcde 100644\nBinary files a/i and b/i differ\n"
LINK = NEW.replace("100644", "120000")


@pytest.mark.parametrize(
    ("text", "applies", "reason"),
    [
        (patch(), True, ""),
        (patch(old="zwei"), False, "mismatch"),
        (patch("a/y.py"), False, "no_file"),
        (patch()[:-9], False, "corrupt"),
        (NEW.format("b/z.py"), True, ""),
        (NEW.format("a/x.py"), False, "file_exists"),
        ("no patch at all", False, "no_patch"),
        (LINK.format("l") + NEW.format("l/x"), False, "unsafe_path"),
        (BINARY, False, "binary"),
    ],
)
def test_git_says_whether_it_applies(text: str, applies: bool, reason: str) -> None:
    trial = try_patch(text, {**FILES, "i": b"\0"})
    assert (trial.applies, trial.reason) == (applies, reason), trial.detail


@pytest.mark.parametrize("path", ["../out.txt", "/etc/hosts", ".git/config", "a/../../out.txt"])
def test_nothing_outside_is_touched(path: str, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("one\ntwo\nthree\n", "utf-8")
    assert try_patch(patch(path), FILES).applies is False
    assert not is_safe_path(path)
    with pytest.raises(DataError, match="not a path below"):
        try_patch(patch(), {path: b""})


@pytest.mark.parametrize(
    "path", ["", "a//b", "./a", "a\\b", "a\0b", "sub/.GIT/x", "git~1/x", ".git "]
)
def test_odd_paths_are_not_safe(path: str) -> None:
    assert not is_safe_path(path)


def test_a_repository_around_the_temporary_folder_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "around")
    marker = tmp_path / "ran"
    history.commit("All", {".gitattributes": "* filter=evil\n", "x": "x\n"})
    history.git("config", "filter.evil.clean", f"touch {marker}; cat")
    history.git("config", "core.fsmonitor", f"touch {marker}")
    monkeypatch.setattr("tempfile.tempdir", str(history.folder))
    before = {name for _, _, names in os.walk(history.folder) for name in names}
    assert try_patch(patch(), FILES).applies is True
    # Inside a repository git would skip the file as one of another folder, and be content.
    assert try_patch(patch(old="zwei"), FILES).applies is False
    assert not marker.exists()
    assert {name for _, _, names in os.walk(history.folder) for name in names} == before
