"""What reaches the terminal: foreign text without its powers, progress that suits the stream."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.terminal import SILENT, Reporter, show, show_block, wants_style

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zl", "Zp"]),
        st.sampled_from(
            "a\\[]{}\n\t\r\x1b\x9b\u202e\u2066\u200b\ufeff\U000e0041\u3164\u034f\ufe0f"
        ),
    ),
    max_size=30,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, é 中 ½ 🙂", "plain text, é 中 ½ 🙂"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\x7f\x00", r"\x7f\x00"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\u2028\u2029\x85", r"\u{2028}\u{2029}\x85"),
        ("user\u202etxt.exe\u2066", r"user\u{202e}txt.exe\u{2066}"),
        ("pass\u200bword\u200d\u2060\ufeff\xad", r"pass\u{200b}word\u{200d}\u{2060}\u{feff}\xad"),
        ("\U000e0068\U000e0069", r"\u{e0068}\u{e0069}"),
        (
            "\u3164\u115f\u2800\ufe0f\U000e0100\u034f",
            r"\u{3164}\u{115f}\u{2800}\u{fe0f}\u{e0100}\u{34f}",
        ),
        ("\ud800\udcff\ue000\U0010ffff", r"\u{d800}\u{dcff}\u{e000}\u{10ffff}"),
        ("[b]bold[/b] [/foo] [link=x]", "[b]bold[/b] [/foo] [link=x]"),
        (None, "None"),
        (Path("a\nb"), r"a\nb"),
    ],
)
def test_foreign_text_is_spelled_out(text: object, shown: str) -> None:
    assert show(text) == shown
    assert show_block(text) == shown.replace(r"\n", "\n").replace(r"\t", "\t")


@given(HOSTILE)
def test_nothing_shown_moves_the_cursor_or_hides(text: str) -> None:
    for line in (show(text, width=1000), *show_block(text).replace("\t", "").split("\n")):
        kinds = {unicodedata.category(character) for character in line}
        assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        line.encode()
    assert show_block(text).count("\n") == text.count("\n")


@given(HOSTILE, st.integers(min_value=0, max_value=40))
def test_a_line_is_never_wider_than_asked_and_cut_between_characters(text: str, width: int) -> None:
    line, whole = show(text, width=width), show(text, width=10_000)
    assert len(line) <= width
    assert (line == whole) == (len(whole) <= width)
    if line != whole and width:
        kept = line.removesuffix("…")
        assert line == kept + "…"
        assert kept in {show(text[:end], width=10_000) for end in range(len(text) + 1)}


def test_long_text_is_cut_quickly_and_marked() -> None:
    assert show("x" * 10_000_000) == "x" * 199 + "…"
    assert show("\x1b" * 10_000_000, width=9) == r"\x1b\x1b…"
    assert show("x" * 200) == "x" * 200
    assert len(show_block("x" * 5_000_000 + "\n")) == 5_000_001


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_style_is_for_capable_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_style(Terminal())
    assert not wants_style(io.StringIO())
    assert not wants_style(None)
    closed = Terminal()
    closed.close()
    assert not wants_style(closed)
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_style(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_style(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_style(Terminal())


def test_messages_are_one_safe_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.say("one")
    reporter.say("two\x1b[2J\nforged: line [/b]")
    reporter.say("detail", level=1)
    Reporter(1).say("detail", level=1)
    SILENT.say("nothing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "one\ntwo\\x1b[2J\\nforged: line [/b]\ndetail\n"


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full(), "closed"])
def test_a_stderr_that_is_gone_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    Reporter().say("lost")
    with Reporter().progress("rows", 3) as track:
        track.advance()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr("swe_scaffold.terminal.time.monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_plain_progress_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with Reporter().progress("reading [b]\x1b", 300) as track:
        for _ in range(60):
            clock[0] += 1
            track.advance(2, note="loss 1.5")
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert len(lines) == 6
    assert lines[0] == r"reading [b]\x1b: 20/300 rows, about 156 s left, loss 1.5"
    assert lines[-1] == r"reading [b]\x1b: 120/300 rows, about 92 s left, loss 1.5"


def test_progress_of_unknown_length_counts_and_names_its_unit(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with Reporter().progress("training", None, unit="steps") as track:
        track.advance(3)
        clock[0] += 11
        track.advance()
    assert capsys.readouterr().err == "training: 4 steps\n"


def test_what_an_earlier_run_did_tells_no_speed(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with Reporter().progress("training", 100, unit="steps") as track:
        track.advance(90)
        clock[0] += 20
        track.advance(5)
    assert capsys.readouterr().err == "training: 95/100 steps, about 20 s left\n"


def test_quiet_work_says_nothing(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with SILENT.progress("rows", 10) as track:
        clock[0] += 100
        track.advance()
    assert capsys.readouterr().err == ""


BAR = r"""
from swe_scaffold.terminal import Reporter
reporter = Reporter()
with reporter.progress("read [/b] \x1b]0;t\x07", 3) as track:
    for number in range(3):
        track.advance(1, note="note [/foo] \x9b")
        reporter.say(f"message {number}")
"""


def on_a_terminal(**changes: str) -> str:
    """What a terminal gets from stderr; stdout is no terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", BAR],
        env={**environment, **changes},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        data = b""
        try:
            while part := os.read(ours, 1 << 16):
                data += part
        except OSError:  # Linux reports the end of a terminal this way
            pass
        finally:
            os.close(ours)
    assert child.returncode == 0
    return data.decode()


def test_a_terminal_gets_a_bar_without_the_datas_escapes() -> None:
    text = on_a_terminal()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert r"read [/b] \x1b]0;t\x07" in plain
    assert r"note [/foo] \x9b" in plain
    assert "3/3" in plain
    assert "message 2\r\n" in plain
    assert "\x1b]" not in text
    assert "\x9b" not in text


@pytest.mark.parametrize("change", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escape_reaches_a_terminal_that_wants_none(change: dict[str, str]) -> None:
    assert on_a_terminal(**change) == "message 0\r\nmessage 1\r\nmessage 2\r\n"
