"""Synthetic tasks: mutants that matter, patches git applies, statements that hide the answer."""

from __future__ import annotations

import hashlib
import json
import keyword
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.diffs import parse_patch
from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.python_tree import ReadCounts, python_files
from swe_scaffold.synthesis import Recipe, SynthesisResult, synthesize
from swe_scaffold.synthesis.operators import FIRST_OPERATORS, OPERATORS

STDLIB = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = [
    *("argparse", "ast", "asyncio", "base64", "calendar", "cmd", "collections", "concurrent"),
    *("configparser", "copy", "csv", "dataclasses", "difflib", "enum", "fractions"),
    *("functools", "html", "inspect", "json", "mailbox"),
    *("pathlib", "random", "shutil", "statistics", "string", "tarfile"),
]
KEYS = [
    *("instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement"),
    *("hints_text", "created_at", "version", "FAIL_TO_PASS", "PASS_TO_PASS"),
    *("environment_setup_commit", "operator", "validated", "source_path", "function", "context"),
    "mutant_sha256",
]

TREE = {
    "shapes/__init__.py": """\
        def clamp(value, low, high):
            \"\"\"Keep value between low < high and not outside.\"\"\"
            if value < low:
                return low
            return min(value, high)
        """,
    "shapes/grid.py": """\
        import functools


        class Grid:
            @property
            @functools.lru_cache
            def corner(self):
                if self.cells[0] is None and not self.empty:
                    return None
                return self.cells[1:3]

            def fill(self, row, column):
                def paint(x, y):
                    self.cells[x] = y
                    return self.put(x, y, row, column)

                return paint(row, column)
        """,
    "tabs.py": """\
        def count(items, most):
        \ttotal = 0
        \tfor item in items:
        \t\tif item == 0:
        \t\t\tcontinue
        \t\telif item > most:
        \t\t\ttotal = most
        \t\telse:
        \t\t\ttotal += 1
        \treturn total
        """,
    "größe.py": """\
        def größe(länge, breite):
            if "äöü€" in länge and breite != "ß":  # Übergröße in Zentimetern
                return messen(länge, breite), länge["ä":1]
            return nichts("日本", länge, breite)
        """,
    "flow.py": """\
        class Store:
            async def load(self, name, limit=10, strict=False):
                self.seen += 1
                if strict and name:
                    text = await self.read(name, encoding="utf-8")
                else:
                    text = self.cached
                try:
                    width = limit * 2 - len(text)
                except ValueError:
                    raise KeyError(name) from None
                self.widths.append(width)
                for index, part in enumerate(sorted(text)):
                    if part.startswith(name):
                        break
                return text[:width], max(index, 1), self.widths
        """,
    "crlf.py": """\
        def windows(left, right):\r
            if not left:\r
                return right\r
            return join(left, right)[1]\r
        """,
}


def dedent(text: str) -> str:
    return "".join(f"{line.removeprefix('        ')}\n" for line in text.split("\n")[:-1])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in TREE.items():
        write(root / name, dedent(text))
    return root


@pytest.fixture(scope="module")
def standard() -> SynthesisResult:
    return synthesize(STDLIB, count=60, seed=7, include=PACKAGES)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def everything(root: Path, **options: Any) -> SynthesisResult:
    recipe = Recipe(**{"per_function": 0, "max_per_file": 0, "max_per_operator": 0} | options)
    return synthesize(root, count=10_000, seed=1, recipe=recipe)


def mutant_of(original: str, patch: str) -> str:
    """Undo a patch by its hunks alone: the mutant is its old side."""
    lines, out, position = original.split("\n"), [], 0
    (file,) = parse_patch(patch)
    for hunk in file.hunks:
        start = hunk.new_start - (1 if hunk.new_count else 0)
        out += lines[position:start]
        out += [line[1:] for line in hunk.lines if line[:1] in ("-", " ")]
        position = start + hunk.new_count
    return "\n".join(out + lines[position:])


def code_of(text: str) -> list[Any]:
    """Everything a module's code holds but names of files and line numbers."""

    def facts(code: Any) -> Iterator[Any]:
        yield code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_flags
        for constant in code.co_consts:
            if hasattr(constant, "co_code"):
                yield from facts(constant)
            else:
                yield type(constant), constant

    return list(facts(compile(text.encode(), "m", "exec", dont_inherit=True)))


def check_row(root: Path, workplace: Path, row: dict[str, Any]) -> None:
    """What every task promises: a mutant that differs in its code and a patch git can apply."""
    original = (root / row["source_path"]).read_bytes()
    mutant = mutant_of(original.decode(), row["patch"]).encode()
    assert hashlib.sha256(mutant).hexdigest() == row["mutant_sha256"]
    assert code_of(mutant.decode()) != code_of(original.decode())
    target = workplace / row["source_path"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(mutant)
    result = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"],
        cwd=workplace,
        input=row["patch"].encode(),
        capture_output=True,
        check=False,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(workplace.parent)},
    )
    assert result.returncode == 0, result.stderr.decode()
    assert target.read_bytes() == original
    for shown in row["context"]:
        assert shown["path"] == row["source_path"]
        lines = mutant.decode().removeprefix("\ufeff").split("\n")
        assert "\n".join(lines[shown["start_line"] - 1 :]).startswith(shown["text"])
        assert shown["text"].split("\n")[0].lstrip().startswith(("def ", "async def ", "@"))


