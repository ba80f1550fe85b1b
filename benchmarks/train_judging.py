"""Did the contenders do the same work, and how fast: the gates and verdicts on a page."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pages
from train_contenders import DEVICE_SECONDS, DEVICE_SHARE, OURS, OWN, UNTRAINED, Peer
from train_speeds import Work

# In step 2 Adam has made much of small gradients: in bfloat16 every trainer was off by 3e-3
# of 9 (like3b, 2026-11-29).
LOSS_TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-3}
# Relative: what the order of sums may do in float32, and rounding in bfloat16. Another objective or
# other targets are further off by an order of magnitude.
GRADIENT_TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
# How far held-out rows may lie from where ours brings them, over how far ours brings them.
HELD_OUT_SHARE = 0.05
# Rounding grows with every step that builds on it.
COMPARED_STEPS = 16


def gradient_error(found: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """Return the norm of the difference over the norm; infinite where tensors are missing.

    Tensors that `right` has as zeros need not be there: nothing came to them.
    """
    total = wrong = 0.0
    for name, wanted in right.items():
        exact = np.asarray(wanted, np.float64)
        total += float((exact**2).sum())
        if name in found:
            wrong += float(((np.asarray(found[name], np.float64) - exact) ** 2).sum())
        elif exact.any():
            return math.inf
    return math.sqrt(wrong / total) if total else math.inf


def loss_error(found: Sequence[float], right: Sequence[float]) -> float:
    """Return the largest difference in the first steps; infinite where one run has other steps."""
    if len(found) != len(right) or not right:
        return math.inf
    pairs = list(zip(found, right, strict=True))[:COMPARED_STEPS]
    # A loss that is no number is as far off as can be.
    return max(abs(one - other) if math.isfinite(one) else math.inf for one, other in pairs)


@dataclass(frozen=True)
class Agreement:
    """How far the gate's steps of one contender are from the plain loop's.

    Attributes:
        loss: Of its first step.
        loss_error: The largest difference of a step.
        gradient_error: Relative, of the first step's gradient.
        dtype: What it computes in, which says how far it may be off.
        rough: Whether its loss is rounded to bfloat16 and says nothing.
    """

    loss: float
    loss_error: float
    gradient_error: float
    dtype: str
    rough: bool = False

    @property
    def trouble(self) -> str:
        """What is too far off; nothing where it agrees."""
        said = []
        if not self.rough and not self.loss_error <= LOSS_TOLERANCES[self.dtype]:
            said.append(f"loss off by {self.loss_error:.1e}")
        if not self.gradient_error <= GRADIENT_TOLERANCES[self.dtype]:
            said.append(f"gradient off by {self.gradient_error:.1e}")
        return ", ".join(said)


def agreement(folder: Path, reference: Path, dtype: str, peer: Peer | None = None) -> Agreement:
    """Compare what a contender left of the gate's steps with what the plain loop left."""
    from safetensors.numpy import load_file

    found = json.loads((folder / "found.json").read_bytes())["losses"]
    right = json.loads((reference / "found.json").read_bytes())["losses"]
    if peer is not None and not peer.same:
        # One step takes the rows of all steps at once, which are the same in each.
        right = right[:1]
    exact = load_file(reference / "gradient.safetensors")
    return Agreement(
        loss=found[0],
        loss_error=loss_error(found, right),
        gradient_error=gradient_error(load_file(folder / "gradient.safetensors"), exact),
        dtype=dtype,
        rough=peer is not None and peer.rough,
    )


