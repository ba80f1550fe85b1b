"""Rows dealt to processes: the same loss and gradient for any number; what a launcher says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from swe_scaffold.engine import processes
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import Loop, LoopSettings
from swe_scaffold.engine.passes import deal
from swe_scaffold.engine.processes import ALONE, Processes, SaidElsewhere, launched, one_voice
from swe_scaffold.errors import ConfigError, UsageError
from tests.engine.shapes import make_cut, make_model, make_rows, with_adapter

LENGTHS = (31, 7, 12, 19, 5, 26, 11, 9, 17)
SETTINGS = LoopSettings(
    steps=10,
    learning_rate=0.01,
    scheduler="constant",
    warmup_steps=0,
    weight_decay=0.0,
    max_grad_norm=None,
    seed=5,
    pad_id=0,
)


class Stop(Exception):
    pass


class OneOf:
    """One of several processes, as far as its gradient: then it stops."""

    shards = False

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.nll = 0.0
        self.gradients: list[torch.Tensor] = []

    def total(self, values: Sequence[float]) -> list[float]:
        (self.nll,) = values
        return list(values)

    def add_gradients(self, parameters: Sequence[Any]) -> None:
        held = [weight.grad for weight in parameters]
        self.gradients = [
            torch.zeros_like(weight) if grad is None else grad.clone()
            for weight, grad in zip(parameters, held, strict=True)
        ]
        raise Stop


def gradients(size: int, *, packs: bool) -> tuple[float, list[torch.Tensor]]:
    """The loss and gradient that `size` processes come to for the same step, added up."""
    nll, total = 0.0, []
    for rank in range(size):
        model = with_adapter(make_model(), dropout=0.2)
        one: Any = OneOf(rank, size)
        cut = make_cut(model, packs=packs)
        loop = Loop(model, SETTINGS, Device("cpu", torch.float32), cut, one)
        loop.step = 3
        with pytest.raises(Stop):
            loop.take(make_rows(LENGTHS))
        nll += one.nll
        total.append(one.gradients)
    return nll, [torch.stack(parts).sum(0) for parts in zip(*total, strict=True)]


@pytest.mark.parametrize("packs", [True, False])
def test_loss_and_gradient_do_not_depend_on_the_number_of_processes(packs: bool) -> None:
    """Dropout is on: its masks belong to rows. With eleven processes, two have nothing to do."""
    nll, wanted = gradients(1, packs=packs)
    assert any(float(part.abs().max()) > 0 for part in wanted)
    for size in (2, 3, 11):
        found_nll, found = gradients(size, packs=packs)
        assert found_nll == pytest.approx(nll, rel=1e-6)
        for part, expected in zip(found, wanted, strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-7)


def test_rows_are_dealt_by_their_tokens() -> None:
    rows = make_rows(LENGTHS)
    for size in (1, 2, 3, 4):
        shares = deal(rows, size)
        assert sorted(row.instance_id for share in shares for row in share) == sorted(
            row.instance_id for row in rows
        )
        load = [sum(row.length for row in share) for share in shares]
        assert max(load) - min(load) <= max(LENGTHS)
        # Longest first is within a third of the best there is (Graham, 1969).
        assert max(load) <= 4 / 3 * max(max(LENGTHS), -(-sum(LENGTHS) // size))
        assert shares == deal(rows[::-1], size)


def test_one_process_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert launched() is ALONE
    assert (ALONE.most(3), ALONE.least(3), ALONE.total([1.5]), ALONE.share({"a": 1})) == (
        3,
        3,
        [1.5],
        {"a": 1},
    )
    ALONE.require_same(5, "weights")
    with pytest.raises(RuntimeError, match="gloo"), ALONE.watched():
        raise RuntimeError("gloo: connection closed by peer")


def set_launcher(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **more}
    for name, value in said.items():
        monkeypatch.setenv(name, value)


def test_the_launcher_says_who_is_who(monkeypatch: pytest.MonkeyPatch) -> None:
    set_launcher(monkeypatch)
    assert launched() == Processes(rank=3, size=4, local_rank=1, local_size=2)
    set_launcher(monkeypatch, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert launched().shards


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP1"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP1"),
        (
            {"ACCELERATE_USE_FSDP": "1", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"},
            "on the host",
        ),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE"),
        ({"RANK": "-1"}, "RANK"),
    ],
)
def test_what_a_launcher_asks_for_in_vain_is_said(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], problem: str
) -> None:
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    set_launcher(monkeypatch, **said)
    with pytest.raises(UsageError, match=problem):
        launched()


def test_of_an_error_before_they_join_one_process_of_a_node_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        with one_voice():
            raise ConfigError("is wrong")

    set_launcher(monkeypatch, LOCAL_RANK="0")
    with pytest.raises(ConfigError, match="is wrong"):
        fail()
    set_launcher(monkeypatch)
    monkeypatch.setattr(processes, "_SPEECH_SECONDS", 0.0)
    with pytest.raises(SaidElsewhere) as error:
        fail()
    assert error.value.said
    assert error.value.exit_code == ConfigError.exit_code
