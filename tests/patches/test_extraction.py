"""What is taken for the patch in an answer, what is refused and why; git is the judge."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_scaffold.diffs import parse_patch, unified_diff
from swe_scaffold.patches import Extraction, extract_patch, repair_patch
from tests.test_diffs import TEXTS, git_apply

OLD = "".join(f"line {n}\n" for n in range(1, 31))
NEW = OLD.replace("line 4\n", "line four\n").replace("line 20\n", "line 20\nmore\n")
DIFF = unified_diff("pkg/one.py", OLD, NEW)
OTHER = unified_diff("two.py", "a\nb\n", "a\nc\n")
BARE = DIFF.split("\n", 1)[1]
README = unified_diff("README.md", "Use:\n```\nx\n```\nEnd\n", "Use:\n```\ny\n```\nEnd\n")
SECOND_HUNK = DIFF[DIFF.rindex("@@ -") :]
FIRST_HUNK = DIFF[DIFF.index("@@") :].removesuffix(SECOND_HUNK)


def of(text: str) -> tuple[str, str]:
    """The form and the patch, once nothing was repaired or refused."""
    found = extract_patch(text)
    assert (found.problem, dict(found.repairs)) == ("", {}), found
    return found.form, found.patch


ANSWERS: dict[str, tuple[str, str, str]] = {
    "bare": (DIFF, "diff", DIFF),
    "without git line": (BARE, "diff", BARE),
    "prose around": (f"So I fixed it.\n\n{DIFF}\nThat is all.\n", "diff", DIFF),
    "a list after it": (f"{DIFF}\n- one thing\n- another\n", "diff", DIFF),
    "blank lines around": (f"\n\n{DIFF}\n\n", "diff", DIFF),
    "mail signature": (f"{DIFF}-- \n2.39.5\n", "diff", DIFF),
    "fence": (f"Here:\n```diff\n{DIFF}```\nDone.\n", "fenced_diff", DIFF),
    "plain fence": (f"```\n{DIFF}```\n", "fenced_diff", DIFF),
    "other language": (f"```python\n{DIFF}```\n", "fenced_diff", DIFF),
    "tildes": (f"~~~patch\n{DIFF}~~~\n", "fenced_diff", DIFF),
    "long fence": (f"`````diff\n{DIFF}`````\n", "fenced_diff", DIFF),
    "command before it in the fence": (f"```diff\n$ git diff\n{DIFF}```\n", "fenced_diff", DIFF),
    "unclosed fence": (f"```diff\n{DIFF}", "fenced_diff", DIFF),
    "fence in a list": (
        "1. Do:\n   ```diff\n" + "".join(f"   {x}\n" for x in DIFF.splitlines()) + "   ```\n",
        "fenced_diff",
        DIFF,
    ),
    "fence in a fence": (f"```markdown\nSee:\n```diff\n{DIFF}```\n```\n", "fenced_diff", DIFF),
    "fences in the file": (f"```diff\n{README}```\n", "fenced_diff", README),
    "fences in the file, bare": (f"See:\n{README}\nDone.\n", "diff", README),
    "tag": (f"Thoughts.\n<patch>\n{DIFF}</patch>\nBye.\n", "fenced_diff", DIFF),
    "diff tag": (f"<diff>\n{DIFF}</diff>", "fenced_diff", DIFF),
    "tag on the same lines": (f"<patch>{DIFF.rstrip()}</patch>\n", "fenced_diff", DIFF),
    "fence in a tag": (f"<patch>\n```diff\n{DIFF}```\n</patch>\n", "fenced_diff", DIFF),
    "two fences": (
        f"First\n```diff\n{DIFF}```\nthen\n```diff\n{OTHER}```\n",
        "fenced_diff",
        DIFF + OTHER,
    ),
    "two bare diffs": (f"First\n{DIFF}then\n{OTHER}", "diff", DIFF + OTHER),
    "code beside it": (f"```python\nx = 1\n```\n```diff\n{DIFF}```\n", "fenced_diff", DIFF),
    "a sketch beside it": (f"```diff\n-a\n+b\n```\n```diff\n{DIFF}```\n", "fenced_diff", DIFF),
    "after reasoning": (f"<think>\n{OTHER}or so?\n</think>\n\n{DIFF}", "diff", DIFF),
    "reasoning on one line": (f"<think>Fine.</think>\n{DIFF}", "diff", DIFF),
    "reasoning opened in the prompt": (
        f"Maybe\n```diff\n{DIFF}```\n</think>\n```diff\n{DIFF}```\n",
        "fenced_diff",
        DIFF,
    ),
    "blank line below the git line": (DIFF.replace("\n", "\n\n", 1), "diff", DIFF[:0]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_patch_in_an_answer(name: str) -> None:
    text, form, patch = ANSWERS[name]
    assert of(text) == (form, patch or text)


def test_what_git_ignores_stays(tmp_path: Path) -> None:
    """A blank line below the git line makes git ignore that line, not the patch."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "one.py").write_bytes(OLD.encode())
    git_apply(tmp_path, extract_patch(ANSWERS["blank line below the git line"][0]).patch)
    assert (tmp_path / "pkg" / "one.py").read_bytes() == NEW.encode()


