"""Files hashed ahead: the same hashes, whatever happens meanwhile, and nothing left running."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from swe_scaffold.engine import read_ahead
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.model import find_base, load_base
from swe_scaffold.engine.read_ahead import hashing_ahead
from swe_scaffold.errors import EnvironmentFailure, Stopped
from swe_scaffold.signals import stop_by_exception

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def endless(folder: Path) -> Path:
    """A base whose weights take a quarter of an hour to hash; its disk space is zeros nowhere."""
    os.truncate(folder / WEIGHTS, 1 << 40)
    return folder


def reading() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "hashing-ahead" in thread.name]


def test_a_base_found_with_it_is_the_one_found_without(folder: Path) -> None:
    with hashing_ahead(str(folder)) as sha256:
        assert find_base(str(folder), sha256=sha256) == find_base(str(folder))
    assert reading() == []


def test_each_weight_file_is_read_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(read_ahead, "sha256_file", lambda path: f"again: {path.name}")
    other = tmp_path / "other"
    other.write_text("not of the base")
    with hashing_ahead(str(folder)) as sha256:
        expected = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        assert sha256(folder / WEIGHTS) == expected
        assert sha256(folder / "config.json") != "again: config.json"
        assert sha256(other) == "again: other"


def test_shards_are_read_and_what_lies_beside_the_weights_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "sha256_file", lambda path: "again")
    shards = [folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for path in shards:
        path.write_text(path.name)
    with hashing_ahead(str(folder)) as sha256:
        assert [sha256(path) for path in shards] == ["again", "again"]
    (folder / WEIGHTS).unlink()
    with hashing_ahead(str(folder)) as sha256:
        hashes = [hashlib.sha256(path.name.encode()).hexdigest() for path in shards]
        assert [sha256(path) for path in shards] == hashes


def test_a_file_changed_meanwhile_is_hashed_as_it_is(folder: Path) -> None:
    before = find_base(str(folder)).sha256
    with hashing_ahead(str(folder)) as sha256:
        sha256(folder / WEIGHTS)
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (folder / WEIGHTS).write_bytes(data)
        now = find_base(str(folder), sha256=sha256).sha256
    assert now == find_base(str(folder)).sha256 != before


@pytest.mark.parametrize("name", ["nobody/nothing", "-x", "no folder", ""])
def test_a_base_that_is_not_here_is_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("here")
    with hashing_ahead(name) as sha256:
        assert sha256(file) == hashlib.sha256(b"here").hexdigest()
        with pytest.raises(EnvironmentFailure, match="no such file"):
            sha256(tmp_path / "missing")


def fail_beside(base: Path) -> None:
    with hashing_ahead(str(base)):
        assert reading()
        raise ValueError("of the rows")


def stop_while_waiting(base: Path) -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    with stop_by_exception(), hashing_ahead(str(base)) as sha256:
        timer.start()
        sha256(base / WEIGHTS)


def test_an_error_ends_the_reading(endless: Path) -> None:
    with pytest.raises(ValueError, match="of the rows"):
        fail_beside(endless)
    assert reading() == []


def test_a_signal_ends_the_wait_and_the_reading(endless: Path) -> None:
    with pytest.raises(Stopped) as caught:
        stop_while_waiting(endless)
    assert caught.value.exit_code == 130
    assert reading() == []


def test_the_base_loads_as_ever(folder: Path) -> None:
    cpu = Device("cpu", torch.float32)
    with hashing_ahead(str(folder)) as sha256:
        files = find_base(str(folder), sha256=sha256)
    assert load_base(str(folder), cpu, files=files).sha256 == load_base(str(folder), cpu).sha256
