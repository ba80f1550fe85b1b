"""Heads of files in a diff: what git does not take together is refused, what it takes is given."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from swe_scaffold.patches import extract_patch

CHANGE = "@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
MADE = "@@ -0,0 +1 @@\n+x\n"
GONE = "@@ -1 +0,0 @@\n-x\n"
GIT = "diff --git a/f b/f\n"
MOVED = "diff --git a/f b/g\nrename from f\nrename to g\n"


def git_reads(folder: Path, patch: str) -> bool:
    done = subprocess.run(
        ["git", "apply", "--numstat", "-"],
        cwd=folder,
        input=patch.encode(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize(
    "patch",
    [
        f"{GIT}--- a/f\n+++ b/f\n{CHANGE}",
        f"{GIT}index 123..456 100644\n--- a/f\n+++ b/f\n{CHANGE}",
        f"{GIT}--- f\n+++ f\n{CHANGE}",
        f"diff --git a/f b/g\n--- a/f\n+++ b/g\n{CHANGE}",
        f"{GIT}old mode 100644\nnew mode 100755\n",
        f"{GIT}new file mode 100644\nindex 000..e69\n",
        f"{GIT}deleted file mode 100644\n",
        f"{GIT}new file mode 100755\n--- /dev/null\n+++ b/f\n{MADE}",
        f"{GIT}deleted file mode 100644\n--- a/f\n+++ /dev/null\n{GONE}",
        MOVED,
        f"{MOVED}--- a/f\n+++ b/g\n{CHANGE}",
        "diff --git a/f b/g\nsimilarity index 100%\ncopy from f\ncopy to g\n",
        'diff --git "a/\\303\\274 f" "b/\\303\\274 f"\n'
        f'--- "a/\\303\\274 f"\n+++ "b/\\303\\274 f"\n{CHANGE}',
        f"diff --git a/my f b/my f\n--- a/my f\t\n+++ b/my f\t\n{CHANGE}",
        f"--- a/f\t2024-01-01 00:00:00\n+++ b/f\t2024-01-01 00:00:00\n{CHANGE}",
        f"--- f\n+++ f\n{CHANGE}",
        f"--- /dev/null\n+++ b/f\n{MADE}",
        f"--- /dev/null\n+++ f\n{MADE}",
        f"--- a/f\n+++ /dev/null\n{GONE}",
    ],
)
def test_what_git_reads_is_given_as_it_is(tmp_path: Path, patch: str) -> None:
    assert git_reads(tmp_path, patch)
    found = extract_patch(patch)
    assert (found.patch, dict(found.repairs), found.problem) == (patch, {}, ""), found.detail


@pytest.mark.parametrize(
    "patch",
    [
        f"{GIT}new file mode 100644\n--- a/f\n+++ b/f\n{MADE}",
        f"{GIT}deleted file mode 100644\n--- a/f\n+++ b/f\n{GONE}",
        f"{GIT}new file mode 100644\n--- /dev/null\n+++ b/g\n{MADE}",
        f"{GIT}new file mode 100644\ndeleted file mode 100644\n",
        f"{GIT}new file mode 100644\n--- /dev/null\n+++ b/f\n{CHANGE}",
        f"--- /dev/null\n+++ b/f\n{CHANGE}",
        f"{GIT}--- a/f\n+++ f\n{CHANGE}",
        "diff --git a/f b/g\nold mode 100644\nnew mode 100755\n",
        f"{MOVED}--- a/h\n+++ b/g\n{CHANGE}",
        f"{MOVED}new file mode 100644\n",
        "diff --git a/f b/g\nrename from f\n",
        f"--- f\n+++ /dev/null\n{GONE}",
    ],
)
def test_what_git_does_not_read_is_refused(tmp_path: Path, patch: str) -> None:
    assert not git_reads(tmp_path, patch)
    found = extract_patch(f"{patch}\nDone.\n")
    assert (found.patch, found.problem) == ("", "unparsable")


@pytest.mark.parametrize(
    "patch",
    [
        # git reads these, and makes a file `dev/null`, or changes nothing.
        f"{GIT}--- a/f\n+++ /dev/null\n{CHANGE}",
        f"{GIT}--- /dev/null\n+++ /dev/null\n{MADE}",
        f"{GIT}rename from f\n--- a/f\n+++ /dev/null\n{GONE}",
        f"{GIT}--- a/f\n+++ b/f\n",
        f"{GIT}index 123..456 100644\n",
    ],
)
def test_what_git_reads_as_something_else_is_refused_too(tmp_path: Path, patch: str) -> None:
    assert git_reads(tmp_path, patch)
    assert extract_patch(f"{patch}\nDone.\n").problem == "unparsable"


def drawn_head(stream: random.Random) -> str:
    """Lines of a head that may or may not go together, and a hunk."""
    new = stream.choice(["n.py", "p/n m.py"])
    old = stream.choice([new, "o.py"])
    words = [
        *("new file mode 100644", "deleted file mode 100644", "old mode 100644"),
        *("similarity index 90%", "index 123..456 100644", f"rename from {old}"),
        *(f"rename to {new}", f"copy from {old}", f"copy to {new}", "rename from zz"),
    ]
    lines = [f"diff --git a/{old} b/{new}"] if stream.random() < 0.85 else []
    lines += [word for word in words if stream.random() < 0.1]
    lines += [
        f"--- {stream.choice([f'a/{old}', f'a/{old}', '/dev/null', 'a/zz', old])}",
        f"+++ {stream.choice([f'b/{new}', f'b/{new}', '/dev/null', 'b/zz', new])}",
    ]
    return "\n".join(lines) + "\n" + stream.choice([CHANGE, MADE, GONE, MADE + "\n" + CHANGE])


@pytest.mark.slow
def test_git_reads_whatever_head_is_given(tmp_path: Path) -> None:
    stream = random.Random(3)
    found = [extract_patch(drawn_head(stream)) for _ in range(3000)]
    given = [answer.patch for answer in found if not answer.problem]
    assert len(given) > 300
    for patch in given:
        assert git_reads(tmp_path, patch), patch