def test_counts_are_mended_within_a_fence_within_a_tag() -> None:
    damaged = DIFF.replace("+18,7 @@", "+18,9 @@")
    found = extract_patch(f"<patch>\n```diff\n{damaged}```\n</patch>\n")
    assert (found.patch, dict(found.repairs)) == (DIFF, {"hunk_counts": 1})


def test_git_applies_a_binary_patch_that_is_extracted(tmp_path: Path) -> None:
    old, new = bytes(range(256)), bytes(range(255, -1, -1)) * 3
    git = ["git", "-c", "user.name=x", "-c", "user.email=x", "-c", "init.defaultBranch=main"]

    def run(*arguments: str) -> str:
        done = subprocess.run([*git, *arguments], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode()

    run("init", "-q")
    (tmp_path / "x.bin").write_bytes(old)
    run("add", "x.bin")
    run("commit", "-qm", "x")
    (tmp_path / "x.bin").write_bytes(new)
    patch = run("diff", "--binary")
    assert "GIT binary patch" in patch
    run("checkout", "-q", "x.bin")
    found = extract_patch(f"So:\n```diff\n{patch}{OTHER}```\nDone.\n")
    assert (found.problem, found.patch) == ("", patch + OTHER)
    git_apply(tmp_path, extract_patch(f"So:\n{patch}").patch)
    assert (tmp_path / "x.bin").read_bytes() == new


CUT = DIFF[: DIFF.index("more") + 5]
TALK = """\
A unified diff begins with `--- a/file` and `+++ b/file`, and `diff --git` before them.

```
- old
+ new
```

--- and then a line
+++ and then another
"""
REFUSED: dict[str, tuple[str, str, str]] = {
    "nothing": ("", "none", "empty"),
    "blank": (" \n\t\n", "none", "empty"),
    "reasoning without an end": (f"<think>\n{DIFF}", "none", "truncated"),
    "reasoning alone": (f"<think>\n{DIFF}</think>\n", "none", "no_patch"),
    "talk": (TALK, "none", "no_patch"),
    "a tag without a diff": ("<patch>none needed</patch>\n", "none", "no_patch"),
    "cut": (CUT, "diff", "truncated"),
    "cut in a line": (CUT[:-3], "diff", "truncated"),
    "cut after prose": (f"So:\n{CUT}", "diff", "truncated"),
    "cut in a fence": (f"```diff\n{CUT}", "fenced_diff", "truncated"),
    "cut before a hunk": (DIFF[: DIFF.index("@@")], "diff", "truncated"),
    "cut in a hunk's head": (DIFF[: DIFF.rindex("@@") - 3], "diff", "truncated"),
    "cut in the next file's head": (f"{DIFF}diff --gi", "diff", "truncated"),
    "cut after the next file's name": (f"{DIFF}{OTHER.split('+++')[0]}", "diff", "truncated"),
    "last context stripped": (DIFF.removesuffix(" line 23\n"), "diff", "truncated"),
    "a line without its space": (DIFF.replace("\n line 3", "\nline 3"), "diff", "unparsable"),
    "a later line without its space": (
        f"```diff\n{DIFF.replace(chr(10) + ' line 6', chr(10) + 'line 6')}```",
        "fenced_diff",
        "unparsable",
    ),
    "more lines than announced, after prose": (
        f"So:\n{DIFF.replace('+18,7 @@', '+18,6 @@')}",
        "diff",
        "hunk_ambiguous",
    ),
    "dots for lines": (
        f"```diff\n{DIFF.replace(' line 2', '...')}```",
        "fenced_diff",
        "unparsable",
    ),
    "no line numbers": (
        f"```diff\n--- a/f\n+++ b/f\n{FIRST_HUNK}@@ ... @@\n-a\n+b\n```",
        "fenced_diff",
        "unparsable",
    ),
    "hunk without names": (f"```diff\n{FIRST_HUNK}```\n", "none", "hunk_without_file"),
    "text between hunks": (
        DIFF.replace(SECOND_HUNK, f"And:\n{SECOND_HUNK}"),
        "diff",
        "hunk_without_file",
    ),
    "one file in two fences": (
        f"```diff\n{DIFF}```\nor\n```diff\n{DIFF}```\n",
        "fenced_diff",
        "file_twice",
    ),
    "context only": ("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n b\n", "diff", "unparsable"),
    "binary": (
        "diff --git a/x.png b/x.png\nindex 1..2 100644\nBinary files a/x.png and b/x.png differ\n",
        "diff",
        "binary",
    ),
    "outside": (DIFF.replace("pkg/", "../"), "diff", "unsafe_path"),
    "absolute": (BARE.replace("a/pkg", "/etc").replace("b/pkg", "/etc"), "diff", "unsafe_path"),
    "git's own": (DIFF.replace("pkg/", ".git/"), "diff", "unsafe_path"),
    "html": (f"```diff\n{DIFF.replace('+++ ', '&plus;++ ')}```\n", "fenced_diff", "unparsable"),
    "a new file that has a name": (
        "diff --git a/n b/n\nnew file mode 100644\n--- a/n\n+++ b/n\n@@ -0,0 +1 @@\n+x\n",
        "diff",
        "unparsable",
    ),
    "lines git would drop": (
        f"```diff\n{DIFF}line 24\n+and more\n```\n",
        "fenced_diff",
        "unparsable",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_answer_without_a_sound_patch_says_why(name: str) -> None:
    text, form, problem = REFUSED[name]
    found = extract_patch(text)
    assert (found.patch, found.form, found.problem) == ("", form, problem), found.detail
    assert found.repairs == {}


def test_a_name_beyond_the_tree_is_shown() -> None:
    assert extract_patch(REFUSED["outside"][0]).detail == "../one.py"


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(
    old=TEXTS,
    new=TEXTS,
    before=st.sampled_from(["", "So:\n\n", "- a list\n", "`--- a/x`\n"]),
    fence=st.sampled_from(["```diff", "````", "~~~patch", "<patch>", ""]),
)
def test_git_makes_the_new_file_of_what_is_extracted(
    tmp_path: Path, old: str, new: str, before: str, fence: str
) -> None:
    patch = unified_diff("f.py", old, new)
    if not patch:
        return
    close = "</patch>" if fence == "<patch>" else fence[:3] if fence == "~~~patch" else fence[:4]
    close = "```" if fence == "```diff" else close
    answer = f"{before}{fence}\n{patch}{close}\n\nDone.\n" if fence else f"{before}{patch}"
    found = extract_patch(answer)
    assert (found.problem, found.patch, dict(found.repairs)) == ("", patch, {})
    (tmp_path / "f.py").write_bytes(old.encode())
    git_apply(tmp_path, found.patch)
    assert (tmp_path / "f.py").read_bytes() == new.encode()


def is_sound(found: Extraction) -> bool:
    """What holds for every answer."""
    if found.problem:
        return found.patch == "" and not found.repairs
    files = parse_patch(found.patch)
    assert files
    assert all(hunk.complete for file in files for hunk in file.hunks)
    assert found.patch.endswith("\n")
    return repair_patch(found.patch) == (found.patch, {})


PIECES = [
    *(DIFF + OTHER + README).split("\n"),
    *("```", "```diff", "~~~", "<patch>", "</patch>", "prose", "", "-- ", "@@", "@@ -1 +1 @@"),
    *("<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "two.py", "+x\0\u2028", "\\ No newline at"),
    *("GIT binary patch", "literal 3", "rename from a", "new file mode 100644", "diff --git a/x"),
]


@settings(max_examples=400, database=None)
@given(
    st.text()
    | st.lists(st.sampled_from(PIECES), max_size=40).map("\n".join)
    | st.lists(st.sampled_from(PIECES), max_size=40).map("\r\n".join)
)
def test_any_text_gives_a_sound_patch_or_a_reason(text: str) -> None:
    assert is_sound(extract_patch(text, lambda _: "a\nb\n"))
    repaired, _ = repair_patch(text)
    assert repair_patch(repaired) == (repaired, {})


MIB = 1 << 20
HEAD = "--- a/f\n+++ b/f\n"
LARGE: dict[str, Callable[[], str]] = {
    "backticks": lambda: "`" * 5 * MIB,
    "fences": lambda: "```\n" * (MIB // 8),
    "fences that open": lambda: "```diff\n" * (MIB // 8),
    "fences of any length": lambda: "".join("`" * (3 + n % 90) + "x\n" for n in range(20_000)),
    "at signs": lambda: "@" * 5 * MIB,
    "hunks": lambda: "@@\n" * (MIB // 8),
    "hunk heads": lambda: HEAD + "@@ -1 +1 @@\n" * (MIB // 3),
    "hunk lines": lambda: HEAD + "@@ -1,999999999 +1,9 @@\n" + "+\n" * (MIB // 8),
    "blank lines in a hunk": lambda: f"{HEAD}@@ -1 +1 @@\n-a\n+b\n" + "\n" * (MIB // 4),
    "many short files": lambda: (HEAD + "@@ -1 +1 @@\n-a\n+b\n+c\n") * 5_000,
    "git lines": lambda: "diff --git a/x b/x\n\n" * (MIB // 4),
    "search marks": lambda: "<<<<<<< SEARCH\n" * (MIB // 3),
    "angles": lambda: "<" * 5 * MIB,
    "edits": lambda: "f.py\n<<<<<<< SEARCH\nb\n=======\nb\n>>>>>>> REPLACE\n" * 20_000,
    "tags": lambda: "<patch>\n" * (MIB // 8) + "</patch>\n",
    "tags in a line": lambda: "<patch>" * (MIB // 2),
    "tags unclosed": lambda: "x\n<patch>\n</diff>" * (MIB // 16),
    "zeros": lambda: "\0" * 5 * MIB,
    "stars": lambda: "*" * 900 + "`\n" + "<<<<<<< SEARCH\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_megabytes_take_a_time_that_grows_with_them_only(name: str) -> None:
    text = LARGE[name]()
    begin = time.process_time()
    assert is_sound(extract_patch(text, lambda _: "a\nb\n"))
    repair_patch(text)
    # It takes about two seconds at most; quadratic work on such texts takes minutes to hours.
    assert time.process_time() - begin < 20
