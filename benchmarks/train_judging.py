"""The gates and verdicts of `bench_train`, as they stand on its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pages
import train_contenders as contenders
import train_gates as gates
from measuring import Run
from train_speeds import Work


class Verdicts:
    """Collects what holds and what does not; `equal` is whether every gate was passed."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.equal = True

    def gate(self, what: str, met: bool, detail: str) -> None:
        """Note a gate."""
        self.equal &= met
        self.said.append(pages.holds(what, met, detail))

    def first_step(self, folders: Mapping[str, Path], reference: Path) -> list[list[str]]:
        """Judge loss and gradient of one step; return a table of them, heading first.

        Args:
            folders: What each contender left of its gate run, ours in both dtypes among them.
            reference: What the plain loop left.
        """
        from safetensors.numpy import load_file

        right = json.loads((reference / "found.json").read_bytes())["loss"]
        exact = load_file(reference / "gradient.safetensors")
        lines = [["one step", "loss", "from plain float32", "gradient from plain float32"]]
        errors = {}
        for name, folder in folders.items():
            losses = json.loads((folder / "found.json").read_bytes())["losses"]
            errors[name] = gates.gradient_error(load_file(folder / "gradient.safetensors"), exact)
            lines.append(
                [name, f"{losses[0]:.6f}", f"{losses[0] - right:+.1e}", f"{errors[name]:.1e}"]
            )
            self._loss(f"one step of {name}", losses, [right], dtype_of(name))
        self._gradient(errors)
        return lines

    def _gradient(self, errors: Mapping[str, float]) -> None:
        if contenders.OURS_FLOAT32 in errors:
            own = errors[contenders.OURS_FLOAT32]
            self.gate(
                "gradient in float32 equals that of plain autograd",
                own <= gates.GRADIENT_TOLERANCE,
                f"(relative error {own:.1e}, asked {gates.GRADIENT_TOLERANCE:g})",
            )
        # Everyone rounds somewhere else; all of these are accepted ways to train in bfloat16.
        tuned = (contenders.TRL, contenders.LITGPT, contenders.TRAINER)
        worst = max((name for name in tuned if name in errors), key=lambda name: errors[name])
        own, theirs = errors[contenders.OURS], errors[worst]
        self.gate(
            "gradient in bfloat16 is no further from float32 than a best-tuned peer's",
            own <= theirs,
            f"(relative error {own:.2e}; {worst} {theirs:.2e})",
        )

    def _loss(
        self, what: str, found: Sequence[float], right: Sequence[float], dtype: str | None
    ) -> None:
        if not dtype:
            return
        met, worst = gates.losses_agree(found, right, dtype)
        asked = gates.TOLERANCES[dtype]
        self.gate(f"losses of {what}", met, f"(off by {worst:.1e} at most, asked {asked:g})")

    def losses(self, folders: Mapping[str, Path], plain: float, *, every: bool) -> None:
        """Judge the losses of measured runs: step 1 against plain float32, the rest against ours.

        Args:
            folders: What each contender left of its last run.
            plain: Loss of step 1.
            every: Whether everyone began from the same adapter, so that all steps compare.
        """
        found = {
            name: json.loads((folder / "found.json").read_bytes())["losses"]
            for name, folder in folders.items()
        }
        own = found[contenders.OURS]
        for name, losses in found.items():
            self._loss(
                f"step 1 of {name} against plain float32", losses[:1], [plain], dtype_of(name)
            )
            if every and name != contenders.OURS:
                self._loss(f"the steps of {name} against ours", losses, own, dtype_of(name))

    def held_out(self, names: Sequence[str], score: Path) -> list[list[str]]:
        """Judge the NLL of held-out rows under each adapter; return a table, heading first.

        Args:
            names: Contenders in the order in which their adapters were scored, ours first.
            score: What the reference wrote.
        """
        found = json.loads((score / "found.json").read_bytes())
        own, targets = found["nll"][0], found["targets"]
        lines = [["held-out NLL", "nats per token", "from ours", "95 % interval, paired"]]
        for name, nll in zip(names, found["nll"], strict=True):
            mean = f"{sum(nll) / sum(targets):.6f}"
            if name == contenders.OURS:
                lines.append([name, mean, "", ""])
                continue
            met, away, (low, high) = gates.held_out(nll, own, targets)
            lines.append([name, mean, f"{away:+.1e}", f"{low:+.1e} to {high:+.1e}"])
            if contenders.EVERYONE[name].same:
                said = f"({away:+.1e} nats, interval within {gates.HELD_OUT_MARGIN:g})"
                self.gate(f"held-out NLL of {name} is ours", met, said)
        return lines

    def faster(
        self,
        goals: Mapping[str, float],
        runs: Mapping[str, Sequence[Run]],
        figures: Mapping[str, Any],
        key: str,
        what: str,
    ) -> None:
        """Judge how many times ours a peer's figure is."""
        for name, least in goals.items():
            if name in figures:
                self._ratio(f"{what} {name}", runs, figures, name, key, least)

    def device(self, figures: Mapping[str, Any], work: Work) -> None:
        """Judge what is asked of ours alone on a large device."""
        own = figures[contenders.OURS]
        share = work.flops / own["training_seconds"]["median"] / work.peak
        met = share >= contenders.DEVICE_SHARE
        asked = f"({share:.0%}, asked {contenders.DEVICE_SHARE:.0%})"
        self.said.append(pages.holds("share of the GEMM peak", met, asked))
        wall = own["wall_seconds"]["median"]
        met = wall <= contenders.DEVICE_SECONDS
        asked = f"({wall:.1f} s, asked {contenders.DEVICE_SECONDS:g})"
        self.said.append(pages.holds("process start to adapter", met, asked))

    def memory(
        self, runs: Mapping[str, Sequence[Run]], figures: Mapping[str, Any], where: str
    ) -> None:
        """Judge that our peak is no higher than that of the best peer."""
        key = "device_bytes" if "device_bytes" in figures[contenders.OURS] else "peak_pss"
        others = [name for name in figures if name != contenders.OURS]
        if others:
            best = min(others, key=lambda name: figures[name][key]["median"])
            self._ratio(f"{where}: peak memory of {best}", runs, figures, best, key, 1.0)

    def _ratio(
        self,
        what: str,
        runs: Mapping[str, Sequence[Run]],
        figures: Mapping[str, Any],
        name: str,
        key: str,
        least: float,
    ) -> None:
        ours, theirs = figures[contenders.OURS][key], figures[name][key]
        if len(runs[name]) > 1:
            self.said.append(pages.ratio(what, ours=ours, theirs=theirs, least=least))
            return
        value = theirs["median"] / ours["median"]
        detail = f"({value:.2f} times, asked {least:g}; one run, so without a range)"
        self.said.append(pages.holds(what, value >= least, detail))


def dtype_of(name: str) -> str:
    """Return in which dtype a contender's losses are held against the reference; "" is not."""
    if name in (contenders.OURS, contenders.OURS_FLOAT32):
        return "float32" if name == contenders.OURS_FLOAT32 else "bfloat16"
    return contenders.EVERYONE[name].dtype
