"""Who takes part in `bench_train`, with which settings, and by how much ours is to be faster.

Defaults are what a tool does unasked; best-tuned is the fastest of the settings in TUNING that
keeps the objective.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import environments
from measuring import Contender

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

OURS, OURS_FLOAT32 = "ours", "ours, float32"
TRL, TRL_DEFAULTS = "TRL, best-tuned", "TRL, defaults"
LITGPT, LITGPT_FLOAT32 = "litgpt, best-tuned", "litgpt, float32"
TRAINER, SEED, UNSLOTH = "Trainer, padded batches", "the seed's way", "unsloth"
TRL_PACKED = "TRL, best-tuned, packed"


@dataclass(frozen=True)
class Peer:
    """A peer's settings; its losses are held against plain ones in `dtype`, where it is named.

    litgpt computes its very loss in bfloat16. Not the `same` steps are those of the seed's way,
    which has another objective, and of packing, which fills them with other rows. Threads that
    wait give way, as ours do, unless `wait` says ACTIVE: spinning is fatal beside other work.
    """

    environment: str
    what: str
    options: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "bfloat16"
    once: bool = False
    same: bool = True
    wait: str = "PASSIVE"


_LIGHT = {"dtype": "bfloat16", "checkpointing": "0"}
PEERS = {
    TRL_DEFAULTS: Peer("trl", "trl", {"batch": "2"}),
    TRL: Peer("trl", "trl", {**_LIGHT, "batch": "1"}),
    LITGPT: Peer("litgpt", "litgpt", {"batch": "1"}, dtype=""),
    LITGPT_FLOAT32: Peer("litgpt", "litgpt", {"batch": "1", "dtype": "float32"}, dtype="float32"),
    TRAINER: Peer("trl", "hf", {"batch": "2"}),
    SEED: Peer("trl", "seed", {"batch": "2"}, dtype="", once=True, same=False),
}
CUDA_PEERS = {
    TRL_DEFAULTS: Peer("trl", "trl", {"batch": "2"}),
    TRL: Peer("trl", "trl", {**_LIGHT, "batch": "4"}),
    TRL_PACKED: Peer(
        "trl",
        "trl",
        {**_LIGHT, "batch": "1", "accumulation": "1", "packing": "1", "length": "16384"},
        dtype="",
        same=False,
    ),
    UNSLOTH: Peer("unsloth", "unsloth", {"batch": "4"}),
}
EVERYONE = {**CUDA_PEERS, **PEERS}
GATED = (TRL, TRL_DEFAULTS, LITGPT_FLOAT32, LITGPT, TRAINER)
STARTED = (TRL, LITGPT)
TUNING = {
    "TRL, bfloat16 weights, 1 row": Peer("trl", "trl", {**_LIGHT, "batch": "1"}),
    "TRL, bfloat16 weights, 2 rows": Peer("trl", "trl", {**_LIGHT, "batch": "2"}),
    "TRL, bfloat16 weights, 4 rows": Peer("trl", "trl", {**_LIGHT, "batch": "4"}),
    "TRL, bfloat16 weights, 1 row, checkpointing": Peer(
        "trl", "trl", {"dtype": "bfloat16", "batch": "1"}
    ),
    "TRL, bfloat16 weights, no autocast, 1 row": Peer(
        "trl", "trl", {**_LIGHT, "autocast": "0", "batch": "1"}
    ),
    "TRL, float32 weights, autocast, 1 row": Peer(
        "trl", "trl", {"checkpointing": "0", "batch": "1"}
    ),
    "TRL, bfloat16 weights, packed (bfd)": Peer(
        "trl", "trl", {**_LIGHT, "batch": "1", "packing": "1"}
    ),
    "TRL, bfloat16 weights, padding-free, 2 rows": Peer(
        "trl", "trl", {**_LIGHT, "batch": "2", "padding_free": "1", "length": "0"}
    ),
    "TRL, bfloat16 weights, 1 row, threads spin": Peer(
        "trl", "trl", {**_LIGHT, "batch": "1"}, wait="ACTIVE"
    ),
    "litgpt, bfloat16, 1 row": Peer("litgpt", "litgpt", {"batch": "1"}),
    "litgpt, bfloat16, 1 row, threads spin": Peer(
        "litgpt", "litgpt", {"batch": "1"}, wait="ACTIVE"
    ),
    "litgpt, bfloat16, 2 rows": Peer("litgpt", "litgpt", {"batch": "2"}),
    "litgpt, bfloat16, 4 rows": Peer("litgpt", "litgpt", {"batch": "4"}),
    "Trainer, bfloat16, 1 row": Peer("trl", "hf", {"batch": "1"}),
    "Trainer, bfloat16, 2 rows": Peer("trl", "hf", {"batch": "2"}),
}

SPEED_GOALS: Mapping[str, Mapping[str, float]] = {
    "like3b": {TRL_DEFAULTS: 2.6, TRL: 1.7, LITGPT: 1.4, SEED: 8.0},
    "bigvocab": {TRL_DEFAULTS: 6.0, TRL: 5.0, LITGPT: 3.5},
    "qwen3b": {TRL: 1.3, TRL_PACKED: 1.3, TRL_DEFAULTS: 4.0},
}
START_GOALS = {TRL: 2.0, LITGPT: 1.4}
FIRST_STEP_GOALS = {TRL: 2.0}
TRAJECTORY_GOALS = {TRL: 2.0}
# On a device of the H100 class: share of the GEMM peak, and seconds from start to adapter.
DEVICE_SHARE, DEVICE_SECONDS = 0.6, 45.0


@dataclass(frozen=True)
class Makes:
    """Makes the commands of contenders for one set of rows.

    Args:
        model: The folder everyone loads.
        peers: Where the peers' environments are.
        options: What every contender is told.
        ours: Configuration keys for our side alone.
    """

    model: Path
    peers: Path
    options: Mapping[str, str]
    ours: Mapping[str, str]

    def own(self, name: str, rows: Path, cores: Sequence[int], **options: str) -> Contender:
        """Return our side; `float32` in its name is its dtype."""
        dtype = "float32" if name == OURS_FLOAT32 else "bfloat16"
        given = {**self.options, "training.dtype": dtype, **self.ours, **options}
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
        python = environments.python(peer.environment, self.peers)
        command = [str(python), str(HERE / script), peer.what, str(self.model), str(tokens)]
        command += _pairs({**self.options, **options, **peer.options})
        environment = {**self._environment("", cores), "OMP_WAIT_POLICY": peer.wait}
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
        path = os.pathsep.join([str(ROOT), str(HERE)])
        command += _pairs(options)
        return Contender(name, command, self._environment(path, cores), keep=True)

    def _environment(self, path: str, cores: Sequence[int]) -> dict[str, str]:
        # A device that is not asked for would be taken all the same.
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.options["device"] == "cpu" else {}
        return {
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": str(len(cores)),
            "OMP_WAIT_POLICY": "PASSIVE",
            **hidden,
        }


def _pairs(options: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in options.items()]
