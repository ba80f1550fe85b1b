"""Repairs: made where the text proves them, counted, and never on what git reads whole."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_scaffold.diffs import unified_diff
from swe_scaffold.patches import extract_patch, repair_patch
from tests.test_diffs import TEXTS, git_apply

OLD = "".join(f"line {n}\n" for n in range(1, 31))
NEW = OLD.replace("line 4\n", "line four\n").replace("line 20\n", "line 20\nmore\n")
DIFF = unified_diff("f.py", OLD, NEW)
SECOND = "@@ -18,6 +18,7 @@"
MADE = "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+x\n"
GONE = "--- a/f.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
assert SECOND in DIFF

REPAIRED: dict[str, tuple[str, dict[str, int], str]] = {
    "last line feed": (DIFF[:-1], {"final_newline": 1}, DIFF),
    "counts": (DIFF.replace("-18,6 +18,7", "-18,6 +18,6"), {"hunk_counts": 1}, DIFF),
    "counts of both hunks": (
        DIFF.replace("-18,6 +18,7", "-18,5 +18,5").replace("-1,7 +1,7", "-1,9 +1,9"),
        {"hunk_counts": 2},
        DIFF,
    ),
    "all at once": (
        DIFF.replace("-1,7 +1,7", "-1 +1")[:-1],
        {"hunk_counts": 1, "final_newline": 1},
        DIFF,
    ),
    "counts of a new file, before a blank line": (
        MADE.replace("+1 @@", "+1,3 @@") + f"\n{DIFF}",
        {"hunk_counts": 1},
        f"{MADE}\n{DIFF}",
    ),
    "blank lines between hunks": (DIFF.replace(SECOND, f"\n\n{SECOND}"), {"blank_lines": 2}, DIFF),
    "made": (
        f"diff --git a/n.py b/n.py\n{MADE}",
        {"new_file_mode": 1},
        f"diff --git a/n.py b/n.py\nnew file mode 100644\n{MADE}",
    ),
    "deleted": (
        f"diff --git a/f.py b/f.py\n{GONE}",
        {"deleted_file_mode": 1},
        f"diff --git a/f.py b/f.py\ndeleted file mode 100644\n{GONE}",
    ),
}


def git_takes(folder: Path, patch: str) -> bool:
    done = subprocess.run(
        ["git", "apply", "--check", "-"], cwd=folder, input=patch.encode(), capture_output=True
    )
    return done.returncode == 0


@pytest.mark.parametrize("name", REPAIRED)
def test_a_repair_makes_git_take_what_was_meant(name: str, tmp_path: Path) -> None:
    damaged, kinds, sound = REPAIRED[name]
    assert repair_patch(damaged) == (sound, kinds)
    assert repair_patch(sound) == (sound, {})
    found = extract_patch(damaged)
    assert (found.patch, dict(found.repairs), found.problem) == (sound, kinds, "")
    (tmp_path / "f.py").write_bytes(b"x\n" if name == "deleted" else OLD.encode())
    assert git_takes(tmp_path, sound)
    if name != "deleted":
        # Without the mode, git would make a file `dev/null` of a deleted one.
        assert not git_takes(tmp_path, damaged)


LEFT: dict[str, str] = {
    "no diff": "some text",
    "git's note is last": unified_diff("f.py", "a", "b")[:-1],
    "blank context lines": unified_diff("f.py", "a\n\nb\n", "a\n\nc\n").replace("\n \n", "\n\n"),
    "carriage returns": DIFF.replace("\n", "\r\n"),
    "text around": f"From: me\n\n{DIFF}-- \n2.39.5",
    "cut": DIFF[: DIFF.index("more")],
    "fewer lines than announced, at the end": DIFF.replace("-18,6 +18,7", "-18,9 +18,10"),
    "a line that is none": DIFF.replace("\n line 3", "\nline 3"),
    "a blank line that may be context": DIFF.replace("-1,7 +1,7", "-1,9 +1,9").replace(
        SECOND, f"\n{SECOND}"
    ),
    "a cut name that may be a removed line": f"{DIFF}--- a/g.py\n",
    "no context any more": "--- a/f\n+++ b/f\n@@ -3,2 +3,3 @@\n+x\n@@ -9 +9 @@\n-a\n+b\n",
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_sound_or_cannot_be_proven_stays_as_it_is(name: str) -> None:
    assert repair_patch(LEFT[name]) == (LEFT[name], {})


COUNTS = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


def damage(patch: str, change: list[int]) -> str:
    """Add to the counts of each hunk in turn; a count of nothing stays one."""
    changes = itertools.cycle(change)

    def worse(match: re.Match[str]) -> str:
        old, new = (int(match[place] or 1) for place in (2, 4))
        old = max(1, old + next(changes)) if old else 0
        new = max(1, new + next(changes)) if new else 0
        return f"@@ -{match[1]},{old} +{match[3]},{new} @@"

    return COUNTS.sub(worse, patch)


def spelled_out(patch: str) -> str:
    """The same patch with every count written."""
    return damage(patch, [0, 0])


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    old=TEXTS,
    new=TEXTS,
    change=st.lists(st.integers(-3, 3), min_size=2, max_size=6),
    tag=st.booleans(),
)
def test_damaged_counts_become_the_original_ones(
    tmp_path: Path, old: str, new: str, change: list[int], tag: bool
) -> None:
    patch = unified_diff("f.py", old, new)
    damaged = damage(patch, change)
    frame = "<patch>\n{}</patch>\n" if tag else "Fixed.\n```diff\n{}```\n"
    found = extract_patch(frame.format(damaged))
    if found.problem:
        # A line that could be the next file's name, or a signature, is not counted.
        assert found.problem == "no_patch" or any(text in patch for text in ("--- x", "-- "))
        return
    assert spelled_out(found.patch) == spelled_out(patch)
    assert found.repairs.get("hunk_counts", 0) <= patch.count("@@ -")
    (tmp_path / "f.py").write_bytes(old.encode())
    git_apply(tmp_path, found.patch)
    assert (tmp_path / "f.py").read_bytes() == new.encode()


LINES = [
    *("prose", " context", "+added", "-removed", "", "@@ foo @@", "@@ -3,2 +3,2 @@"),
    *("diff --git a/q b/q", "--- a/q", "+++ b/q", "new file mode 100644", "index 12..34", "```"),
    *("-- ", "old mode 100644", "\\ No newline at end of file", "similarity index 5%"),
]


def mutated(stream: random.Random) -> str:
    """A diff of one or two files with a line or two lost, doubled, cut or put in."""
    lines = (DIFF + unified_diff("g.py", OLD, NEW[:90] + NEW[100:])).split("\n")
    for _ in range(stream.randint(1, 2)):
        place = stream.randrange(len(lines) - 1)
        match stream.randrange(5):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, stream.choice(LINES))
            case 2:
                lines[place] = lines[place][1:]
            case 3:
                lines = [*lines[: place + 1], ""]
            case 4:
                lines[place] = lines[place].rstrip() + "\r"
    return "\n".join(lines)


@pytest.mark.slow
def test_git_takes_every_patch_given_and_is_not_overruled(tmp_path: Path) -> None:
    """A patch that is given as it was, git reads; one that git reads is not repaired but in counts.

    git reads a hunk that is announced too short, and drops the lines beyond: these are kept.
    """

    def read(patch: str) -> bool:
        command = ["git", "apply", "--numstat", "-"]
        done = subprocess.run(command, cwd=tmp_path, input=patch.encode(), capture_output=True)
        return done.returncode == 0

    stream = random.Random(7)
    given_, repaired = 0, 0
    for _ in range(400):
        patch = mutated(stream)
        found = extract_patch(patch)
        if found.problem:
            continue
        assert read(found.patch), patch
        given_ += not found.repairs
        repaired += bool(found.repairs)
        if read(patch):
            assert set(found.repairs) <= {"hunk_counts"}, patch
        else:
            assert found.repairs, patch
    assert min(given_, repaired) > 20
