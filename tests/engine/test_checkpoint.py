"""Checkpoints: all that a run needs, verified before it is believed, and never half there."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold import files
from swe_scaffold.engine.batches import RowOrder
from swe_scaffold.engine.checkpoint import (
    OPTIMIZER,
    STATE,
    Checkpoint,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    prune,
    remove_newer,
    require_same_run,
    restore,
    save_checkpoint,
)
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import Loop, LoopSettings, StepMetrics
from swe_scaffold.errors import EnvironmentFailure, IntegrityError
from tests.engine.shapes import make_cut, make_model, make_rows, with_adapter

CPU = Device("cpu", torch.float32)
ROWS = make_rows((13, 5, 29, 2, 17, 21, 8, 11))
ORDER = RowOrder(len(ROWS), 3, 1)
PRINTS = {"data": "a", "base": "b"}
SETTINGS = LoopSettings(
    steps=8,
    learning_rate=1e-2,
    scheduler="linear",
    warmup_steps=1,
    weight_decay=0.1,
    max_grad_norm=1.0,
    seed=7,
    pad_id=0,
)
ADAPTER = "adapter_model.safetensors"
FILES = (ADAPTER, OPTIMIZER, STATE)


def make_loop(device: Device = CPU) -> Loop:
    model = with_adapter(make_model().to(device.dtype), dropout=0.1)
    return Loop(model, SETTINGS, device, make_cut(model, tokens=40))


def take(loop: Loop, steps: int) -> list[StepMetrics]:
    lines = [loop.take([ROWS[index] for index in ORDER.at(loop.step)]) for _ in range(steps)]
    return [replace(line, wall_seconds=0.0, batch_seconds=0.0) for line in lines]


def weights(loop: Loop) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in loop.parameters.values()])


def save(folder: Path, loop: Loop, **state: Any) -> Path:
    return save_checkpoint(folder, loop, fingerprint=PRINTS, state=state)


def newest(folder: Path, **changes: str) -> tuple[Checkpoint | None, list[str]]:
    return newest_checkpoint(folder, fingerprint={**PRINTS, **changes})


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the first three steps."""
    folder = tmp_path_factory.mktemp("checkpoints")
    loop = make_loop()
    for _ in range(3):
        take(loop, 1)
        save(folder, loop, note=loop.step)
    return folder


@pytest.fixture
def folder(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "checkpoints"))


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7])
def test_going_on_is_bit_identical_with_dropout(tmp_path: Path, stop: int) -> None:
    whole = make_loop()
    wanted = take(whole, 8)
    first = make_loop()
    lines = take(first, stop)
    save(tmp_path, first)
    # Whatever else draws random numbers meanwhile is of no consequence.
    torch.rand(100)
    second = make_loop()
    checkpoint, passed = newest(tmp_path)
    assert checkpoint is not None
    assert not passed
    restore(second, checkpoint)
    assert second.step == stop
    assert lines + take(second, 8 - stop) == wanted
    assert torch.equal(weights(second), weights(whole))


def test_the_test_above_can_fail(tmp_path: Path) -> None:
    """With another step's optimizer a run goes on differently."""
    whole, first = make_loop(), make_loop()
    take(whole, 8)
    take(first, 4)
    save(tmp_path / "good", first)
    take(first, 1)
    save(tmp_path / "other", first)
    stale = tmp_path / "other" / "step-5" / OPTIMIZER
    shutil.copyfile(stale, tmp_path / "good" / "step-4" / OPTIMIZER)
    second = make_loop()
    restore(second, Checkpoint(tmp_path / "good" / "step-4", 4, {}, PRINTS))
    take(second, 4)
    assert not torch.equal(weights(second), weights(whole))


def test_the_state_comes_back(folder: Path) -> None:
    checkpoint, passed = newest(folder)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state["note"], passed) == (3, 3, [])
    assert checkpoint.fingerprint == PRINTS


def test_float16_may_have_no_moments_yet(tmp_path: Path) -> None:
    half = Device("cpu", torch.float16)
    loop = make_loop(half)
    first = next(tensor for tensor in loop.model.parameters() if tensor.requires_grad)
    hook = first.register_hook(lambda gradient: gradient * torch.inf)
    assert take(loop, 1)[0].grad_norm is None
    hook.remove()
    save(tmp_path, loop)
    checkpoint, _ = newest(tmp_path)
    assert checkpoint is not None
    again = make_loop(half)
    restore(again, checkpoint)
    assert again.scaler.state_dict() == loop.scaler.state_dict()
    state = torch.get_rng_state()
    lines = take(again, 3)
    torch.set_rng_state(state)
    assert take(loop, 3) == lines
    assert torch.equal(weights(again), weights(loop))
    assert not torch.equal(weights(again), weights(make_loop(half)))


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_damaged_newest_is_passed_over_and_named(folder: Path, name: str) -> None:
    path = folder / "step-3" / name
    for damage in ("flip", "cut", "empty", "missing"):
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
            path.write_bytes({"flip": flipped, "cut": data[:-3], "empty": b""}[damage])
        checkpoint, passed = newest(folder)
        assert checkpoint is not None, damage
        assert checkpoint.step == 2, damage
        assert len(passed) == 1
        assert passed[0].startswith("step-3: ")
        assert name in passed[0], damage
        path.write_bytes(data)
    assert newest(folder)[1] == []


def test_an_empty_newest_folder_is_passed_over(folder: Path) -> None:
    (folder / "step-99").mkdir()
    checkpoint, passed = newest(folder)
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert "there is no manifest" in passed[0]


