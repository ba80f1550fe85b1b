"""Who takes part in `bench_train`, with which settings, and by how much ours is to be faster.

Defaults are what a tool does unasked. Best-tuned is the fastest of a peer's SETTINGS that computes
what a plain loop does, found before anything is measured; the first one listed was the fastest when
last looked at, and is taken where nothing is to be tried.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring import Contender

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# On a CPU the command `train` takes float32, unasked.
OURS, OURS_FLOAT32 = "ours, bfloat16", "ours, float32 as it comes"
OWN = {OURS: "bfloat16", OURS_FLOAT32: "auto"}
TRL, TRL_DEFAULTS = "TRL, best-tuned", "TRL, defaults"
LITGPT, LITGPT_FLOAT32 = "litgpt, best-tuned", "litgpt, float32"
TRAINER, SEED, UNSLOTH = "Trainer, best-tuned", "the seed's way", "unsloth"
TRL_PACKED = "TRL, best-tuned, packed"
# Takes part in the gate alone: litgpt's steps, told without the rounding of its loss.
GATE_ONLY = (LITGPT_FLOAT32,)
UNTRAINED = "untrained"
# One that compiles for longer is not the fastest.
TRIAL_LIMIT = 600.0


@dataclass(frozen=True)
class Peer:
    """A peer's settings; loss and gradient are held against plain ones as befits `dtype`.

    litgpt computes its very loss in bfloat16, so of that only its gradient is (`rough`). Not the
    `same` steps are those of the seed's way, which has another objective, and of packing, which
    fills them with other rows, but where one step takes all rows there are. Threads that wait spin
    for some hundreds of microseconds, as ours do, or with `wait` ACTIVE until there is work again.
    """

    environment: str
    what: str
    options: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "bfloat16"
    rough: bool = False
    once: bool = False
    same: bool = True
    wait: str = "PASSIVE"

    @property
    def precision(self) -> str:
        """In which dtypes it computes, in words."""
        if self.what == "seed":
            return "float32"
        usual = "float32" if self.what == "trl" else "bfloat16"
        weights = self.options.get("dtype", usual)
        if self.what == "litgpt" or self.options.get("autocast") == "0":
            return weights
        return f"{weights} weights, bfloat16 autocast"


_LIGHT = {"dtype": "bfloat16", "checkpointing": "0"}
_PLAIN = {**_LIGHT, "autocast": "0"}


def _trl(light: Mapping[str, str], batch: int, attention: str = "sdpa", **more: str) -> Peer:
    return Peer("trl", "trl", {**light, "batch": str(batch), "attention": attention, **more})


def _litgpt(batch: int, wait: str = "PASSIVE") -> Peer:
    return Peer("litgpt", "litgpt", {"batch": str(batch)}, rough=True, wait=wait)


def _trainer(batch: int, attention: str) -> Peer:
    return Peer("trl", "hf", {"batch": str(batch), "attention": attention})


def _packed(length: int, accumulation: int, attention: str) -> Peer:
    more = {"packing": "1", "length": str(length), "accumulation": str(accumulation)}
    return Peer("trl", "trl", {**_LIGHT, "batch": "1", "attention": attention, **more}, same=False)


Settings = Mapping[str, Mapping[str, Peer]]
SETTINGS: Settings = {
    TRL: {
        "bfloat16, autocast, eager, 1 row": _trl(_LIGHT, 1, "eager"),
        "bfloat16, autocast, sdpa, 1 row": _trl(_LIGHT, 1),
        "bfloat16, eager, 1 row": _trl(_PLAIN, 1, "eager"),
        "bfloat16, sdpa, 1 row": _trl(_PLAIN, 1),
        "bfloat16, autocast, sdpa, 2 rows": _trl(_LIGHT, 2),
        "bfloat16, sdpa, 2 rows one after another (padding-free)": _trl(
            _PLAIN, 2, padding_free="1", length="0"
        ),
        "float32, autocast, eager, 1 row": _trl({"checkpointing": "0"}, 1, "eager"),
        "bfloat16, sdpa, 1 row, torch.compile": _trl(_PLAIN, 1, compile="1"),
        "bfloat16, eager, 1 row, threads spin": Peer(
            "trl", "trl", {**_PLAIN, "batch": "1", "attention": "eager"}, wait="ACTIVE"
        ),
    },
    TRL_DEFAULTS: {"as it comes, 2 rows": Peer("trl", "trl", {"batch": "2"})},
    LITGPT: {
        "bfloat16, 1 row": _litgpt(1),
        "bfloat16, 1 row, threads spin": _litgpt(1, "ACTIVE"),
        "bfloat16, 2 rows": _litgpt(2),
    },
    LITGPT_FLOAT32: {
        "float32, 1 row": Peer(
            "litgpt", "litgpt", {"batch": "1", "dtype": "float32"}, dtype="float32"
        )
    },
    TRAINER: {
        "bfloat16, autocast, eager, 1 row": _trainer(1, "eager"),
        "bfloat16, autocast, sdpa, 1 row": _trainer(1, "sdpa"),
        "bfloat16, autocast, sdpa, 2 rows": _trainer(2, "sdpa"),
    },
    SEED: {"all rows padded": Peer("trl", "seed", {"batch": "2"}, once=True, same=False)},
}
# Eager attention keeps a square of a long row for every head and layer.
LONG_SETTINGS: Settings = {
    TRL: {
        "bfloat16, sdpa, 1 row": _trl(_PLAIN, 1),
        "bfloat16, autocast, sdpa, 1 row": _trl(_LIGHT, 1),
        "bfloat16, sdpa, 1 row, checkpointing": _trl({**_PLAIN, "checkpointing": "1"}, 1),
        "float32, autocast, sdpa, 1 row": _trl({"checkpointing": "0"}, 1),
    }
}
CUDA_SETTINGS: Settings = {
    TRL: {
        "bfloat16, autocast, 2 rows": _trl(_LIGHT, 2),
        "bfloat16, autocast, 1 row": _trl(_LIGHT, 1),
        "bfloat16, autocast, 8 rows": _trl(_LIGHT, 8),
        "bfloat16, 2 rows": _trl(_PLAIN, 2),
    },
    TRL_PACKED: {
        "16,384 tokens, sdpa": _packed(16_384, 1, "sdpa"),
        "8,192 tokens, sdpa": _packed(8192, 2, "sdpa"),
        "16,384 tokens, variable lengths": _packed(16_384, 1, "flash_attention_2"),
        "8,192 tokens, variable lengths": _packed(8192, 2, "flash_attention_2"),
    },
    TRL_DEFAULTS: SETTINGS[TRL_DEFAULTS],
    UNSLOTH: {"4 rows": Peer("unsloth", "unsloth", {"batch": "4"})},
}
STARTED = (TRL, LITGPT)


def settings(command: str, device: str) -> Settings:
    """Return what may be tried, by contender, in the order of measuring."""
    if device == "cuda":
        return CUDA_SETTINGS
    return LONG_SETTINGS if command == "trajectories" else SETTINGS


SPEED_GOALS: Mapping[str, Mapping[str, float]] = {
    "like3b": {TRL_DEFAULTS: 2.6, TRL: 1.7, LITGPT: 1.4, SEED: 8.0},
    "bigvocab": {TRL_DEFAULTS: 6.0, TRL: 5.0, LITGPT: 3.5},
    "qwen3b": {TRL: 1.3, TRL_PACKED: 1.3, TRL_DEFAULTS: 4.0},
}
START_GOALS = {TRL: 2.0, LITGPT: 1.4}
FIRST_STEP_GOALS = {TRL: 2.0}
TRAJECTORY_GOALS = {TRL: 2.0}


def asked(command: str, shape: str) -> tuple[str, str, Mapping[str, float]]:
    """Return which figure is judged, how it is called, and how many times ours it is to be."""
    if command == "start":
        if shape in ("small", "tiny"):
            return "first_step_seconds", "seconds to the first step", FIRST_STEP_GOALS
        return "wall_seconds", "seconds of the process", START_GOALS
    goals = TRAJECTORY_GOALS if command == "trajectories" else SPEED_GOALS.get(shape, {})
    return "training_seconds", "tokens/s", goals


# On a device of the H100 class: share of the GEMM peak, and seconds from start to adapter.
DEVICE_SHARE, DEVICE_SECONDS = 0.6, 45.0


@dataclass(frozen=True)
class Makes:
    """Makes the commands of contenders for one set of rows.

    Args:
        model: The folder everyone loads.
        pythons: The interpreter of each peer's environment.
        options: What every contender is told.
        ours: Configuration keys for our side alone.
    """

    model: Path
    pythons: Mapping[str, Path]
    options: Mapping[str, str]
    ours: Mapping[str, str]

    def own(self, name: str, rows: Path, cores: Sequence[int], **options: str) -> Contender:
        """Return our side."""
        given = {**self.options, "training.dtype": OWN[name], **self.ours, **options}
        return self._code("train_ours", name, "ours", rows, cores, given)

    def reference(
        self, what: str, rows: Path, cores: Sequence[int], options: Mapping[str, str]
    ) -> Contender:
        """Return the plain loop."""
        given = {**self.options, **options}
        return self._code("train_reference", f"reference, {what}", what, rows, cores, given)

    def peer(
        self,
        name: str,
        peer: Peer,
        tokens: Path,
        cores: Sequence[int],
        options: Mapping[str, str],
    ) -> Contender:
        """Return a peer in its own environment."""
        script = "train_litgpt.py" if peer.what == "litgpt" else "train_peers.py"
        command = [
            str(self.pythons[peer.environment]),
            str(HERE / script),
            peer.what,
            str(self.model),
            str(tokens),
        ]
        command += _pairs({**self.options, **peer.options, **options})
        environment = self._environment([], cores)
        if peer.wait == "ACTIVE":
            environment |= {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "infinite"}
        return Contender(name, command, environment, keep=True, once=peer.once)

    def _code(
        self,
        module: str,
        name: str,
        what: str,
        source: Path,
        cores: Sequence[int],
        options: Mapping[str, str],
    ) -> Contender:
        code = f"import {module}; {module}.main()"
        command = [sys.executable, "-c", code, what, str(self.model), str(source)]
        command += _pairs(options)
        environment = self._environment([str(ROOT), str(HERE)], cores)
        return Contender(name, command, environment, keep=True)

    def _environment(self, path: Sequence[str], cores: Sequence[int]) -> dict[str, str]:
        # A device that is not asked for would be taken all the same.
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.options["device"] == "cpu" else {}
        inherited = os.environ.get("PYTHONPATH")
        return {
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([*path, *([inherited] if inherited else [])]),
            "OMP_NUM_THREADS": str(len(cores)),
            # As the command `train` has it.
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "8000",
            **hidden,
        }


def _pairs(options: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in options.items()]
