"""Trackers: refused before any work, told everything, and let go in the end."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.engine.trackers import Trackers, require_trackers
from swe_scaffold.errors import ConfigError


class Diary:
    """A tracker as accelerate wants them, which keeps what it is told."""

    name = "diary"
    requires_logging_directory = True
    kept: list[Any]

    def __init__(self, project: str, logging_dir: str) -> None:
        Diary.kept = [("made", project, logging_dir)]

    def start(self) -> None:
        Diary.kept.append(("started",))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        Diary.kept.append(("config", values))

    def log(self, values: dict[str, Any], step: int) -> None:
        Diary.kept.append((step, values))

    def finish(self) -> None:
        Diary.kept.append(("finished",))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Diary]]:
    from accelerate import tracking

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "diary", Diary)
    return Diary


def test_a_tracker_is_told_everything(diary: type[Diary], tmp_path: Path) -> None:
    config = {"training": {"seed": 1, "lora": {"r": 8, "names": ["a"]}}, "rate": 0.5, "none": None}
    trackers = Trackers(["diary", "diary"], tmp_path, config)
    trackers.log({"loss": 2.5, "grad_norm": None}, 3)
    trackers.finish()
    trackers.finish()
    assert diary.kept == [
        ("made", "swe-speedrun", str(tmp_path)),
        ("started",),
        (
            "config",
            {
                "training.seed": 1,
                "training.lora.r": 8,
                "training.lora.names": "['a']",
                "rate": 0.5,
                "none": "None",
            },
        ),
        (3, {"loss": 2.5}),
        ("finished",),
    ]


def test_without_names_nothing_happens(tmp_path: Path) -> None:
    trackers = Trackers([], tmp_path / "tracking", {})
    trackers.log({"loss": 1.0}, 1)
    trackers.finish()
    assert not (tmp_path / "tracking").exists()


def test_an_unknown_tracker_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"report_to: tensorbored is not a tracker") as error:
        require_trackers(["tensorbored"])
    assert "tensorboard" in error.value.hint


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ConfigError, match="tensorboard is not installed"):
        require_trackers(["tensorboard"])


def test_tensorboard_writes_its_events(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    trackers = Trackers(["tensorboard"], tmp_path, {"seed": 1})
    trackers.log({"loss": 1.25, "grad_norm": None}, 7)
    trackers.finish()
    said = []
    for path in tmp_path.rglob("events.out.tfevents.*"):
        content = path.read_bytes()
        while content:
            # A record: length, its checksum, the event, its checksum.
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            said += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
            content = content[16 + length :]
    assert ("loss", 1.25, 7) in said
    assert "grad_norm" not in {tag for tag, _, _ in said}
