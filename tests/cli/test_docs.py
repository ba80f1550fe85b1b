"""The docs say what the code does: generated pages, links, paths and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swe_scaffold.cli import docs
from swe_scaffold.config import describe_config
from swe_scaffold.errors import ScaffoldError
from tests.cli.conftest import ROOT
from tests.cli.test_help import parse, paths

PAGES = sorted(
    path
    for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    if "artifacts" not in path.parts
)
# Files that commands make or read; the last part of a path decides.
MADE = re.compile(
    r".*(manifest|config|run|adapter_config|trained_rows|evaluation)\.json|\.venv.*"
    r"|(data|artifacts|runs|checkpoints|evaluation|walkthrough)/.*"
    r"|(README|DATA_CARD|walkthrough)\.md|walkthrough\.(traj|atif)\.json|walkthroughs\.json"
)
PATH = re.compile(r"`([\w./-]+(?:\.(?:py|md|json|toml|txt|yaml)|/))`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}.*$", re.MULTILINE)
COMMAND = re.compile(r"^ *(swe-scaffold .*)", re.MULTILINE)
INLINE = re.compile(r"`(swe-scaffold [^`]+)`")
DOOR = re.compile(r"python ((?:scripts|training|benchmarks)/\w+\.py)([^`|>#\n]*)")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def occurrences(pattern: re.Pattern[str]) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for match in pattern.finditer(page.read_text("utf-8")):
            yield page, match[1].strip()


def test_the_generated_pages_are_those_of_the_code() -> None:
    assert docs.main(["--check"]) == 0


def test_a_stale_page_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "docs"
    assert docs.main([], folder) == 0
    assert docs.main(["--check"], folder) == 0
    page = folder / "cli.md"
    page.write_text(page.read_text("utf-8").replace("--limit N", "--limit M"), "utf-8")
    assert docs.main(["--check"], folder) == 1
    assert capsys.readouterr().err.startswith("error: docs/cli.md: is stale\nhint: make docs\n")
    page.unlink()
    assert docs.main(["--check"], folder) == 1


def test_every_command_key_and_exit_code_is_documented() -> None:
    pages = docs.pages()
    for words in paths():
        assert f"\n## {' '.join(words)}\n" in pages["cli.md"]
    for key, *_ in describe_config():
        assert f"| `{key}` |" in pages["configuration.md"]
    codes = {kind.exit_code for kind in ScaffoldError.__subclasses__()} | {0, 130, 143}
    for code in codes:
        assert f"\n| {code} | " in pages["cli.md"]


def test_links_lead_somewhere() -> None:
    found = [(page, link) for page, link in occurrences(LINK) if "://" not in link]
    assert found
    assert [f"{named(p)}: {link}" for p, link in found if not (p.parent / link).exists()] == []


def test_paths_that_are_named_exist() -> None:
    found = list(occurrences(PATH))
    assert len(found) > 20

    def exists(page: Path, path: str) -> bool:
        places = (ROOT, page.parent, ROOT / "swe_scaffold")
        return MADE.fullmatch(path) is not None or any((place / path).exists() for place in places)

    assert [f"{named(page)}: {path}" for page, path in found if not exists(page, path)] == []


def commands() -> Iterator[tuple[Path, str]]:
    """Every `swe-scaffold` line of a code block, and every one between backticks."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in (*FENCED.findall(text), *INDENTED.findall(text)):
            yield from ((page, match[1]) for match in COMMAND.finditer(block))
    yield from occurrences(INLINE)


def test_commands_parse() -> None:
    found = list(commands())
    assert len(found) > 40
    for page, line in found:
        words = re.split(r"   | #| \(", line.replace("\\|", "|"))[0].split()
        # Usage lines, and the bare name of a command, are not to be run.
        usage = {"COMMAND", "[OPTIONS]", "--help", "--version"} & set(words)
        if not usage and words[1:] not in paths():
            try:
                parse(" ".join(words))
            except Exception as error:
                raise AssertionError(f"{named(page)}: {line}") from error


def test_doors_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    doors = {door: name for name, door in docs.DOORS.items()}
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in DOOR.finditer(text):
            assert (ROOT / match[1]).is_file(), f"{named(page)}: {match[0]}"
            if match[1] in doors and match[2].strip() and "--help" not in match[2]:
                parse(f"swe-scaffold {doors[match[1]]} {match[2]}")
        for code in re.findall(r"`(make [a-z-]+)`|^    (make [a-z-]+)", text, re.MULTILINE):
            target = "".join(code).removeprefix("make ")
            assert target in targets, f"{named(page)}: make {target}"