class Verdicts:
    """Collects what holds and what does not; `equal` is whether every gate was passed."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.equal = True

    def gate(self, what: str, met: bool, detail: str) -> None:
        """Note a gate."""
        self.equal &= met
        self.said.append(pages.holds(what, met, detail))

    def first_steps(self, where: str, found: Mapping[str, Agreement]) -> list[list[str]]:
        """Judge losses and gradients of the gate's steps; return a table, heading first.

        Everyone is held to fixed bounds. Ours in bfloat16 must be no further off than the furthest
        of the peers that keep them: everyone rounds somewhere else, and all of these are ways that
        people train.
        """
        heading = ["the gate's steps", "loss of the first", "largest difference of a loss"]
        lines = [[*heading, "gradient of the first, relative error"]]
        for name, one in found.items():
            differs = f"{one.loss_error:.1e}" + (" (its loss is bfloat16)" if one.rough else "")
            lines.append([name, f"{one.loss:.6f}", differs, f"{one.gradient_error:.1e}"])
            asked = f"{LOSS_TOLERANCES[one.dtype]:g}"
            detail = (
                "" if one.rough else f"losses off by {one.loss_error:.1e} at most, asked {asked}; "
            )
            detail += f"gradient by {one.gradient_error:.1e}"
            detail += f", asked {GRADIENT_TOLERANCES[one.dtype]:g}"
            what = f"{where}: steps of {name} are plain float32's within {one.dtype}"
            self.gate(what, not one.trouble, f"({detail})")
        if OURS in found:
            self._no_further(where, found)
        return lines

    def _no_further(self, where: str, found: Mapping[str, Agreement]) -> None:
        passed = {
            name: one.gradient_error
            for name, one in found.items()
            if name not in OWN and one.dtype == "bfloat16" and not one.trouble
        }
        own = found[OURS].gradient_error
        what = f"{where}: our gradient in bfloat16 is no further from float32 than a peer's"
        if not passed:
            self.gate(what, False, f"({own:.2e}, and no peer passed its own gate)")
            return
        worst = max(passed, key=lambda name: passed[name])
        self.gate(what, own <= passed[worst], f"({own:.2e}; {worst} {passed[worst]:.2e})")

    def losses(
        self,
        where: str,
        folders: Mapping[str, Path],
        peers: Mapping[str, Peer],
        plain: float,
        *,
        every: bool,
    ) -> None:
        """Judge the losses of measured runs: step 1 against plain float32, all steps against ours.

        Args:
            where: On which cores they ran.
            folders: What each contender left of its last run.
            peers: The peers among them.
            plain: Loss of step 1.
            every: Whether everyone began from the same adapter, so that all steps compare.
        """
        found = {
            name: json.loads((folder / "found.json").read_bytes())["losses"]
            for name, folder in folders.items()
        }
        for name, losses in found.items():
            peer = peers.get(name)
            if peer is not None and (peer.rough or not peer.same):
                continue
            dtype = peer.dtype if peer else "bfloat16" if name == OURS else "float32"
            what = f"{where}: loss of step 1 of {name} is plain float32's"
            self._near(what, losses[:1], [plain], dtype)
            if every and name != OURS:
                told = f"the first {COMPARED_STEPS} of " if len(losses) > COMPARED_STEPS else "all "
                what = f"{where}: losses of {told}{len(losses)} steps of {name} are those of {OURS}"
                self._near(what, losses, found[OURS], "bfloat16")

    def _near(self, what: str, found: Sequence[float], right: Sequence[float], dtype: str) -> None:
        off, asked = loss_error(found, right), LOSS_TOLERANCES[dtype]
        self.gate(what, off <= asked, f"(off by {off:.1e} at most, asked {asked:g})")

    def held_out(
        self,
        where: str,
        nll: Mapping[str, Sequence[float]],
        targets: Sequence[int],
        *,
        free: Collection[str] = (),
    ) -> list[list[str]]:
        """Judge the NLL of held-out rows under each adapter; return a table, heading first.

        Args:
            where: On which cores the adapters were trained.
            nll: Of each row, by contender, and under the adapter that everyone began from.
            targets: How many tokens each row's NLL is a sum over.
            free: Who is shown and not judged.
        """
        from swe_scaffold.metrics.bootstrap import bootstrap_confidence_interval

        own, total = nll[OURS], sum(targets)
        moved = (math.fsum(nll[UNTRAINED]) - math.fsum(own)) / total
        asked = HELD_OUT_SHARE * abs(moved)
        heading = ["held-out NLL", "nats per token", f"from {OURS}", "95 % interval, paired"]
        lines = [[*heading, f"of the {abs(moved):.1e} that training moved it"]]
        for name, found in nll.items():
            mean = f"{math.fsum(found) / total:.6f}"
            if name == OURS:
                lines.append([name, mean, "", "", ""])
                continue
            away = (math.fsum(found) - math.fsum(own)) / total
            low, high = bootstrap_confidence_interval(found, paired=own, weights=targets)
            share = f"{abs(away / moved):.1%}" if moved else "-"
            lines.append([name, mean, f"{away:+.1e}", f"{low:+.1e} to {high:+.1e}", share])
            if name != UNTRAINED and name not in free:
                detail = f"({away:+.1e} nats, {share} of what training moved it; asked "
                what = f"{where}: held-out NLL of {name} is that of {OURS}"
                met = moved != 0 and abs(away) <= asked
                self.gate(what, met, f"{detail}{HELD_OUT_SHARE:.0%})")
        return lines

    def ratio(
        self, what: str, figures: Mapping[str, Any], pair: tuple[str, str], key: str, least: float
    ) -> None:
        """Judge how many times the figure of the first of a pair that of the second is."""
        own, theirs = pair
        one, other = figures[own][key], figures[theirs][key]
        self.said.append(pages.ratio(what, ours=one, theirs=other, least=least, names=pair))

    def device(self, figure: Mapping[str, Any], work: Work) -> None:
        """Judge what is asked of ours alone on a large device."""
        training, wall = figure["training_seconds"], figure["wall_seconds"]
        share = work.flops / training["median"] / work.peak
        self.said.append(
            pages.level("share of the GEMM peak", training, share, DEVICE_SHARE, most=False)
        )
        seconds = wall["median"]
        self.said.append(
            pages.level("seconds from start to adapter", wall, seconds, DEVICE_SECONDS, most=True)
        )