def check_statement(row: dict[str, Any]) -> None:
    """The statement names the place and holds neither a changed line nor the operator changed."""
    statement = row["problem_statement"]
    assert row["function"] in statement
    assert row["source_path"] in statement
    words = statement.replace(row["function"], "").replace(row["source_path"], "")
    assert not re.search(r"[0-9<>=]", words)
    (file,) = parse_patch(row["patch"])
    lines = [line for hunk in file.hunks for line in hunk.lines if line[:1] in "+-"]
    assert not any(len(line[1:].strip()) > 3 and line[1:].strip() in words for line in lines)
    if len(lines) == 2:
        before, after = (Counter(re.findall(r"\w+", line[1:])) for line in lines)
        changed = {*(before - after), *(after - before)} & set(keyword.kwlist)
        assert not changed & set(re.findall(r"\w+", words))
    if row["operator"] == "flip_comparison":
        assert not re.search(r"\b(in|is|not|and|or)\b", words)
        assert words


def test_every_candidate_of_a_small_tree_keeps_its_promises(tree: Path, tmp_path: Path) -> None:
    result = everything(tree)
    assert {row["operator"] for row in result.tasks} == set(OPERATORS)
    assert {row["source_path"] for row in result.tasks} == set(TREE)
    assert {"shapes.grid.Grid.corner", "shapes.grid.Grid.fill.paint", "shapes.clamp"} <= {
        row["function"] for row in result.tasks
    }
    for row in result.tasks:
        assert list(row) == KEYS
        check_row(tree, tmp_path / "applied", row)
        check_statement(row)


@pytest.mark.slow
def test_standard_library_tasks_keep_their_promises(
    standard: SynthesisResult, tmp_path: Path
) -> None:
    assert len(standard.tasks) == 60
    assert len({row["repo"] for row in standard.tasks}) >= 20
    assert set(standard.counts["kept_by_operator"]) == set(OPERATORS)
    assert set(standard.counts["kept_by_operator"].values()) == {2, 3}
    assert len({row["instance_id"] for row in standard.tasks}) == 60
    places = {(row["source_path"], row["context"][0]["start_line"]) for row in standard.tasks}
    assert len(places) == 60
    for row in standard.tasks:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", row["instance_id"])
        assert row["instance_id"].startswith(f"{row['repo']}__{row['repo']}")
        assert row["validated"] is False
        assert row["repo"] in PACKAGES
        check_row(STDLIB, tmp_path, row)
        check_statement(row)


def test_counts_are_identities(standard: SynthesisResult, tree: Path) -> None:
    for result in (standard, everything(tree), synthesize(tree, count=3, seed=2)):
        counts = result.counts
        assert counts["kept"] == len(result.tasks) == sum(counts["kept_by_operator"].values())
        assert counts["kept"] == counts["candidates_used"]
        assert counts["candidates"] == counts["kept"] + sum(counts["rejected"].values())
        assert counts["files_seen"] == counts["files_read"] + sum(counts["files_skipped"].values())
    assert everything(tree).counts["requested"] == 10_000


def test_same_seed_same_bytes_whatever_the_hash_seed(tree: Path) -> None:
    code = (
        "import json, pathlib, sys; from swe_scaffold.synthesis import synthesize;"
        "r = synthesize(pathlib.Path(sys.argv[1]), count=12, seed=5);"
        "print(json.dumps([r.tasks, r.counts]))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(tree)],
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    here = synthesize(tree, count=12, seed=5)
    assert json.loads(runs[0]) == [here.tasks, here.counts]
    assert synthesize(tree, count=12, seed=6).tasks != here.tasks


def test_a_further_package_changes_no_draw_inside_the_others(tree: Path) -> None:
    before = {row["instance_id"] for row in synthesize(tree, count=4, seed=3).tasks}
    write(tree / "zzz" / "more.py", dedent(TREE["tabs.py"]))
    after = {row["instance_id"] for row in everything(tree).tasks}
    assert before <= after


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    return g(1 + 1, 4 - 2)\n", "equal_code"),
        ("    return c\n    return g(a, b)\n", "equal_code"),
        ("    if 0:\n        return b\n    return c\n", "equal_code"),
        ("    assert g(a)\n    return g((yield), b)\n", "does_not_compile"),
    ],
)
def test_useless_mutants_are_rejected_with_a_reason(tmp_path: Path, body: str, reason: str) -> None:
    write(tmp_path / "m.py", f"def f(a, b, c):\n    g()\n{body}")
    result = everything(tmp_path, operators=FIRST_OPERATORS)
    assert result.counts["rejected"][reason] == 1
    assert result.counts["candidates"] == result.counts["kept"] + 1