def test_where_all_are_damaged_there_is_none(folder: Path) -> None:
    for step in (1, 2, 3):
        (folder / f"step-{step}" / ADAPTER).write_bytes(b"")
    checkpoint, passed = newest(folder)
    assert checkpoint is None
    assert [line[:6] for line in passed] == ["step-3", "step-2", "step-1"]


def test_a_renamed_checkpoint_is_passed_over(folder: Path) -> None:
    (folder / "step-3").rename(folder / "step-30")
    checkpoint, passed = newest(folder)
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert passed == ["step-30: holds step 3"]


def test_without_a_folder_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") == (None, [])


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": None},
        {"files": dict.fromkeys(FILES)},
        {"files": {name: {"size": "x"} for name in FILES}},
        {"fingerprint": None},
        {"schema": 99},
    ],
)
def test_a_malformed_manifest_is_no_crash(folder: Path, changes: dict[str, Any]) -> None:
    edit_manifest(folder / "step-3", **changes)
    with pytest.raises(IntegrityError):
        open_checkpoint(folder / "step-3")
    checkpoint, _ = newest(folder)
    assert checkpoint is not None
    assert checkpoint.step == 2


def test_another_run_is_refused_by_what_differs(folder: Path) -> None:
    with pytest.raises(IntegrityError, match=r"different: base \(was b, is c\)") as error:
        newest(folder, base="c")
    assert error.value.exit_code == 5
    assert "--overwrite" in error.value.hint


def test_every_difference_is_named() -> None:
    require_same_run({"a": "1"}, {"a": "1"}, where="x")
    with pytest.raises(IntegrityError, match=r"a \(was 1, is 2\), b \(was None, is 3\)"):
        require_same_run({"a": "1"}, {"a": "2", "b": "3"}, where="x")


def _reseal(path: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Put other tensors in and hashes that fit them: what a wrong program would have saved."""
    from safetensors.torch import save_file

    save_file(tensors, path / name)
    entries = json.loads((path / "manifest.json").read_bytes())["files"]
    entries[name] = {
        "size": (path / name).stat().st_size,
        "sha256": files.sha256_file(path / name),
    }
    edit_manifest(path, files=entries)


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
@pytest.mark.parametrize("name", [OPTIMIZER, ADAPTER])
def test_tensors_of_another_run_are_refused(folder: Path, name: str, change: str) -> None:
    from safetensors.torch import load_file

    path = folder / "step-3"
    tensors = load_file(path / name)
    first = next(key for key in sorted(tensors) if tensors[key].ndim)
    if change == "missing":
        del tensors[first]
    elif change == "extra":
        tensors["more"] = torch.zeros(2)
    else:
        tensors[first] = torch.zeros(5)
    _reseal(path, name, tensors)
    with pytest.raises(IntegrityError, match=name):
        restore(make_loop(), open_checkpoint(path))


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [(None, None, [1, 2, 3]), (1, None, [3]), (2, None, [2, 3]), (1, 1, [1, 3]), (9, 2, [1, 2, 3])],
)
def test_the_oldest_go_first_and_the_best_stays(
    folder: Path, keep: int | None, also: int | None, left: list[int]
) -> None:
    prune(folder, keep=keep, also=also)
    assert [step for step, _ in list_checkpoints(folder)] == left


def test_newer_ones_than_the_one_taken_up_are_removed(folder: Path) -> None:
    remove_newer(folder, 1)
    assert [step for step, _ in list_checkpoints(folder)] == [1]


def test_steps_are_numbers_and_not_names(tmp_path: Path) -> None:
    for name in ("step-9", "step-10", "step-x", "step-", "astep-1", "step-1.tmp"):
        (tmp_path / name).mkdir()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [9, 10]


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def die_at(patch: pytest.MonkeyPatch, event: int) -> None:
    """Die at the n-th fsync, rename or replacement, without cleaning up, as killed processes do."""
    count = 0

    def dying(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == event:
                raise Killed
            return real(*arguments)

        return call

    patch.setattr(os, "fsync", dying(os.fsync))
    patch.setattr(Path, "rename", dying(Path.rename))
    patch.setattr(Path, "replace", dying(Path.replace))
    patch.setattr(shutil, "rmtree", lambda *_, **__: None)
    patch.setattr(Path, "unlink", lambda *_, **__: None)


def test_a_save_cut_short_anywhere_leaves_a_usable_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop()
    loop.step = 3
    take(loop, 1)
    found = []
    for event in range(1, 100):
        place = Path(shutil.copytree(folder, tmp_path / str(event)))
        with monkeypatch.context() as patch:
            die_at(patch, event)
            try:
                save(place, loop)
                break
            except Killed:
                pass
        checkpoint, passed = newest(place)
        assert checkpoint is not None
        assert not passed
        found.append(checkpoint.step)
        files.remove_leftovers(place)
        assert {path.name for path in place.iterdir()} == {
            f"step-{n + 1}" for n in range(found[-1])
        }
    assert len(found) > 15
    assert found == sorted(found)
    assert set(found) == {3, 4}


def test_a_full_disk_keeps_the_older_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop()
    loop.step = 3
    take(loop, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFailure, match="no space left") as error:
            save(folder, loop)
    assert error.value.exit_code == 4
    assert sorted(path.name for path in folder.iterdir()) == ["step-1", "step-2", "step-3"]
    assert newest(folder)[1] == []