def test_one_mutant_per_function_none_in_short_long_or_test_functions(tmp_path: Path) -> None:
    functions = [
        "def short(a, b):\n    return a < b\n",
        "def long(a, b):\n" + "    a = a < b\n" * 60,
        "def test_it(a, b):\n    c = a\n    return c < b\n",
        "def one(a, b):\n    c = a < b\n    return g(a, b)\n",
        "class K:\n    def two(a, b):\n        c = a < b\n        return g(a, b)\n",
    ]
    write(tmp_path / "m.py", "\n\n".join(functions))
    recipe = Recipe(operators=FIRST_OPERATORS)
    result = synthesize(tmp_path, count=9, seed=0, recipe=recipe)
    assert {row["function"] for row in result.tasks} == {"m.one", "m.K.two"}
    assert result.counts["kept"] == 2
    assert result.counts["rejected"] == {"function_used": 4}
    assert result.counts["functions_skipped"] == {"test": 1, "too_long": 1, "too_short": 1}


def test_context_none_shows_nothing(tree: Path) -> None:
    assert all(row["context"] == [] for row in everything(tree, context="none").tasks)


def test_a_byte_order_mark_and_a_lone_carriage_return(tmp_path: Path) -> None:
    body = "def f(a, b):\n    g()\n    return a < b\n"
    write(tmp_path / "marked.py", f"\ufeff{body}")
    write(tmp_path / "late.py", f"\ufeffimport g\n\n\n{body}")
    write(tmp_path / "old_mac.py", body.replace("\n", "\r"))
    write(tmp_path / "broken.py", "def f(:\n")
    result = everything(tmp_path)
    assert result.counts["files_unparsable"] == 2
    assert {row["source_path"] for row in result.tasks} == {"marked.py", "late.py"}
    for row in result.tasks:
        check_row(tmp_path, tmp_path / "applied", row)


def test_wrong_arguments_are_refused(tree: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        synthesize(tree / "tabs.py", count=1, seed=0)
    with pytest.raises(UsageError, match="at least 1"):
        synthesize(tree, count=0, seed=0)
    with pytest.raises(UsageError, match="a cap must be"):
        synthesize(tree, count=1, seed=0, recipe=Recipe(max_per_file=-1))
    with pytest.raises(UsageError, match="unknown operator: flip") as caught:
        synthesize(tree, count=1, seed=0, recipe=Recipe(operators=("flip",)))
    assert "flip_comparison" in caught.value.hint


def test_python_files_are_sorted_and_junk_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("b.py", "a/z.py", "a/b.py", "a.py", "a/notes.txt", "tests/test_a.py", "ü.py"):
        write(root / name, f"{name}\x0c\u2028\r\n")
    for name in ("a/test_b.py", "conftest.py", ".git/x.py", "site-packages/p/q.py", "odd\n.py"):
        write(root / name, "")
    write(tmp_path / "outside" / "secret.py", "SECRET = 1\n")
    (root / "link.py").symlink_to(tmp_path / "outside" / "secret.py")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "latin.py").write_bytes(b"# caf\xe9\n")
    (root / "huge.py").write_bytes(b"#" * 1_000_001)
    os.mkfifo(root / "pipe.py")
    counts = ReadCounts()
    files = list(python_files(root, counts=counts))
    assert files == [
        (name, f"{name}\x0c\u2028\r\n") for name in ("a/b.py", "a/z.py", "a.py", "b.py", "ü.py")
    ]
    assert counts.files_skipped == {
        "test_file": 2,
        "odd_name": 1,
        "symlink": 1,
        "not_utf8": 1,
        "too_large": 1,
        "not_regular": 1,
    }
    assert counts.folders_skipped == {"tests": 1, "hidden": 1, "junk": 1}
    assert counts.files_seen == counts.files_read + counts.files_skipped.total()


def test_python_files_takes_names_or_a_predicate(tree: Path) -> None:
    shapes = ["shapes/__init__.py", "shapes/grid.py"]
    assert [path for path, _ in python_files(tree, ["shapes", "tabs"])] == [*shapes, "tabs.py"]
    assert [path for path, _ in python_files(tree, lambda path: "grid" in path)] == shapes[1:]


def test_no_source_line_of_the_tree_is_run(tmp_path: Path) -> None:
    bomb = "raise SystemExit('ran')\n\n\ndef f(a, b):\n    g()\n    return a < b\n"
    write(tmp_path / "m.py", bomb)
    assert synthesize(tmp_path, count=1, seed=0).counts["kept"] == 1


def test_nearly_everything_in_the_standard_library_is_read(standard: SynthesisResult) -> None:
    assert standard.counts["candidates"] > 25_000
    assert standard.counts["files_unparsable"] == 0
